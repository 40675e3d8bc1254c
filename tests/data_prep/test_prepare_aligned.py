"""`valle prepare --align` and --filters.min-alignment: start frames of phonemes from given times and from speech."""

import json

import numpy as np
import pytest
from small_corpora import rejections, sound

from data_prep.filters import Filters
from data_prep.merging import merge
from data_prep.prepare import Prepare, prepare
from valle_jax.audio import write_audio
from valle_jax.data.dataset import Dataset
from valle_jax.errors import UserError

pytest.importorskip("phonemizer", reason="the extra `text` is not installed")
pytest.importorskip("pocketsphinx", reason="the extra `eval` is not installed")


def run(source, out, **options):
    prepare(Prepare(source=str(source), out=str(out), processes=1, **options), progress=False)
    return Dataset.open(out)


def write_manifest(folder, entries):
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    return manifest


@pytest.fixture(scope="module")
def timed(tmp_path_factory):
    """A manifest of parts of files, whose words have times, times of other words, or none."""
    folder = tmp_path_factory.mktemp("timed")
    entries = []
    for i in range(4):
        write_audio(folder / f"{i}.wav", sound(4.0, seed=i), 16_000)
        words = [["one", 2.2, 2.6], ["two", 3.0, 3.5]]
        part = {"audio": f"{i}.wav", "speaker": f"s{i}", "start": 2, "end": 4}
        entries.append({**part, "text": "One, two.", "words": words})
    entries[2]["words"] = [["...", 2.1, 2.2]]
    entries[3] |= {"words": [], "language": "de", "text": "eins"}
    return write_manifest(folder, entries)


@pytest.fixture(scope="module")
def aligned(timed, tmp_path_factory):
    return run(timed, tmp_path_factory.mktemp("aligned") / "aligned", align=True)


def test_given_times_become_frames_of_the_part(aligned):
    assert aligned.info.aligned and len(aligned) == 2
    assert rejections(aligned.path) == [("2#t=2,4", "no alignment"), ("3#t=2,4", "no alignment")]
    rate = aligned.info.codec.frames_per_second
    for i in range(2):
        utterance = aligned.read(i)
        phonemes = aligned.info.vocabulary.decode(utterance.phonemes)
        assert phonemes.replace("ˌ", "ˈ") == "wˈʌn, tˈuː."
        starts = dict(zip(phonemes, utterance.phoneme_frames / rate, strict=True))
        # In seconds of the part, which starts at 2 s; to a frame.
        expected = {"w": 0.2, "n": 0.5, " ": 0.6, "t": 1.0, ".": 1.5}
        assert {name: starts[name] for name in expected} == pytest.approx(expected, abs=1 / rate)
    assert "phoneme_frames" in (aligned.path / "features.json").read_text()
    assert list(aligned.verify()) == []


def test_without_it_nothing_speaks_of_it(timed, aligned, tmp_path):
    plain = run(timed, tmp_path / "plain")
    assert len(plain) == 4 and plain.read(0).phoneme_frames is None and not plain.info.aligned
    for name in ("dataset.json", "plan.json", "features.json"):
        words = (tmp_path / "plain" / name).read_text().split('"')
        assert not {"aligned", "align", "filters.min_alignment", "phoneme_frames"} & set(words)
    with pytest.raises(UserError, match=r"aligned was prepared with --align but .*plain without it"):
        merge([str(plain.path), str(aligned.path)], str(tmp_path / "both"), progress=False)


def test_frames_of_real_speech_and_a_text_that_is_another(speech, tmp_path):
    """Forced alignment: phonemes last as long as in speech, to the end; the words backwards are turned away."""
    folder = speech / "LibriSpeech/train-clean-100/19/198"
    name, _, text = (folder / "19-198.trans.txt").read_text().splitlines()[0].partition(" ")
    common = {"audio": str(folder / f"{name}.flac"), "speaker": "19"}
    backwards = " ".join(reversed(text.split()))
    entries = [{**common, "id": "right", "text": text}, {**common, "id": "wrong", "text": backwards}]
    dataset = run(write_manifest(tmp_path, entries), tmp_path / "set", align=True, filters=Filters(min_alignment=-2.5))
    assert rejections(tmp_path / "set") in ([("wrong", "text does not fit")], [("wrong", "no alignment")])
    utterance = dataset.read(0)
    starts, rate = utterance.phoneme_frames, dataset.info.codec.frames_per_second
    assert utterance.utterance_id == "right" and len(starts) == len(utterance.phonemes)
    assert 0.03 < np.median(np.diff(starts)) / rate < 0.15 and starts[-1] > 0.8 * len(utterance.codes)
