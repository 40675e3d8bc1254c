"""Crops of aligned utterances: text and frames in correspondence, a pure function, and rows that stay full."""

import dataclasses

import numpy as np
import pytest
from small_datasets import utterance, write

from valle_jax.config import Config
from valle_jax.data.cropping import Crops
from valle_jax.data.dataset import DatasetInfo
from valle_jax.data.packing import Packing, make_plan
from valle_jax.data.pipeline import RowStream, TrainBatches
from valle_jax.errors import UserError

SPACE = np.array([5])  # "a", "b" are 3 and 4
CROPS = {"data.crop_min_seconds": 10.0, "data.crop_max_seconds": 20.0}  # 100 to 200 frames


def spoken(i: int, n_words: int):
    """An utterance whose codes say what its text says: words of 1 to 4 phonemes of 1 to 4 frames each, with pauses.

    All codes of a frame are the phoneme that sounds (0 in a pause), of the first codebook and, of the second, the
    number of its word modulo 20.
    """
    random = np.random.default_rng(i)
    phonemes, starts, codes = [], [], []
    for word in range(n_words):
        for symbol in [*random.integers(3, 5, random.integers(1, 5)), 5]:
            phonemes.append(int(symbol))
            starts.append(len(codes))
            codes += [[0 if symbol == 5 else symbol, word % 20, 0]] * int(random.integers(1, 5))
    return dataclasses.replace(
        utterance(i, 1, 1, f"speaker-{i % 3}"),
        phonemes=np.array(phonemes[:-1], np.int32),  # a pause is the end
        phoneme_frames=np.array(starts[:-1], np.int32),
        codes=np.array(codes, np.uint16),
    )


@pytest.fixture(scope="module")
def aligned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("aligned") / "set"
    utterances = [spoken(i, int(words)) for i, words in enumerate(np.random.default_rng(0).integers(1, 60, 120))]
    dataset = write(folder, utterances)
    dataclasses.replace(dataset.info, aligned=True).save(folder)
    return type(dataset).open(folder)


def said(codes):
    """The phonemes that sound, one for each run of the same; and the words they are of."""
    new = np.r_[True, (codes[1:, :2] != codes[:-1, :2]).any(1)]
    return codes[new][codes[new][:, 0] > 0]


def test_records_keep_the_frames(aligned):
    for i in (0, 7):
        expected = spoken(i, int(np.random.default_rng(0).integers(1, 60, 120)[i]))
        np.testing.assert_array_equal(aligned.read(i).phoneme_frames, expected.phoneme_frames)
    assert DatasetInfo.load(aligned.path).aligned


def test_text_of_a_crop_is_what_its_frames_say(aligned):
    for epoch in range(4):
        crops = Crops(3, epoch, 100, 200)
        for i in range(len(aligned)):
            whole = aligned.read(i)
            sizes = (i, len(whole.phonemes), len(whole.codes))
            phonemes, frames = (int(n) for n in crops.lengths(*map(np.array, sizes)))
            crop = crops.crop(i, whole, SPACE)
            assert len(crop.codes) <= frames and len(crop.phonemes) + len(crop.codes) <= phonemes + frames
            if len(whole.codes) <= frames:
                assert crop is whole
                continue
            assert 100 <= frames <= 200
            # Each sound of the text begins at its frame, with the code that says it; the crop begins and ends at words.
            sounds = crop.phonemes != 5
            np.testing.assert_array_equal(crop.codes[crop.phoneme_frames, 0], np.where(sounds, crop.phonemes, 0))
            assert crop.phoneme_frames[0] == 0 and sounds[0] and sounds[-1]
            n_words = (~sounds).sum() + 1
            assert len(np.unique(said(crop.codes)[:, 1])) == min(n_words, 20)


def test_a_crop_is_drawn_by_seed_epoch_and_record(aligned):
    i = int(np.argmax(aligned.index.n_frames))
    whole = aligned.read(i)

    def starts(**changes):
        lengths = {"shortest": 100, "longest": 200, **changes}
        crops = [Crops(seed, epoch, **lengths) for seed in (0, 1) for epoch in range(8)]
        return [crop.crop(i, whole, SPACE).codes.tobytes() for crop in crops]

    assert starts() == starts() and len(set(starts())) > 8
    assert all(codes == whole.codes.tobytes() for codes in starts(shortest=0, longest=0))


def test_a_word_longer_than_a_crop_is_cut_between_phonemes():
    long = dataclasses.replace(
        utterance(0, 1, 60, "s"), phonemes=np.full(6, 3, np.int32), phoneme_frames=np.arange(0, 60, 10, dtype=np.int32)
    )
    crop = Crops(0, 0, 25, 25).crop(0, long, SPACE)
    assert crop.phoneme_frames.tolist() == [0, 10] and len(crop.codes) == 20
    endless = dataclasses.replace(long, phonemes=long.phonemes[:1], phoneme_frames=long.phoneme_frames[:1])
    crop = Crops(0, 0, 25, 25).crop(0, endless, SPACE)
    assert len(crop.phonemes) == 1 and len(crop.codes) == 25


@pytest.mark.parametrize("stage", ["ar", "nar"])
@pytest.mark.parametrize("join", [1, 3])
def test_rows_hold_what_was_planned_and_stay_full(aligned, stage, join):
    config = Config().override(
        {"model.stage": stage, "data.row_length": 1200, "train.rows": 1, "data.join_utterances": join, **CROPS}
    )
    plan = make_plan(aligned.index, Packing.of(aligned, config, "train", config.train.seed, 0))
    batches = iter(TrainBatches([(aligned, 1.0)], config, start_row=0, plan_dir=None))
    rows = [next(batches) for _ in range(len(plan))]
    assert plan.n_skipped == 0 and plan.fill > 0.92
    fill = np.mean([(batch["segment"] > 0).mean() for batch in rows])
    # Crops end at words, so half of one (5 of 175 tokens here) is not used, nor what slow speech has fewer of phonemes.
    assert plan.fill - 0.04 < fill <= plan.fill
    resumed = next(iter(TrainBatches([(aligned, 1.0)], config, start_row=5, plan_dir=None)))
    for name, array in resumed.items():
        np.testing.assert_array_equal(array, rows[5][name], err_msg=name)
    whole = make_plan(aligned.index, Packing.of(aligned, Config().override({"data.row_length": 1200}), "train", 0, 0))
    assert plan.n_frames < 0.7 * whole.n_frames


def test_crops_need_an_alignment(dataset):
    config = Config().override({"data.row_length": 300, **CROPS})
    with pytest.raises(UserError, match=r"crop_max_seconds=20 needs to know .*prepare it with --align"):
        RowStream(dataset, config, "train", 0).plan(0)
    for wrong in ((4.0, 2.0), (0.0, 2.0), (2.0, 0.0), (0.5, 0.5)):
        with pytest.raises(UserError, match=r"data\.crop_min_seconds"):
            Config().override(dict(zip(CROPS, wrong, strict=True)))
