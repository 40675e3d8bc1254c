"""Corpus layouts: recognition, order, transcripts that are missing, manifests that are wrong."""

import json

import pytest

from data_prep.sources import LAYOUTS, Recording, detect_layout, list_recordings
from valle_jax.errors import UserError


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


@pytest.fixture
def librispeech(tmp_path):
    for name in ("dev/7/2/7-2-0001.flac", "dev/7/2/7-2-0000.flac", "dev/10/1/10-1-0000.flac", "dev/7/3/7-3-0000.flac"):
        write(tmp_path / name)
    write(tmp_path / "dev/7/2/7-2.trans.txt", "7-2-0000 FIRST ONE\n7-2-0001 SECOND\n7-2-0002 NO AUDIO\n")
    write(tmp_path / "dev/10/1/10-1.trans.txt", "10-1-0000\n")
    return tmp_path


def test_librispeech(librispeech):
    assert detect_layout(librispeech) == "librispeech"
    recordings = list(list_recordings(librispeech, "librispeech"))
    assert [(r.utterance_id, r.speaker_id, r.text) for r in recordings] == [
        ("10-1-0000", "10", ""),
        ("7-2-0000", "7", "FIRST ONE"),
        ("7-2-0001", "7", "SECOND"),
        ("7-2-0002", "7", "NO AUDIO"),
        ("7-3-0000", "7", ""),
    ]
    assert recordings[1].audio_path == str(librispeech / "dev/7/2/7-2-0000.flac")
    assert recordings[1].source == "dev/7/2/7-2-0000.flac"


def test_librispeech_from_a_subset_or_a_speaker(librispeech):
    assert len(list(list_recordings(librispeech / "dev", "librispeech"))) == 5
    assert len(list(list_recordings(librispeech / "dev" / "7", detect_layout(librispeech / "dev" / "7")))) == 4


def test_ljspeech(tmp_path):
    folder = tmp_path / "LJSpeech-1.1"
    write(folder / "wavs/LJ001-0002.wav")
    write(
        folder / "metadata.csv", '\ufeffLJ001-0002|In 1455, "so"|In fourteen fifty-five, "so"\nLJ001-0001|raw|\nLJ3\n'
    )
    assert detect_layout(folder) == "ljspeech"
    recordings = list(list_recordings(folder, "ljspeech"))
    assert [(r.utterance_id, r.text) for r in recordings] == [
        ("LJ001-0002", 'In fourteen fifty-five, "so"'),
        ("LJ001-0001", "raw"),
        ("LJ3", ""),
    ]
    assert {r.speaker_id for r in recordings} == {"LJSpeech-1.1"}
    assert recordings[0].audio_path == str(folder / "wavs/LJ001-0002.wav")


def test_jsonl(tmp_path):
    manifest = tmp_path / "manifest.jsonl"
    lines = [
        {"audio": "a/1.wav", "text": " hello ", "speaker": "s", "seconds": 2.5},
        {"audio": "a/3.wav", "text": "half \ud83d", "speaker": "s"},
        {"audio": "a/2.wav", "text": None, "speaker": 5, "id": 17, "language": "de", "split": "test"},
    ]
    write(manifest, "\n".join(map(json.dumps, lines)) + "\n\n")
    expected = [
        Recording("a/1", "s", "hello", str(tmp_path / "a/1.wav"), "a/1.wav"),
        Recording("a/3", "s", "half ?", str(tmp_path / "a/3.wav"), "a/3.wav"),
        Recording("17", "5", "", str(tmp_path / "a/2.wav"), "a/2.wav", "de", "test"),
    ]
    for source in (manifest, tmp_path):
        assert detect_layout(source) == "jsonl"
        assert list(list_recordings(source, "jsonl")) == expected


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "entry 2 is not a JSON object"),
        ("[]", "entry 2 is not a JSON object"),
        ('{"audio": "x.wav", "text": "t"}', "entry 2 has no field 'speaker'"),
        ('{"speaker": "x", "text": "t"}', "entry 2 has no field 'audio'"),
        ('{"audio": "x.wav", "speaker": "x", "split": "dev"}', "entry 2 has split 'dev'; known are train, valid_utt"),
    ],
)
def test_jsonl_mistakes_name_the_entry(tmp_path, line, message):
    write(tmp_path / "m.jsonl", f'{{"audio": "1.wav", "text": "", "speaker": "s"}}\n{line}\n')
    with pytest.raises(UserError, match=message):
        list(list_recordings(tmp_path, "jsonl"))


def test_unknown_layouts_name_what_was_looked_for(tmp_path):
    write(tmp_path / "x.wav")
    with pytest.raises(UserError, match=r"no known layout.*metadata\.csv.*\.jsonl.*\.trans\.txt"):
        detect_layout(tmp_path)
    with pytest.raises(UserError, match="no such file or folder"):
        detect_layout(tmp_path / "nowhere")
    with pytest.raises(UserError, match="unknown layout 'kaldi'; known: "):
        list_recordings(tmp_path, "kaldi")
    for layout in LAYOUTS:
        with pytest.raises(UserError, match=f"is not of layout {layout}: looked for"):
            list_recordings(tmp_path, layout)


def test_text_that_is_not_utf8(tmp_path):
    (tmp_path / "m.jsonl").write_bytes(b'{"audio": "\xff"}\n')
    with pytest.raises(UserError, match="not UTF-8"):
        list(list_recordings(tmp_path, "jsonl"))


def test_real_corpora(speech):
    found = {p: detect_layout(speech / p) for p in ("LibriSpeech", "LJSpeech-1.1", "manifest.jsonl", ".")}
    assert list(found.values()) == ["librispeech", "ljspeech", "jsonl", "jsonl"]
    libri = list(list_recordings(speech / "LibriSpeech", "librispeech"))
    assert {r.speaker_id for r in libri if r.source.startswith("train-clean-100/")} == {"19", "26", "27"}
    assert all(r.text for r in libri) and len({r.utterance_id for r in libri}) == len(libri) > 300
    manifest = list(list_recordings(speech / "manifest.jsonl", "jsonl"))
    assert len(manifest) == 3928 and len({r.utterance_id for r in manifest}) == 3928
