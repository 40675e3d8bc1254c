"""The stream of batches is a pure function of row numbers."""

import itertools

import numpy as np
import pytest
from small_datasets import CODEC, random_utterances, utterance, write

from valle_jax.codec.base import CodecInfo
from valle_jax.config import Config
from valle_jax.data.batch import KIND_ACOUSTIC, NO_TARGET
from valle_jax.data.dataset import Dataset
from valle_jax.data.packing import Packing, make_plan
from valle_jax.data.pipeline import TrainBatches, data_identity, rows_per_batch, validation_batches
from valle_jax.errors import UserError
from valle_jax.text.vocabulary import Vocabulary


def config(stage="ar", **settings) -> Config:
    values = {"model.stage": stage, "data.row_length": 130, "train.rows": 4, "data.nar_prompt_seconds": 1.0}
    return Config().override({**values, **{name.replace("__", "."): value for name, value in settings.items()}})


def take(n, datasets, its_config, start_row=0, **hosts):
    batches = iter(TrainBatches(datasets, its_config, start_row=start_row, plan_dir=None, **hosts))
    taken = list(itertools.islice(batches, n))
    if its_config.data.workers:
        batches.close()
    return taken


def stacked(batches):
    """All rows of a list of batches."""
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def assert_equal(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == np.int32
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def first_codes(batches):
    """The first codes of every segment of a stream, which tell utterances apart."""
    rows = stacked(batches)
    return [
        tuple(codes[(segment == s) & (kind == KIND_ACOUSTIC)][:20])
        for codes, segment, kind in zip(rows["token"], rows["segment"], rows["kind"], strict=True)
        for s in range(1, segment.max() + 1)
    ]


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Dataset:
    return write(tmp_path_factory.mktemp("other"), random_utterances(60, seed=9, first=1000), n_shards=1)


def rows_per_epoch(dataset, its_config, epoch=0):
    return len(make_plan(dataset.index, Packing.of(dataset, its_config, "train", its_config.train.seed, epoch)))


def test_an_epoch_has_every_utterance_once(dataset):
    wanted = config(train__rows=1)
    n_rows = rows_per_epoch(dataset, wanted)
    batches = take(n_rows, [(dataset, 1.0)], wanted)
    held_out = set(dataset.indices("valid_utterance").tolist())
    expected = [tuple(dataset.read(i).codes[:20, 0]) for i in range(150) if i not in held_out]
    assert sorted(first_codes(batches)) == sorted(expected)
    second = take(rows_per_epoch(dataset, wanted, epoch=1), [(dataset, 1.0)], wanted, start_row=n_rows)
    assert sorted(first_codes(second)) == sorted(expected) and first_codes(second) != first_codes(batches)


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_hosts_share_the_batches(dataset, other, stage):
    datasets = [(dataset, 2.0), (other, 1.0)]
    whole = take(12, datasets, config(stage))
    for count in (2, 4):
        parts = np.split(np.arange(4), count)
        hosts = [take(12, datasets, config(stage), local_rows=part) for part in parts]
        for step in range(12):
            assert len(hosts[0][step]["token"]) == 4 // count
            assert_equal(stacked([host[step] for host in hosts]), whole[step])
    scattered = take(12, datasets, config(stage), local_rows=[1, 3])
    for step in range(12):
        assert_equal(scattered[step], {name: array[[1, 3]] for name, array in whole[step].items()})


def test_reader_processes_change_nothing(dataset, other):
    datasets = [(dataset, 2.0), (other, 1.0)]
    for expected, batch in zip(
        take(9, datasets, config("nar")), take(9, datasets, config("nar", data__workers=2)), strict=True
    ):
        assert_equal(expected, batch)


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_resuming_at_any_row_is_the_rest_of_the_stream(dataset, other, stage):
    datasets = [(dataset, 2.0), (other, 1.0)]
    whole = stacked(take(40, datasets, config(stage)))
    rows = rows_per_epoch(dataset, config(stage))
    assert len(whole["token"]) > 1.5 * rows + 3  # beyond the first epoch
    for start in (1, 4, rows - 1, rows, 70):
        rest = stacked(take(5, datasets, config(stage), start_row=start))
        assert_equal(rest, {name: array[start : start + 20] for name, array in whole.items()})


def test_resuming_with_another_batch_size_goes_on_with_the_same_rows(dataset):
    whole = stacked(take(10, [(dataset, 1.0)], config("nar")))
    rest = stacked(take(4, [(dataset, 1.0)], config("nar", train__rows=8), start_row=8))
    assert_equal(rest, {name: array[8:] for name, array in whole.items()})


def test_mix_of_datasets_follows_the_weights(dataset, other):
    theirs = {tuple(other.read(i).codes[:20, 0]) for i in range(len(other))}
    wanted = config(train__rows=1)
    batches = take(60, [(dataset, 3.0), (other, 1.0)], wanted)
    is_other = [first_codes([batch])[0] in theirs for batch in batches]
    assert sum(is_other) == 15 and all(sum(is_other[i : i + 4]) == 1 for i in range(0, 60, 4))
    # The rows of a dataset are those that it has alone, in their order.
    alone = take(15, [(other, 1.0)], wanted)
    for expected, batch in zip(alone, [b for b, is_it in zip(batches, is_other, strict=True) if is_it], strict=True):
        assert_equal(expected, batch)


def test_stages_are_uniform_per_row_or_shared_by_a_batch(dataset, tmp_path):
    codec = CodecInfo("test", 1000, 10.0, 8, 20, "0" * 16)
    deep = write(tmp_path, [utterance(i, 2, 5, "s", codec) for i in range(40)], codec=codec)
    wanted = config("nar", data__row_length=10, train__rows=8)
    stages = np.stack([batch["stage"] for batch in take(100, [(deep, 1.0)], wanted)])
    counts = np.bincount(stages.ravel(), minlength=8)
    # 800 draws over stages 1..7: 5 standard deviations of a binomial count.
    assert counts[0] == 0 and abs(counts[1:] - 800 / 7).max() < 5 * np.sqrt(800 / 7)
    shared = config("nar", data__row_length=10, train__rows=8, data__nar_stage_per="batch")
    hosts = [
        np.stack([b["stage"] for b in take(50, [(deep, 1.0)], shared, local_rows=range(i, i + 4))]) for i in (0, 4)
    ]
    both = np.concatenate(hosts, axis=1)
    assert (both == both[:, :1]).all() and len(set(both[:, 0].tolist())) == 7


def test_validation_batches_have_the_whole_split(dataset):
    batches = validation_batches(dataset, config(train__seed=3), "valid_utterance", 100)
    held_out = dataset.indices("valid_utterance")
    assert sorted(first_codes(batches)) == sorted(tuple(dataset.read(int(i)).codes[:20, 0]) for i in held_out)
    assert {batch["token"].shape for batch in batches} == {(4, 130)}
    assert_equal(stacked(batches), stacked(validation_batches(dataset, config(), "valid_utterance", 100)))
    assert validation_batches(dataset, config(), "valid_speaker", 100) == []
    limited = validation_batches(dataset, config(train__accumulate=2), "valid_utterance", 2)
    assert [batch["token"].shape for batch in limited] == [(2, 130)]


def test_validation_of_the_nar_has_every_stage_of_the_same_rows(dataset):
    wanted = config("nar", train__rows=8)
    rows = stacked(validation_batches(dataset, wanted, "valid_utterance", 5))
    used = (rows["segment"] > 0).any(axis=1)
    assert rows["stage"][used].tolist() == [1, 2, 1, 2] and len(used) == 8
    assert_equal({"token": rows["token"][0:4:2]}, {"token": rows["token"][1:4:2]})
    assert ((rows["target"] != NO_TARGET).sum(1)[0:4:2] == (rows["target"] != NO_TARGET).sum(1)[1:4:2]).all()
    assert (rows["target"][~used] == NO_TARGET).all()
    hosts = [validation_batches(dataset, wanted, "valid_utterance", 9, local_rows=[i, i + 1]) for i in (0, 2, 4, 6)]
    whole = validation_batches(dataset, wanted, "valid_utterance", 9)
    for step, batch in enumerate(whole):
        assert_equal(stacked([host[step] for host in hosts]), batch)


def test_rows_per_batch(dataset):
    assert rows_per_batch([(dataset, 1.0)], config(), multiple_of=2) == 4
    frames_per_row = 135 * 20 / rows_per_epoch(dataset, config())  # about: utterances have 1 to 40 frames
    rows = rows_per_batch([(dataset, 1.0)], config(train__rows=0, train__tokens_per_batch=2000))
    assert 0.8 < rows * frames_per_row / 2000 < 1.2
    some = rows_per_batch([(dataset, 1.0)], config(train__rows=0, train__tokens_per_batch=2000), multiple_of=16)
    assert some % 16 == 0 and rows <= some < rows + 16
    with pytest.raises(UserError, match=r"train\.rows=4 is not a multiple of 3"):
        rows_per_batch([(dataset, 1.0)], config(), multiple_of=3)


def test_identity_says_what_decides_the_stream(dataset, other):
    identity = data_identity([(dataset, 1.0)], config())
    assert identity == data_identity([(dataset, 1.0)], config(data__workers=2, train__rows=8, train__steps=5))
    for datasets, changed in [
        ([(other, 1.0)], config()),
        ([(dataset, 1.0), (other, 1.0)], config()),
        ([(dataset, 2.0)], config()),
        ([(dataset, 1.0)], config(data__row_length=131)),
        ([(dataset, 1.0)], config(train__seed=1)),
        ([(dataset, 1.0)], config(data__nar_prompt="none")),
    ]:
        assert data_identity(datasets, changed) != identity


def test_datasets_that_do_not_fit_together(dataset, tmp_path):
    codec = CodecInfo("test", 1000, 10.0, 3, 20, "1" * 16)
    other_codec = write(tmp_path / "codec", random_utterances(9), codec=codec)
    other_table = write(tmp_path / "table", random_utterances(9), vocabulary=Vocabulary("t", ("b", "a", " ")))
    for second, word in ((other_codec, "codec"), (other_table, "vocabulary")):
        with pytest.raises(UserError, match=f"{dataset.path} was made with {word} .*{second.path}"):
            TrainBatches([(dataset, 1.0), (second, 1.0)], config(), start_row=0, plan_dir=None)
    one = CodecInfo("test", 1000, 10.0, 1, 20, "0" * 16)
    flat = write(tmp_path / "flat", random_utterances(9, codec=one), codec=one)
    with pytest.raises(UserError, match="one codebook, so there is no NAR"):
        TrainBatches([(flat, 1.0)], config("nar"), start_row=0, plan_dir=None)


def test_datasets_and_batches_that_cannot_be_used(dataset, tmp_path):
    with pytest.raises(UserError, match=r"all 135 are longer than data\.row_length=2; raise it"):
        TrainBatches([(dataset, 1.0)], config(data__row_length=2), start_row=0, plan_dir=None)
    held_out = write(tmp_path, random_utterances(5), ["valid_speaker"] * 5)
    with pytest.raises(UserError, match="split train is empty"):
        TrainBatches([(held_out, 1.0)], config(), start_row=0, plan_dir=None)
    description = TrainBatches([(dataset, 1.0)], config(data__row_length=40), start_row=0, plan_dir=None).describe()
    assert "utterances longer than a row are left out" in description and "fill" in description


@pytest.mark.parametrize("workers", [0, 1])
def test_a_damaged_record_stops_the_stream_with_its_name(tmp_path, workers):
    damaged = write(tmp_path, [utterance(i, 3, 30, "s") for i in range(8)], n_shards=1, codec=CODEC)
    path = tmp_path / "data-00000-of-00001.tfrecord"
    content = bytearray(path.read_bytes())
    content[int(damaged.index.offset[5]) + 40] ^= 4
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"data-00000-of-00001\.tfrecord: record 5 at offset \d+ .*number 5"):
        take(8, [(damaged, 1.0)], config(data__workers=workers))
