"""Packed rows: goldens written by hand, and packing that changes nothing."""

import dataclasses

import numpy as np
import pytest
from small_datasets import CODEC, random_utterances, utterance, write

from valle_jax.config import Config
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_PADDING, KIND_PROMPT, KIND_STAGE, KIND_TEXT
from valle_jax.data.examples import Example, RowWriter, empty_batch
from valle_jax.data.packing import Packing, make_plan

END, BOS = 20, 21  # the codec has 20 entries
PAD, TEXT, CODE, PROMPT, STAGE = KIND_PADDING, KIND_TEXT, KIND_ACOUSTIC, KIND_PROMPT, KIND_STAGE


def config(stage: str, row_length: int, **settings) -> Config:
    values = {name.replace("__", "."): value for name, value in settings.items()}
    return Config().override({"model.stage": stage, "data.row_length": row_length, **values})


def two_examples() -> list[Example]:
    """Text a b and 3 frames, text b and 2 frames; code t of codebook q of example e is 10 e + 3 t + q."""
    no_prompt = np.zeros((0, 3), np.int32)
    codes = [np.arange(9, dtype=np.int32).reshape(3, 3), 10 + np.arange(6, dtype=np.int32).reshape(2, 3)]
    texts = [np.array([3, 4, 1], np.int32), np.array([4, 1], np.int32)]
    return [Example(text, np.arange(len(text)), no_prompt, code) for text, code in zip(texts, codes, strict=True)]


def packed(dataset, config, examples, stage=None):
    batch = empty_batch(1, config, CODEC.codebooks)
    if stage is not None:
        batch["stage"][0] = stage
    RowWriter(dataset, config).write(batch, 0, examples)
    return {name: array[0].tolist() for name, array in batch.items()}


def test_ar_row(dataset):
    row = packed(dataset, config("ar", 12), two_examples())
    assert row == {
        "token": [3, 4, 1, 0, 3, 6, 4, 1, 10, 13, 0, 0],
        "kind": [TEXT, TEXT, TEXT, CODE, CODE, CODE, TEXT, TEXT, CODE, CODE, PAD, PAD],
        "segment": [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 0, 0],
        "position": [0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 0, 0],
        "target": [-1, -1, 0, 3, 6, END, -1, 10, 13, END, -1, -1],
    }


def test_ar_row_with_begin_of_audio(dataset):
    row = packed(dataset, config("ar", 13, model__prepend_bos=True), two_examples())
    assert row == {
        "token": [3, 4, 1, BOS, 0, 3, 6, 4, 1, BOS, 10, 13, 0],
        "kind": [TEXT, TEXT, TEXT, CODE, CODE, CODE, CODE, TEXT, TEXT, CODE, CODE, CODE, PAD],
        "segment": [1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0],
        "position": [0, 1, 2, 0, 1, 2, 3, 0, 1, 0, 1, 2, 0],
        "target": [-1, -1, -1, 0, 3, 6, END, -1, -1, 10, 13, END, -1],
    }


def test_ar_row_of_groups(dataset):
    """A token of text has one entry, one of audio two codes; an odd frame at the start is cut; positions are frames."""
    first, second = two_examples()
    first = dataclasses.replace(first, frames=first.frames[1:])
    row = packed(dataset, config("ar", 8, model__group_size=2), [first, second])
    assert row == {
        "token": [3, 0, 4, 0, 1, 0, 3, 6, 4, 0, 1, 0, 10, 13, 0, 0],
        "kind": [TEXT, TEXT, TEXT, CODE, TEXT, TEXT, CODE, PAD],
        "segment": [1, 1, 1, 1, 2, 2, 2, 0],
        "position": [0, 1, 2, 0, 0, 1, 0, 0],
        "target": [-1, -1, -1, -1, 3, 6, END, -1, -1, -1, 10, 13, END, -1, -1, -1],
    }
    row = packed(dataset, config("ar", 5, model__group_size=2, model__prepend_bos=True), [first])
    assert row["token"] == [3, 0, 4, 0, 1, 0, BOS, BOS, 3, 6] and row["position"] == [0, 1, 2, 0, 2]
    assert row["target"] == [-1] * 6 + [3, 6, END, -1]
    parts = [utterance(0, 2, 5, "s"), utterance(1, 1, 6, "s")]
    options = config("ar", 20, model__group_size=4, model__text_position_anchor="utterance")
    example = RowWriter(dataset, options).example(parts, 0, 0, 0)
    np.testing.assert_array_equal(example.frames, np.concatenate([parts[0].codes[3:], parts[1].codes]))
    assert example.text_position.tolist() == [0, 1, 2, 2, 3]  # the second utterance is counted on from frame 2


