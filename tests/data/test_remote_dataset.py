"""Datasets in an object store are those of the folder, and what goes wrong there is told in one line."""

import concurrent.futures
import dataclasses
import pickle
import sys
import time

import fsspec
import numpy as np
import pytest
from small_datasets import equal

from valle_jax.config import Config, DataConfig, TrainConfig
from valle_jax.data.dataset import Dataset
from valle_jax.data.pipeline import TrainBatches
from valle_jax.errors import RestartError, UserError
from valle_jax.storage import RemoteFolder


@pytest.fixture
def url(bucket, dataset):
    return bucket.put(dataset.path, "sets/small")


def assert_same(remote, local):
    assert remote.info == local.info and remote.fingerprint == local.fingerprint
    for field in dataclasses.fields(local.index):
        np.testing.assert_array_equal(getattr(remote.index, field.name), getattr(local.index, field.name))


def test_a_remote_dataset_equals_the_local_one(url, dataset, bucket):
    remote = Dataset.open(f"{url}/")
    # One listing, and each file once: the time to open hardly depends on how far away the store is.
    files = ["dataset.json", *(f"data-{shard:05d}-of-00003.index.npz" for shard in range(3))]
    assert len(bucket.requests) == 1 + len(files)
    assert all(sum(file in target for _, target in bucket.requests) == 1 for file in files)
    assert_same(remote, dataset)
    again = pickle.loads(pickle.dumps(remote))
    bucket.requests.clear()
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        order = [i * 37 % 150 for i in range(300)]
        for i, utterance in zip(order, pool.map(again.read, order), strict=True):
            assert equal(utterance, dataset.read(i))
    assert len(bucket.requests) == 300  # one range of bytes each
    assert list(remote.verify()) == []


def test_batches_are_read_side_by_side(url, dataset, monkeypatch):
    """More requests are on their way than Grain has threads, and the batch is the same as from the folder."""
    config = Config(data=DataConfig(row_length=60), train=TrainConfig(rows=16))
    waiting, most = [], []
    read_range = RemoteFolder.read_range

    def slow(*arguments):
        waiting.append(0)
        most.append(len(waiting))
        time.sleep(0.02)
        waiting.pop()
        return read_range(*arguments)

    monkeypatch.setattr(RemoteFolder, "read_range", slow)
    remote, local = (
        next(iter(TrainBatches([(Dataset.open(path), 1.0)], config, start_row=0, plan_dir=None)))
        for path in (url, dataset.path)
    )
    assert max(most) >= 16
    for name, values in local.items():
        np.testing.assert_array_equal(remote[name], values, err_msg=name)


def test_any_file_system_of_fsspec(dataset):
    files = fsspec.filesystem("memory")
    files.put(str(dataset.path), "/small", recursive=True)
    remote = Dataset.open("memory://small")
    assert_same(remote, dataset)
    assert equal(remote.read(149), dataset.read(149))
    files.rm("/small", recursive=True)


def test_what_passes_is_repeated(url, bucket):
    """gcsfs repeats what the store was too busy for; here the first attempt at each index."""
    met = set()

    def busy_once(method, target):
        first = "index.npz" in target and target not in met
        met.add(target)
        return 503 if first else None

    bucket.refuse = busy_once
    assert len(Dataset.open(url)) == 150


def test_what_stays_asks_for_a_restart(url, bucket):
    remote = Dataset.open(url)
    bucket.refuse = lambda method, target: 403
    with pytest.raises(RestartError, match=r"cannot access gs://.*00000-of-00003\.tfrecord: .*credentials$"):
        remote.read(0)
    with pytest.raises(UserError, match=r"^cannot access gs://bucket/sets/small/dataset\.json: .*credentials$"):
        Dataset.open(url)


def test_damage_is_named(url, bucket):
    remote = Dataset.open(url)
    name = "sets/small/data-00000-of-00003.tfrecord"
    generation, content = bucket.objects[name]
    bucket.objects[name] = generation, content[:-1]
    with pytest.raises(
        UserError, match=r"gs://bucket/sets/small/data-00000-of-00003\.tfrecord: record 49 .* is damaged"
    ):
        remote.read(49)
    with pytest.raises(UserError, match=rf"has {len(content) - 1} bytes but its index describes"):
        Dataset.open(url)
    del bucket.objects[name]
    with pytest.raises(UserError, match=r"is damaged"):
        remote.read(0)
    with pytest.raises(UserError, match=r"is not complete: data-00000-of-00003\.tfrecord is missing"):
        Dataset.open(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://bucket/nothing", "gs://bucket/nothing is not a complete dataset directory"),
        ("gs://no-such-bucket/set", "gs://no-such-bucket/set is not a complete dataset directory"),
        ("cloud://bucket/set", "cannot access cloud://bucket/set: Protocol not known: cloud"),
        ("s3://bucket/set", r"s3://bucket/set: .*; pip install 'valle-jax\[storage\]'"),
    ],
)
def test_urls_that_are_refused(bucket, monkeypatch, url, message):
    monkeypatch.setitem(sys.modules, "s3fs", None)  # as if not installed
    with pytest.raises(UserError, match=message) as error:
        Dataset.open(url)
    assert "\n" not in str(error.value)
