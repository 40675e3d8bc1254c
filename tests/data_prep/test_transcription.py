"""`valle transcribe` on real speech: pieces, words with times, rejections, resume, and the dataset that comes of it."""

import dataclasses
import json

import numpy as np
import pytest
from small_corpora import contents, rejections, sound

from data_prep import sources
from data_prep.prepare import Prepare, prepare
from data_prep.transcription import command, pieces
from data_prep.transcription.command import Transcribe, transcribe
from data_prep.transcription.segmentation import Segmentation
from valle_jax.audio import read_audio, write_audio
from valle_jax.config import Config
from valle_jax.data.batch import KIND_ACOUSTIC, KIND_TEXT
from valle_jax.data.dataset import Dataset
from valle_jax.data.pipeline import TrainBatches
from valle_jax.errors import UserError, WorkError
from valle_jax.hearing.digits import edit_distance
from valle_jax.hearing.recognition import normalise

pytest.importorskip("pocketsphinx", reason="the extra `eval` is not installed")
SHORT = Segmentation(shortest=2.0, longest=6.0)


@pytest.fixture(scope="module")
def book(speech, tmp_path_factory):
    """A folder of audio: two sentences of one reader with a pause in one file, and files without speech."""
    folder = tmp_path_factory.mktemp("books")
    lines = (speech / "LibriSpeech/train-clean-100/19/198/19-198.trans.txt").read_text().splitlines()[:2]
    audio = [
        read_audio(speech / f"LibriSpeech/train-clean-100/19/198/{line.partition(' ')[0]}.flac", 16_000)
        for line in lines
    ]
    joined = np.concatenate([audio[0], np.zeros(40_000, np.float32), audio[1]])
    (folder / "anna").mkdir()
    write_audio(folder / "anna" / "chapter.flac", joined, 16_000)
    write_audio(folder / "anna" / "rest.flac", np.zeros(20_000, np.float32), 16_000)
    (folder / "broken.wav").write_bytes(b"no audio")
    return folder, [line.partition(" ")[2] for line in lines], joined


@pytest.fixture(scope="module")
def transcribed(book, tmp_path_factory):
    out = tmp_path_factory.mktemp("transcribed") / "out"
    options = Transcribe(
        source=str(book[0]), out=str(out), segmentation=SHORT, processes=1, shard_recordings=1, hang_seconds=500
    )
    assert transcribe(options, progress=False)
    return out


def entries(out):
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def test_pieces_are_heard_in_their_place(book, transcribed):
    _, texts, samples = book
    found = entries(transcribed)
    words = normalise(" ".join(texts))
    heard = [word for entry in found for word in normalise(entry["text"])]
    assert edit_distance(words, heard) / len(words) < 0.5  # of one reader, in pieces; the whole folder has 0.2 to 0.3
    assert len(found) > 2
    last = 0.0
    for number, entry in enumerate(found):
        assert entry["id"].startswith("anna/chapter_") and entry["speaker"] == "anna"
        assert last <= entry["start"] < entry["end"] <= len(samples) / 16_000 and entry["end"] - entry["start"] <= 6
        assert " ".join(word for word, _, _ in entry["words"]) == entry["text"], number
        times = [time for _, *both in entry["words"] for time in both]
        assert times == sorted(times) and entry["start"] <= times[0] and times[-1] <= entry["end"] + 0.02
        last = entry["end"]


def test_what_cannot_be_used_is_listed(transcribed):
    found = dict(rejections(transcribed))
    assert found.pop("anna/rest") == "no speech" and found.pop("broken") == "unreadable audio"
    assert set(found.values()) <= {"nothing heard", "no pause", "too short"}
    assert {path.name for path in transcribed.iterdir()} == {"manifest.jsonl", "rejected.jsonl", "plan.json"}


def test_the_manifest_is_a_source_with_words(transcribed):
    manifest = transcribed / "manifest.jsonl"
    recordings = list(sources.list_recordings(manifest, "jsonl"))
    for entry, recording in zip(entries(transcribed), recordings, strict=True):
        assert recording.words == tuple(map(tuple, entry["words"])) and recording.text == entry["text"]
        assert (recording.start_seconds, recording.end_seconds) == (entry["start"], entry["end"])


