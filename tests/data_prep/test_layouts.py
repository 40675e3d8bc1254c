"""Corpora made in each published layout: what is listed, and what their audio sounds like when it is read."""

import gzip
import io
import json
import tarfile

import numpy as np
import pytest
import soundfile
from small_corpora import sound

from data_prep.prepare import Prepare, prepare
from data_prep.sources import detect_layout, list_recordings
from data_prep.sources.audio import AudioReader
from valle_jax.audio import write_audio
from valle_jax.data.dataset import Dataset
from valle_jax.errors import UserError

RATE = 16_000


def listed(source, layout):
    assert detect_layout(source) == layout
    return list(list_recordings(source, layout))


def encoded(samples, kind="FLAC", subtype=None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=kind, subtype=subtype)
    return file.getvalue()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def assert_sounds(recording, samples, tolerance=2**-15):
    """What is read is `samples`; by default, to 16 bits."""
    reader = AudioReader([recording])
    assert reader.seconds(recording) == pytest.approx(len(samples) / RATE, abs=1e-4)
    np.testing.assert_allclose(reader.read(recording, RATE), samples, atol=tolerance)


def make_tar(path, members):
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, content in members:
            content = content if isinstance(content, bytes) else content.encode()
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_archives_have_transcripts_before_or_after_the_audio(tmp_path, suffix):
    sounds = {f"{c}-{i}": sound(0.2, seed=10 * c + i) for c in (1, 2) for i in range(3)}
    folder = "LibriSpeech/test-other/1"
    audio = [(f"{folder}/{key[0]}/1-{key}.flac", encoded(samples)) for key, samples in sounds.items()]
    first = (f"{folder}/1/1-1.trans.txt", "1-1-0 ONE\n1-1-2 THREE\n1-1-9 LOST\n")
    second = (f"{folder}/2/1-2.trans.txt", "1-2-0 FOUR\n1-2-1 FIVE\n1-2-2 SIX\n")
    tts = ("LibriTTS/dev-clean/7/8/7_8_9.wav", encoded(sounds["1-0"], "WAV"))
    spoken = ("LibriTTS/dev-clean/7/8/7_8_9.normalized.txt", "Seven.\n")
    original = ("LibriTTS/dev-clean/7/8/7_8_9.original.txt", "7.\n")
    path = tmp_path / f"all{suffix}"
    make_tar(path, [first, *audio, ("LibriSpeech/README.TXT", "x"), second, tts, original, spoken])
    recordings = listed(path, "archives")
    assert recordings == listed(tmp_path, "archives")
    assert [(r.utterance_id, r.speaker_id, r.text) for r in recordings] == [
        ("1-1-0", "1", "ONE"),
        ("1-1-2", "1", "THREE"),
        ("1-2-0", "1", "FOUR"),
        ("1-2-1", "1", "FIVE"),
        ("1-2-2", "1", "SIX"),
        ("7_8_9", "7", "Seven."),
        ("1-1-1", "1", ""),
        ("1-1-9", "1", "LOST"),
    ]
    assert recordings[0].source == f"all{suffix}/{folder}/1/1-1-0.flac"
    for recording in reversed(recordings[:5]):  # backwards: a .gz begins again each time
        assert_sounds(recording, sounds[recording.utterance_id[2:]])
    with pytest.raises(UserError, match=r"cannot read audio all.*1-1-9.flac: No such file"):
        AudioReader(recordings).read(recordings[-1], RATE)


def test_a_shard_reads_an_archive_once_and_in_order(tmp_path, monkeypatch):
    members = [(f"a/{i:02d}/5-{i}.flac", encoded(sound(0.2, seed=i))) for i in range(8)]
    texts = [(f"a/{i:02d}/5-{i}.trans.txt", f"5-{i} TEXT\n") for i in range(8)]
    make_tar(tmp_path / "x.tar.gz", [*members, *reversed(texts)])  # the listing runs against the archive
    recordings = listed(tmp_path, "archives")
    assert recordings[0].utterance_id == "5-7"
    rewinds = []
    rewind = gzip._GzipReader._rewind  # the way back to the first byte
    monkeypatch.setattr(gzip._GzipReader, "_rewind", lambda file: (rewinds.append(file), rewind(file)))
    reader = AudioReader(recordings)
    assert not rewinds
    for recording in recordings:
        expected = sound(0.2, seed=int(recording.utterance_id[2:]))
        np.testing.assert_allclose(reader.read(recording, RATE), expected, atol=2**-15)
    AudioReader(recordings)
    assert len(rewinds) == 1  # the shard came again: once back, and forwards


