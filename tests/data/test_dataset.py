"""Shards, the index and the errors of a dataset directory."""

import concurrent.futures
import json
import pickle
import shutil

import numpy as np
import pytest
import small_datasets
from small_datasets import equal

from valle_jax.data.dataset import Dataset, DatasetInfo, ShardWriter, shard_is_complete, speaker_hash
from valle_jax.data.schema import SPLITS
from valle_jax.errors import UserError


@pytest.fixture
def copy(dataset, tmp_path):
    """A copy of the dataset's folder that a test may damage."""
    return shutil.copytree(dataset.path, tmp_path / "copy")


def test_what_was_written_is_read_in_any_order(dataset):
    originals = small_datasets.random_utterances(150)
    for i in np.random.default_rng(0).permutation(150):
        assert equal(dataset.read(int(i)), originals[i])
    assert dataset.index.n_frames.tolist() == [len(u.codes) for u in originals]
    assert dataset.index.speaker.tolist() == [speaker_hash(u.speaker_id) for u in originals]
    assert dataset.indices("valid_utterance").tolist() == list(range(3, 150, 10))
    assert list(dataset.verify()) == []


def test_threads_and_processes_share_it(dataset):
    again = pickle.loads(pickle.dumps(dataset))
    assert len(pickle.dumps(dataset)) < 500 and again.fingerprint == dataset.fingerprint
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        order = [i * 37 % 150 for i in range(600)]  # jumps from shard to shard
        for i, utterance in zip(order, pool.map(dataset.read, order), strict=True):
            assert utterance.utterance_id == f"utterance-{i}"


def test_index_takes_at_most_40_bytes_an_utterance(dataset):
    assert sum(getattr(dataset.index, name).nbytes for name in vars(dataset.index)) <= 40 * len(dataset)


def test_shard_bytes_are_reproducible(dataset, tmp_path):
    splits = ["valid_utterance" if i % 10 == 3 else "train" for i in range(150)]
    again = small_datasets.write(tmp_path / "again", small_datasets.random_utterances(150), splits, n_shards=3)
    for path in sorted(dataset.path.iterdir()):
        assert (again.path / path.name).read_bytes() == path.read_bytes(), path.name
    assert again.fingerprint == dataset.fingerprint


def test_fingerprint_sees_every_number_of_the_index(dataset, tmp_path):
    prints = {dataset.fingerprint}
    for change in ({"first": 1}, {"seed": 1}, {"n_speakers": 3}):
        utterances = small_datasets.random_utterances(150, **change)
        prints.add(small_datasets.write(tmp_path / str(change), utterances, n_shards=3).fingerprint)
    assert len(prints) == 4


def test_a_killed_writer_leaves_no_shard(tmp_path):
    with pytest.raises(KeyboardInterrupt), ShardWriter(tmp_path, 0, 1) as writer:
        writer.write(small_datasets.utterance(0, 3, 4, "s"), "train")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == [] and not shard_is_complete(tmp_path, 0, 1)
    with ShardWriter(tmp_path, 0, 1) as writer:
        assert not shard_is_complete(tmp_path, 0, 1)
        writer.write(small_datasets.utterance(0, 3, 4, "s"), "train")
    assert shard_is_complete(tmp_path, 0, 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "data-00000-of-00001.index.npz",
        "data-00000-of-00001.tfrecord",
    ]


def test_an_empty_shard_is_a_shard(tmp_path):
    utterances = [small_datasets.utterance(0, 3, 4, "s")]
    dataset = small_datasets.write(tmp_path, utterances, n_shards=3)
    assert equal(dataset.read(0), utterances[0]) and len(dataset) == 1