def test_nar_row(dataset):
    first, second = two_examples()
    first = dataclasses.replace(first, prompt=first.frames[:1], frames=first.frames[1:])  # one frame is the prompt
    zero = [0, 0, 0]
    for stage in (1, 2):
        row = packed(dataset, config("nar", 11), [first, second], stage)
        assert row == {
            "token": [3, 4, 1, 0, 0, 0, 4, 1, 0, 0, 0],
            "kind": [TEXT, TEXT, TEXT, PROMPT, CODE, CODE, TEXT, TEXT, CODE, CODE, PAD],
            "segment": [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 0],
            "position": [0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 0],
            "target": [-1, -1, -1, -1, 3 + stage, 6 + stage, -1, -1, 10 + stage, 13 + stage, -1],
            "codes": [*[zero] * 3, [0, 1, 2], [3, 4, 5], [6, 7, 8], *[zero] * 2, [10, 11, 12], [13, 14, 15], zero],
            "stage": stage,
        }


def test_nar_row_with_stage_tokens(dataset):
    first, second = two_examples()
    row = packed(dataset, config("nar", 13, model__nar_stage="token"), [first, second], 1)
    assert row["kind"] == [TEXT, TEXT, TEXT, CODE, CODE, CODE, STAGE, TEXT, TEXT, CODE, CODE, STAGE, PAD]
    assert row["segment"] == [1] * 7 + [2] * 5 + [0]
    assert row["position"] == [0, 1, 2, 0, 1, 2, 3, 0, 1, 0, 1, 2, 0]
    assert row["target"] == [-1, -1, -1, 1, 4, 7, -1, -1, -1, 11, 14, -1, -1]


def test_joined_example_has_one_end(tmp_path):
    parts = [utterance(0, 2, 3, "s"), utterance(1, 1, 2, "s")]
    dataset = write(tmp_path, parts, n_shards=1)
    example = RowWriter(dataset, config("ar", 20)).example(parts, 0, 0, 0)
    assert example.text.tolist() == [*parts[0].phonemes, 5, *parts[1].phonemes, 1]  # 5 is the space
    assert np.array_equal(example.frames, np.concatenate([parts[0].codes, parts[1].codes]))
    row = packed(dataset, config("ar", 12), [example])
    codes = example.frames[:, 0].tolist()
    assert row["target"] == [-1, -1, -1, -1, *codes, END, -1, -1]
    assert row["segment"] == [1] * 10 + [0, 0]


def prompts(dataset, stage_config, epoch, seed=0):
    """(prompt, frames) of every utterance."""
    writer = RowWriter(dataset, stage_config)
    examples = [writer.example([dataset.read(i)], seed, epoch, i) for i in range(len(dataset))]
    return [(example.prompt, example.frames) for example in examples]