def test_damaged_archives(tmp_path):
    make_tar(tmp_path / "x.tar.gz", [("a/5-1.flac", encoded(sound(0.5, seed=1))), ("a/5.trans.txt", "5-1 TEXT\n")])
    recordings = listed(tmp_path, "archives")
    whole = (tmp_path / "x.tar.gz").read_bytes()
    (tmp_path / "x.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cannot read archive .*x\.tar\.gz: .*; fetch it again"):
        listed(tmp_path, "archives")
    with pytest.raises(UserError, match=r"cannot read audio x\.tar\.gz/a/5-1\.flac: the archive is damaged"):
        AudioReader(recordings).read(recordings[0], RATE)
    (tmp_path / "y.tar.gz").write_bytes(b"no archive")
    with pytest.raises(UserError, match=r"cannot read archive .*y\.tar\.gz"):
        listed(tmp_path / "y.tar.gz", "archives")


def test_archives_of_other_corpora_are_refused(tmp_path):
    make_tar(tmp_path / "unlab_small.tar", [("small/100/book/01_x.flac", b"x"), ("small/100/book/01_x.json", "{}")])
    with pytest.raises(UserError, match=r"unlab_small\.tar holds no \*\.trans\.txt .*; unpack it"):
        listed(tmp_path, "archives")


def test_libritts(tmp_path):
    samples = sound(0.3, seed=3)
    put(tmp_path / "dev-clean/84/121/84_121_0_0.wav", encoded(samples, "WAV"))
    put(tmp_path / "dev-clean/84/121/84_121_0_0.normalized.txt", "Doctor Who?\n")
    put(tmp_path / "dev-clean/84/121/84_121_0_0.original.txt", "Dr. Who?\n")
    put(tmp_path / "dev-clean/84/121/84_121.trans.tsv", "84_121_0_0\tDr. Who?\tDoctor Who?\n")
    (recording,) = listed(tmp_path, "libritts")
    assert (recording.utterance_id, recording.speaker_id, recording.text) == ("84_121_0_0", "84", "Doctor Who?")
    assert_sounds(recording, samples)


def test_vctk(tmp_path):
    one, two = sound(0.3, seed=1), sound(0.3, seed=2)
    audio = tmp_path / "wav48_silence_trimmed"
    put(audio / "p225/p225_001_mic1.flac", encoded(one))
    put(audio / "p225/p225_001_mic2.flac", encoded(two))
    put(audio / "p225/p225_002_mic2.flac", encoded(two))
    put(audio / "p315/p315_001_mic1.flac", encoded(one))
    put(audio / "log.txt", "x")
    put(tmp_path / "txt/p225/p225_001.txt", "Please call Stella.\n")
    put(tmp_path / "txt/p225/p225_002.txt", "Ask her.")
    put(tmp_path / "speaker-info.txt", "ID  AGE  GENDER  ACCENTS  REGION COMMENTS\n")
    recordings = listed(tmp_path, "vctk")
    assert [(r.utterance_id, r.speaker_id, r.text) for r in recordings] == [
        ("p225_001", "p225", "Please call Stella."),
        ("p225_002", "p225", "Ask her."),
        ("p315_001", "p315", ""),
    ]
    assert_sounds(recordings[0], one)
    assert_sounds(recordings[1], two)