def test_info_round_trip(dataset, tmp_path):
    info = DatasetInfo(
        small_datasets.CODEC, small_datasets.VOCABULARY, {"utterances": 3}, {"s": 1.5}, {"ʘ": 2}, {"numpy": "2"}
    )
    info.save(tmp_path)
    assert DatasetInfo.load(tmp_path) == info
    assert set(json.loads((tmp_path / "dataset.json").read_text())) >= {
        "schema_version",
        "codec",
        "vocabulary",
        "totals",
    }


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "dataset.json").unlink(), r"is not a complete dataset directory .*valle prepare"),
        (lambda f: (f / "dataset.json").write_text("{"), r"cannot read .*dataset\.json.*prepare the dataset again"),
        (lambda f: (f / "data-00001-of-00003.tfrecord").unlink(), r"not complete: data-00001-of-00003\.tfrecord"),
        (lambda f: (f / "data-00002-of-00003.index.npz").unlink(), r"not complete: data-00002-of-00003\.index\.npz"),
        (lambda f: (f / "data-00002-of-00003.index.npz").write_bytes(b"PK"), r"cannot read .*00002-of-00003\.index"),
        (lambda f: (f / "data-00000-of-00001.tfrecord").touch(), r"records of several preparations"),
        (lambda f: [p.unlink() for p in f.glob("*.tfrecord")], r"holds no records"),
        (lambda f: _edit(f, schema_version=99), r"has schema version 99, this program reads 1"),
        (lambda f: _edit(f, codec={"name": "x"}), r"is not a dataset description"),
        (lambda f: _edit(f, totals={"utterances": 151}), r"speaks of 151 utterances, its shards hold another"),
        (lambda f: _edit(f, totals={"utterances": 9}), r"speaks of 9 utterances, its shards hold another"),
        (lambda f: _cut(f / "data-00001-of-00003.tfrecord"), r"00001-of-00003\.tfrecord has \d+ bytes but its index"),
    ],
)
def test_directories_that_are_refused(copy, damage, message):
    damage(copy)
    with pytest.raises(UserError, match=message):
        Dataset.open(copy)


def test_no_directory():
    with pytest.raises(UserError, match="nowhere is not a complete dataset directory"):
        Dataset.open("nowhere")


def test_a_damaged_record_is_named(copy, dataset):
    offset = int(dataset.index.offset[61])
    _flip(copy / "data-00001-of-00003.tfrecord", int(dataset.index.offset[62]) - 3)  # its payload's checksum
    _flip(copy / "data-00002-of-00003.tfrecord", 3)  # the length of the first record
    damaged = Dataset.open(copy)
    with pytest.raises(UserError) as error:
        damaged.read(61)
    text = str(error.value)
    assert f"data-00001-of-00003.tfrecord: record 11 at offset {offset} (utterance 'utterance-61', number 61)" in text
    assert "checksum does not match" in text and "\n" not in text
    with pytest.raises(UserError, match=r"00002-of-00003\.tfrecord: record 0 at offset 0 .*number 100"):
        damaged.read(100)
    assert [damaged.read(i).utterance_id for i in (60, 62, 101)] == ["utterance-60", "utterance-62", "utterance-101"]
    problems = list(damaged.verify())
    assert len(problems) == 2 and "number 61" in problems[0] and "number 100" in problems[1]


def test_verify_finds_values_out_of_range_and_wrong_totals(tmp_path):
    wrong = [small_datasets.utterance(i, 3, 4, "s") for i in range(4)]
    wrong[1].phonemes[0] = 6
    wrong[2].codes[3, 2] = 20
    dataset = small_datasets.write(tmp_path, wrong)
    _edit(tmp_path, totals={"utterances": 4, "splits": dict.fromkeys(SPLITS, 1)})
    problems = list(Dataset.open(tmp_path).verify())
    assert "utterance-1" in problems[0] and "outside the vocabulary" in problems[0]
    assert "utterance-2" in problems[1] and "outside the codebook" in problems[1]
    assert "dataset.json: splits" in problems[2] and len(problems) == 3
    assert dataset.read(1).phonemes[0] == 6  # ranges cost time: only verify looks


def test_what_no_index_can_hold_is_refused(tmp_path):
    with ShardWriter(tmp_path, 0, 1) as writer:
        for n_phonemes, n_frames in ((0, 3), (3, 0), (70_000, 3)):
            with pytest.raises(ValueError, match=f"{n_phonemes} phonemes, {n_frames} frames"):
                writer.write(small_datasets.utterance(0, n_phonemes, n_frames, "s"), "train")


def _edit(folder, **changes):
    path = folder / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def _flip(path, offset):
    content = bytearray(path.read_bytes())
    content[offset] ^= 1
    path.write_bytes(content)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-1])