def test_a_dataset_comes_of_it_whose_crops_can_be_trained_on(transcribed, tmp_path):
    pytest.importorskip("phonemizer", reason="the extra `text` is not installed")
    manifest = transcribed / "manifest.jsonl"
    prepare(Prepare(source=str(manifest), out=str(tmp_path / "set"), processes=1, align=True), progress=False)
    dataset = Dataset.open(tmp_path / "set")
    found = entries(transcribed)
    assert len(dataset) == len(found)
    seconds = [dataset.index.n_frames[i] / dataset.info.codec.frames_per_second for i in range(len(found))]
    assert seconds == pytest.approx([entry["end"] - entry["start"] for entry in found], abs=0.05)
    crops = {"data.crop_min_seconds": 1.5, "data.crop_max_seconds": 1.5, "data.row_length": 200, "train.rows": 1}
    batches = iter(TrainBatches([(dataset, 1.0)], Config().override(crops), start_row=0, plan_dir=None))
    for _ in range(4):
        kinds = next(batches)["kind"]
        assert 0 < (kinds == KIND_ACOUSTIC).sum() <= 113 and 3 < (kinds == KIND_TEXT).sum() < 60


class Clock:
    """A recogniser that hears how long a piece is; one that times no words."""

    name = "clock"

    def transcribe(self, audio, sample_rate):
        return [f"{len(samples) / sample_rate:.1f} seconds" for samples in audio]


def test_long_recordings_are_read_in_windows(tmp_path, monkeypatch):
    """The same pieces, whether all of a recording is in memory or a part at a time, but for where windows are cut."""
    bursts = [np.concatenate([sound(3.0, seed=i), np.zeros(40_000)]) for i in range(6)]
    write_audio(tmp_path / "long.wav", np.concatenate(bursts), 16_000)
    recording = sources.Recording("long", "s", "", str(tmp_path / "long.wav"), "long.wav")

    def found(**part):
        these = dataclasses.replace(recording, **part)
        return [(piece.start, piece.end, len(samples)) for piece, samples in pieces._pieces(these, SHORT)]

    whole = found()
    monkeypatch.setattr(pieces, "WINDOW_SECONDS", 12.5)
    parts = found()
    assert len(whole) == len(parts) == 6
    np.testing.assert_allclose([p[:2] for p in parts], [p[:2] for p in whole], atol=0.2)
    # Parts, as Libri-Light lists them, in seconds of the file.
    ((start, end, _),) = found(start_seconds=5.0, end_seconds=10.4)
    assert (start, end) == pytest.approx(whole[1][:2], abs=0.2)


@pytest.fixture
def done(monkeypatch):
    """Shards are done in this process, by the clock; they are listed here."""
    shards = []

    def run_here(run, jobs, processes):
        class Here:
            def call(self, function, job, silent_seconds):
                shards.append(job.shard)
                return function(job, lambda part: None)

        return (run(Here(), job) for job in jobs)

    for module in (pieces, command):
        monkeypatch.setattr(module, "get_recogniser", lambda name: Clock())
    monkeypatch.setattr(command, "map_unordered", run_here)
    pieces._recogniser.cache_clear()
    yield shards
    pieces._recogniser.cache_clear()


def test_resume_does_only_what_is_missing(tmp_path, done):
    folder = tmp_path / "audio"
    folder.mkdir()
    for i in range(4):
        write_audio(folder / f"{i}.wav", sound(2.0, seed=i), 16_000)

    def run(out, **options):
        return transcribe(Transcribe(str(folder), str(tmp_path / out), shard_recordings=1, **options), progress=False)

    for shard in (2, 0, 1, 3):
        assert run("out", shard_index=shard, num_shards=4) == (shard == 3)
    assert done == [2, 0, 1, 3]
    assert run("out") and len(done) == 4
    assert run("once") and contents(tmp_path / "once") == contents(tmp_path / "out")
    with pytest.raises(UserError, match=r"begun with segmentation\.shortest=10\.0 but this run asks for .*=2\.0"):
        run("out", segmentation=SHORT)


def test_nothing_heard(tmp_path, done):
    folder = tmp_path / "audio"
    folder.mkdir()
    write_audio(folder / "rest.wav", np.zeros(16_000), 16_000)
    with pytest.raises(WorkError, match="nothing was heard in any recording"):
        transcribe(Transcribe(str(folder), str(tmp_path / "out")), progress=False)
    assert rejections(tmp_path / "out") == [("rest", "no speech")]
    assert not (tmp_path / "out" / "manifest.jsonl").exists()


def test_archives_are_refused(tmp_path):
    (tmp_path / "dev-clean.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match="of layout archives, which no manifest can point into"):
        transcribe(Transcribe(str(tmp_path), str(tmp_path / "out")), False)