def test_common_voice(tmp_path):
    samples = sound(1.0, seed=1)
    put(tmp_path / "clips/a.mp3", encoded(samples, "MP3", "MPEG_LAYER_III"))
    columns = "client_id\tpath\tsentence_id\tsentence\tlocale\n"
    put(tmp_path / "train.tsv", columns + 's1\ta.mp3\tx\tHe said "no.\ten\n')
    put(tmp_path / "dev.tsv", columns + "s2\tb.mp3\tx\tQuoi ?\tfr\n")
    put(tmp_path / "test.tsv", columns + "s3\tc.mp3\tx\t你好\tzh-CN\n")
    put(tmp_path / "validated.tsv", columns + "s4\td.mp3\tx\tnot in a split\ten\n")
    recordings = listed(tmp_path, "common_voice")
    assert [(r.utterance_id, r.speaker_id, r.text, r.language, r.split) for r in recordings] == [
        ("a", "s1", 'He said "no.', "en-us", None),
        ("b", "s2", "Quoi ?", "fr-fr", "valid_speaker"),
        ("c", "s3", "你好", "cmn", "test"),
    ]
    # MP3 is lossy: the sound is the same, not the samples.
    heard = AudioReader(recordings[:1]).read(recordings[0], RATE)
    assert len(heard) == len(samples) and np.corrcoef(heard, samples)[0, 1] > 0.95
    put(tmp_path / "dev.tsv", columns + "s2\tb.mp3\n")
    with pytest.raises(UserError, match=r"dev\.tsv: line 2 has only 2 columns"):
        listed(tmp_path, "common_voice")
    put(tmp_path / "train.tsv", "path\tsentence\n")
    with pytest.raises(UserError, match=r"train\.tsv has no column 'client_id'"):
        listed(tmp_path, "common_voice")


