"""`valle inspect --compare`: nothing for the same, and a name for what is not."""

import dataclasses
import re

import numpy as np
import pytest
from small_corpora import CODEC, utterance, write_dataset

from data_prep.inspection.comparison import differences
from valle_jax import cli
from valle_jax.data.dataset import Dataset


def utterances():
    """Ten utterances of two speakers."""
    random = np.random.default_rng(0)
    return [
        utterance(f"u{i}", random.integers(0, 1024, (20 + i, 2)), text=f"text {chr(97 + i)}", speaker=f"s{i % 2}")
        for i in range(10)
    ]


@pytest.fixture
def compare(tmp_path):
    """Compares the ten utterances with others."""
    first = Dataset.open(write_dataset(tmp_path / "first", utterances(), seed=0))

    def lines(others, **arguments):
        return differences(first, Dataset.open(write_dataset(tmp_path / "second", others, **arguments)), progress=False)

    return lines


def test_the_same_records_and_options(compare):
    assert compare(utterances(), seed=0) == []


def test_a_changed_code_and_a_changed_phoneme_are_named(compare):
    others = utterances()
    others[3].codes[0, 1] ^= 1
    others[5] = dataclasses.replace(others[5], text="text b", phonemes=others[1].phonemes)
    others[6] = dataclasses.replace(others[6], phoneme_frames=np.arange(6, dtype=np.int32))
    others[7] = dataclasses.replace(others[7], source="elsewhere/u7.wav")
    lines = compare(others, seed=0)
    assert lines[:5] == [
        "utterances with other text: 1 (u5)",
        "utterances with other phonemes: 1 (u5)",
        "utterances with other codes: 1 (u3)",
        "utterances with other start frames: 1 (u6)",
        "utterances with other speaker, language, source or split: 1 (u7)",
    ]
    # One of 245 frames moved from a code to another: at most 1/245 bit at level 2 (of four digits), none at level 1.
    level_1, level_2 = map(float, re.fullmatch(r"codes: .*, bits: (\S+) (\S+)", lines[5]).groups())
    assert level_1 == 0 < level_2 <= 1 / 245 + 5e-5 and len(lines) == 6


def test_what_is_in_one_alone(compare):
    extra = utterance("new", np.zeros((400, 2)), speaker="s2")
    lines = compare([*utterances()[1:], extra], seed=1, language="de")
    assert "options seed: 0 | 1" in lines and "options language: None | de" in lines
    assert "utterances only in the first: 1 (u0)" in lines and "utterances only in the second: 1 (new)" in lines
    assert "speakers only in the second: 1 (s2)" in lines and "speakers with other seconds: 1 (s0 1.60 | 1.33)" in lines
    assert "totals frames: 245 | 625" in lines and "totals splits train: 10 | 10" not in lines
    assert any(line.startswith("seconds: median 0.33 | 0.34, largest difference") for line in lines)
    assert not any("utterances with other" in line for line in lines)


def test_options_of_merged_datasets(tmp_path):
    both = [[{"codec": "mel_rvq", "seed": seed}, {"seed": 5}] for seed in (0, 1)]
    datasets = [Dataset.open(write_dataset(tmp_path / f"{i}", utterances(), merged=m)) for i, m in enumerate(both)]
    assert differences(*datasets, progress=False) == ["options merged 0 seed: 0 | 1"]


def test_another_order(compare):
    assert compare(utterances()[::-1], seed=0) == ["the records are in another order"]


def test_another_codec(compare):
    others = [dataclasses.replace(u, codes=u.codes[:, :1]) for u in utterances()]
    lines = compare(others, codec=dataclasses.replace(CODEC, codebooks=1), seed=0)
    names = ", ".join(f"u{i}" for i in range(10))
    assert lines == ["codec codebooks: 2 | 1", f"utterances with other codes: 10 ({names})"]


def test_exit_codes(tmp_path, capsys):
    first = str(write_dataset(tmp_path / "first", utterances()))
    second = str(write_dataset(tmp_path / "second", utterances()[:-1]))
    cli.main(["inspect", first, "--compare", first])
    assert capsys.readouterr().out == f"{first} and {first} hold the same\n"
    with pytest.raises(SystemExit) as stop:
        cli.main(["inspect", first, "--compare", second])
    assert stop.value.code == 1
    out, err = capsys.readouterr()
    assert "utterances only in the first: 1 (u9)\n" in out
    assert err.splitlines()[-1] == f"valle inspect: {first} and {second} differ, as listed above"