def test_prefix_prompts(dataset):
    settings = config("nar", 200, data__nar_prompt_seconds=1.0)  # 10 frames
    lengths = {}
    for epoch in range(40):
        for i, (prompt, frames) in enumerate(prompts(dataset, settings, epoch)):
            codes = dataset.read(i).codes
            assert np.array_equal(np.concatenate([prompt, frames]), codes)
            lengths.setdefault(i, []).append(len(prompt))
    for i, drawn in lengths.items():
        longest = min(10, int(dataset.index.n_frames[i]) // 2)
        assert min(drawn) >= 0 and max(drawn) <= longest
    long = [drawn for i, drawn in lengths.items() if dataset.index.n_frames[i] >= 20]
    counts = np.bincount(np.concatenate(long), minlength=11)
    # Uniform over 0..10: 5 standard deviations of a binomial count.
    share = counts.sum() / 11
    assert abs(counts - share).max() < 5 * np.sqrt(share)


def test_segment_prompts(dataset):
    settings = config("nar", 200, data__nar_prompt="segment", data__nar_prompt_seconds=1.0)
    starts = []
    for i, (prompt, frames) in enumerate(prompts(dataset, settings, epoch=0)):
        codes = dataset.read(i).codes.astype(np.int32)
        assert np.array_equal(frames, codes)  # the whole utterance is predicted, the prompt comes additionally
        assert len(prompt) == min(10, len(codes) // 2)
        windows = [s for s in range(len(codes) - len(prompt) + 1) if np.array_equal(codes[s : s + len(prompt)], prompt)]
        assert windows
        starts.append(windows[0])
    assert len(set(starts)) > 10


def test_no_prompts_and_pure_draws(dataset):
    assert all(len(p) == 0 for p, _ in prompts(dataset, config("nar", 200, data__nar_prompt="none"), 0))
    assert all(len(p) == 0 for p, _ in prompts(dataset, config("ar", 200), 0))
    prefix = config("nar", 200)
    lengths = [
        [len(p) for p, _ in prompts(dataset, prefix, epoch, seed)] for epoch, seed in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert lengths[0] == lengths[1] and lengths[0] != lengths[2] and lengths[0] != lengths[3]


@pytest.mark.parametrize(
    ("stage", "settings"),
    [
        ("ar", {}),
        ("ar", {"model__prepend_bos": True, "data__join_utterances": 3}),
        ("ar", {"model__group_size": 4, "data__join_utterances": 2}),
        ("nar", {"data__nar_prompt": "prefix", "data__nar_prompt_seconds": 1.0}),
        ("nar", {"data__nar_prompt": "segment", "data__join_utterances": 2}),
        ("nar", {"data__nar_prompt": "none", "model__nar_stage": "token"}),
    ],
)
def test_planned_lengths_are_the_lengths_and_packing_changes_nothing(tmp_path, stage, settings):
    """Every segment of every packed row equals the row that the example makes alone."""
    dataset = write(tmp_path, random_utterances(80))
    packing_config = config(stage, 130, **settings)
    plan = make_plan(dataset.index, Packing.of(dataset, packing_config, "train", 0, 0))
    writer = RowWriter(dataset, packing_config)
    tokens = 0
    for row in range(len(plan)):
        examples = [writer.example([dataset.read(i) for i in ids], 0, 0, ids[0]) for ids in plan.row(row)]
        batch = empty_batch(1, packing_config, 3)
        writer.write(batch, 0, examples)
        assert set(batch["segment"][0]) - {0} == set(range(1, len(examples) + 1))
        tokens += (batch["segment"] > 0).sum()
        for segment, example in enumerate(examples, start=1):
            alone = empty_batch(1, packing_config, 3)
            writer.write(alone, 0, [example])
            ours, its = batch["segment"] == segment, alone["segment"] == 1
            for name in set(batch) - {"segment", "stage"}:
                both = (rows[name][0].reshape(130, -1)[where[0]] for rows, where in ((batch, ours), (alone, its)))
                assert np.array_equal(*both), name
        empty = batch["segment"] == 0
        assert (batch["kind"][empty] == KIND_PADDING).all() and (batch["target"].reshape(1, 130, -1)[empty] == -1).all()
    assert tokens == plan.n_tokens


def test_phonemes_counted_on_from_the_frames_of_their_utterance(dataset):
    """2 and 3 phonemes, each with a separator or an end; 8 frames before the second utterance are 2 phonemes of 4."""
    utterances = [utterance(i, n, frames, "s") for i, (n, frames) in enumerate([(2, 8), (3, 5), (1, 2)])]
    for anchor, expected in {
        "segment": [0, 1, 2, 3, 4, 5, 6, 7, 8],
        "utterance": [0, 1, 2, 2, 3, 4, 5, 3, 4],  # 13 frames before the third are 3.25 phonemes
    }.items():
        options = config("ar", 64, model__text_position_step=4, model__text_position_anchor=anchor)
        example = RowWriter(dataset, options).example(utterances, 0, 0, 0)
        assert example.text_position.tolist() == expected
        row = packed(dataset, options, [example])
        assert row["position"][:9] == expected and row["position"][9:24] == list(range(15))