def test_librilight(tmp_path):
    samples = sound(8.0, seed=1)
    put(tmp_path / "small/100/book/01_x.flac", encoded(samples))
    facts = {
        "speaker": "100",
        "book_meta": {},
        "voice_activity": [[0.5, 1.0], [1.5, 2.25], [30, 45], [46, 50], [60, 99]],
    }
    put(tmp_path / "small/100/book/01_x.json", json.dumps(facts))
    recordings = listed(tmp_path, "librilight")
    assert [(r.start_seconds, r.end_seconds) for r in recordings] == [(0.5, 2.25), (30, 50), (60, 99)]
    assert {(r.speaker_id, r.text) for r in recordings} == {("100", "")}
    assert recordings[0].utterance_id == "small/100/book/01_x_0000"
    assert recordings[0].source == "small/100/book/01_x.flac#t=0.5,2.25"
    assert_sounds(recordings[0], samples[RATE // 2 : RATE * 9 // 4])
    assert len(AudioReader(recordings).read(recordings[1], RATE)) == 0  # behind the end
    put(tmp_path / "small/100/book/01_x.json", json.dumps({**facts, "voice_activity": [1]}))
    with pytest.raises(UserError, match=r"01_x\.json has no speaker, or no voice_activity"):
        listed(tmp_path, "librilight")


def lines_gz(path, entries):
    put(path, gzip.compress("".join(json.dumps(entry) + "\n" for entry in entries).encode()))


def recording_json(name, path, seconds):
    sources = [{"type": "file", "channels": [0], "source": path}]
    return {"id": name, "sources": sources, "sampling_rate": RATE, "num_samples": seconds * RATE, "duration": seconds}


def test_libriheavy_cuts(tmp_path):
    samples = sound(6.0, seed=1)
    put(tmp_path / "download/librilight/small/100/x.flac", encoded(samples))
    manifests = tmp_path / "data/manifests"
    recording = recording_json("small/100/x", "download/librilight/small/100/x.flac", 6)
    supervision = {"id": "u", "recording_id": "small/100/x", "start": 0, "duration": 2.5, "channel": 0}
    supervision |= {"language": "English", "speaker": "100", "custom": {"texts": ["It is, truly.", "IT IS TRULY"]}}
    cut = {"id": "small/100/x_0", "start": 1.25, "duration": 2.5, "channel": 0, "supervisions": [supervision]}
    cut |= {"recording": recording, "type": "MonoCut"}
    lines_gz(manifests / "libriheavy_cuts_small.jsonl.gz", [cut])
    (found,) = listed(manifests, "lhotse")
    assert (found.utterance_id, found.speaker_id, found.text) == ("small/100/x_0", "100", "It is, truly.")
    assert (found.language, found.source) == ("en-us", "download/librilight/small/100/x.flac#t=1.25,3.75")
    assert_sounds(found, samples[RATE * 5 // 4 : RATE * 15 // 4])
    lines_gz(manifests / "libriheavy_cuts_small.jsonl.gz", [cut, {"id": "y", "start": 1}])
    with pytest.raises(UserError, match=r"small\.jsonl\.gz: entry 2 is not as Lhotse writes it: no 'duration'"):
        listed(manifests, "lhotse")
    lines_gz(manifests / "libriheavy_cuts_large.jsonl.gz", [cut])
    with pytest.raises(UserError, match="no known layout"):  # the sets of Libriheavy hold one another: one is named
        detect_layout(manifests)
    assert len(listed(manifests / "libriheavy_cuts_large.jsonl.gz", "lhotse")) == 1


def test_gigaspeech_recordings_and_supervisions(tmp_path):
    samples = sound(3.0, seed=1)
    put(tmp_path / "audio/POD1.opus", encoded(samples, "OGG", "OPUS"))
    lines_gz(tmp_path / "gigaspeech_recordings_S.jsonl.gz", [recording_json("POD1", "audio/POD1.opus", 3)])
    common = {"recording_id": "POD1", "channel": 0, "language": "English", "speaker": "N/A"}
    lines_gz(
        tmp_path / "gigaspeech_supervisions_S.jsonl.gz",
        [
            {"id": "POD1_0", "start": 0.0, "duration": 3.0, "text": "WELL <COMMA> YES <PERIOD>", **common},
            {"id": "POD1_1", "start": 1.0, "duration": 1.5, "text": "<MUSIC>", **common},
        ],
    )
    whole, music = listed(tmp_path, "lhotse")
    assert (whole.text, whole.speaker_id, whole.start_seconds) == ("WELL, YES.", "POD1", None)
    assert (music.text, music.start_seconds, music.end_seconds) == ("", 1.0, 2.5)
    heard = AudioReader([music]).read(music, RATE)
    assert len(heard) == 1.5 * RATE
    assert np.corrcoef(heard, samples[RATE : RATE * 5 // 2])[0, 1] > 0.9  # Opus is lossy


def test_parts_of_recordings_in_jsonl(tmp_path):
    samples = sound(2.0, seed=1)
    write_audio(tmp_path / "a.wav", samples, RATE)
    entry = {"audio": "a.wav", "text": "part", "speaker": "s"}
    put(tmp_path / "m.jsonl", json.dumps({**entry, "start": 0.5, "end": 1.25}))
    (recording,) = listed(tmp_path, "jsonl")
    assert (recording.utterance_id, recording.source) == ("a#t=0.5,1.25", "a.wav#t=0.5,1.25")
    assert_sounds(recording, samples[RATE // 2 : RATE * 5 // 4])
    for wrong in ({"start": 1}, {"start": 2, "end": 1}, {"start": "x", "end": 1}):
        put(tmp_path / "m.jsonl", json.dumps({**entry, **wrong}))
        with pytest.raises(UserError, match="entry 1 needs numbers 0 <= start < end"):
            listed(tmp_path, "jsonl")


def test_several_layouts_are_not_guessed_between(tmp_path):
    put(tmp_path / "metadata.csv", "")
    (tmp_path / "wavs").mkdir()
    put(tmp_path / "x.jsonl", "")
    with pytest.raises(UserError, match="could be ljspeech or jsonl; name one with --layout"):
        detect_layout(tmp_path)


def test_a_corpus_in_an_object_store(tmp_path, bucket):
    samples = sound(1.0, seed=1)
    put(tmp_path / "7/2/7-2-0.flac", encoded(samples))
    put(tmp_path / "7/2/7-2.trans.txt", "7-2-0 HELLO\n7-2-1 LOST\n")
    url = bucket.put(tmp_path / "7/2", "speech/LibriSpeech/7/2").removesuffix("/7/2")
    recordings = listed(url, "librispeech")
    assert [(r.utterance_id, r.text, r.source) for r in recordings] == [
        ("7-2-0", "HELLO", "7/2/7-2-0.flac"),
        ("7-2-1", "LOST", "7/2/7-2-1.flac"),
    ]
    assert_sounds(recordings[0], samples)
    with pytest.raises(UserError, match=r"cannot read audio 7/2/7-2-1\.flac: No such file"):
        AudioReader(recordings).read(recordings[1], RATE)
    with pytest.raises(UserError, match="no such file or folder: gs://"):
        detect_layout(f"{url}/nowhere")

    bucket.refuse = lambda method, target: 403 if "alt=media" in target else None
    with pytest.raises(OSError, match="cannot access gs://"):  # it may come back, so the shard is tried again
        AudioReader(recordings[:1])
    bucket.refuse = lambda method, target: None

    make_tar(tmp_path / "x.tar.gz", [("a/7-2-0.flac", encoded(samples)), ("a/7-2.trans.txt", "7-2-0 HELLO\n")])
    lines = {"audio": f"{url}/7/2/7-2-0.flac", "text": "part", "speaker": "s", "start": 0.25, "end": 0.5}
    put(tmp_path / "m.jsonl", json.dumps(lines))
    bucket.put(tmp_path, "files")
    (packed,) = listed("gs://bucket/files/x.tar.gz", "archives")
    assert_sounds(packed, samples)
    (part,) = listed("gs://bucket/files/m.jsonl", "jsonl")
    assert_sounds(part, samples[RATE // 4 : RATE // 2])


def test_tensorflow_datasets(tmp_path):
    datasets = pytest.importorskip("tensorflow_datasets", reason="the extra `prep` is not installed")
    tensorflow = pytest.importorskip("tensorflow")
    samples = [sound(0.4 + 0.1 * i, seed=i) for i in range(3)]
    features = datasets.features.FeaturesDict(
        {
            "id": datasets.features.Text(),
            "speech": datasets.features.Audio(sample_rate=RATE),
            "text": datasets.features.Text(),
            "speaker": datasets.features.ClassLabel(names=["p225", "p226"]),
        }
    )
    examples = [
        {"id": f"u{i}", "speech": np.round(s * 2**15).astype(np.int64), "text": f"text {i}", "speaker": i % 2}
        for i, s in enumerate(samples)
    ]
    folder = tmp_path / "vctk/1.0.0"
    folder.mkdir(parents=True)
    splits = []
    for split, part in (("train", examples[:2]), ("test", examples[2:])):
        with tensorflow.io.TFRecordWriter(str(folder / f"vctk-{split}.tfrecord-00000-of-00001")) as writer:
            for example in part:
                writer.write(features.serialize_example(features.encode_example(example)))
        template = datasets.core.ShardedFileTemplate(
            data_dir=folder, dataset_name="vctk", split=split, filetype_suffix="tfrecord"
        )
        splits.append(datasets.core.SplitInfo(split, [len(part)], 0, filename_template=template))
    datasets.folder_dataset.write_metadata(data_dir=folder, features=features, split_infos=splits)
    source = f"tfds:{folder}"
    recordings = {r.utterance_id: r for r in listed(source, "tfds")}
    assert {(r.utterance_id, r.speaker_id, r.text, r.split) for r in recordings.values()} == {
        ("u0", "p225", "text 0", None),
        ("u1", "p226", "text 1", None),
        ("u2", "p225", "text 2", "test"),
    }
    for i, expected in enumerate(samples):
        assert_sounds(recordings[f"u{i}"], expected)
    (other, *_) = listed(f"{source}?text=id&speaker=text", "tfds")
    assert other.text == other.utterance_id and other.speaker_id.startswith("text ")
    for query, message in [
        ("?text=words", "no feature 'words'; there are id, speaker"),
        ("?x=1", "unknown 'x'; known"),
    ]:
        with pytest.raises(UserError, match=message):
            listed(source + query, "tfds")
    with pytest.raises(UserError, match="no such dataset"):
        listed(f"tfds:{tmp_path}/nowhere", "tfds")
    with pytest.raises(UserError, match="layout tfds is for"):
        list_recordings(tmp_path, "tfds")


def test_a_dataset_of_an_archive_is_that_of_its_files(tmp_path):
    pytest.importorskip("phonemizer", reason="the extra `text` is not installed")
    sounds = {f"5-1-{i}": encoded(sound(0.6 + 0.2 * i, seed=i)) for i in range(5)}
    members = [(f"5/1/{key}.flac", content) for key, content in sounds.items()]
    members.insert(3, ("5/1/5-1.trans.txt", "".join(f"{key} ONE TWO\n" for key in sounds)))
    for name, content in members:
        put(tmp_path / "files" / name, content)
    make_tar(tmp_path / "x.tar.gz", members)
    datasets = []
    for source in (tmp_path / "files", tmp_path / "x.tar.gz"):
        out = str(tmp_path / f"dataset-{source.name}")
        prepare(Prepare(source=str(source), out=out, processes=1, shard_utterances=2), progress=False)
        dataset = Dataset.open(out)
        utterances = (dataset.read(i) for i in range(len(dataset)))
        datasets.append({u.utterance_id: (u.text, u.speaker_id, u.codes.tobytes()) for u in utterances})
    assert datasets[0] == datasets[1] and datasets[0].keys() == sounds.keys()
