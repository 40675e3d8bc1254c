"""The same bytes by whatever runs the shards: processes, tasks of a job array, Beam; at once, or with kills between."""

import concurrent.futures
import json
import pathlib
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from small_corpora import SHARDS_OF_TWO, contents, make_corpus, rejections, sound

from data_prep.encoding import BATCH_SECONDS, _batches
from data_prep.filters import Filters
from data_prep.prepare import Prepare, prepare
from valle_jax.audio import write_audio
from valle_jax.data.dataset import Dataset
from valle_jax.errors import UserError, WorkError

pytest.importorskip("phonemizer", reason="the extra `text` is not installed")


def run(source, out, **options):
    return prepare(Prepare(source=str(source), out=str(out), **options), progress=False)


def command(source, out, *more):
    words = [sys.executable, "-m", "valle_jax.cli", "prepare", "--source", source, "--out", out, *more]
    for name, value in SHARDS_OF_TWO.items():
        words += [f"--{name.replace('_', '-')}", value]
    return [str(word) for word in words]


def test_tasks_of_an_array(corpus, unbroken, tmp_path, monkeypatch):
    out = tmp_path / "out"
    options = SHARDS_OF_TWO | {"processes": 1}
    assert run(corpus, out, plan_only=True, **options) is None and not list(out.glob("data-*"))
    assert run(corpus, out, shard_index=2, num_shards=3, **options) is None
    assert len(list(out.glob("data-*.tfrecord"))) == 5 and not (out / "dataset.json").exists()
    with pytest.raises(WorkError, match=r"10 of 15 shards of .* are missing, the first is 0"):
        run(corpus, out, finish=True, **options)
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "5")  # sbatch --array=1-5:2, of which this one is the last
    for name, value in {"MIN": 1, "STEP": 2, "COUNT": 3}.items():
        monkeypatch.setenv(f"SLURM_ARRAY_TASK_{name}", str(value))
    assert run(corpus, out, **options) is None
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "1")
    assert run(corpus, out, **options) is None
    monkeypatch.delenv("SLURM_ARRAY_TASK_ID")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "1")
    with pytest.raises(UserError, match="task 1 of None"):
        monkeypatch.delenv("SLURM_ARRAY_TASK_COUNT")
        run(corpus, out, **options)
    assert run(corpus, out, num_shards=3, **options).info.n_utterances == 30
    assert contents(out) == contents(unbroken)


def test_tasks_at_the_same_time(corpus, unbroken, tmp_path):
    """Four tasks where there is work for two: each part is done twice, and several may finish."""
    out = tmp_path / "out"
    tasks = [command(corpus, out, "--processes", "1", "--shard-index", i % 2, "--num-shards", 2) for i in range(4)]
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = list(pool.map(lambda words: subprocess.run(words, capture_output=True, text=True), tasks))
    assert [task.returncode for task in done] == [0] * 4, [task.stderr for task in done]
    assert any("30 utterances" in task.stdout for task in done)
    assert contents(out) == contents(unbroken)


def test_beam(corpus, unbroken, tmp_path):
    pytest.importorskip("apache_beam", reason="the extra `prep` is not installed")
    run(corpus, tmp_path / "out", runner="DirectRunner", runner_options=("direct_num_workers=1",), **SHARDS_OF_TWO)
    assert contents(tmp_path / "out") == contents(unbroken)


def test_killed_three_times_at_random(corpus, unbroken, tmp_path):
    out = tmp_path / "out"
    moments = random.Random(0)
    for _ in range(3):
        complete = len(list(out.glob("data-*.tfrecord")))
        with subprocess.Popen(command(corpus, out, "--processes", "2"), stderr=subprocess.DEVNULL) as process:
            deadline = time.monotonic() + 60
            while len(list(out.glob("data-*.tfrecord"))) < complete + 2:
                assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
                time.sleep(0.002)
            time.sleep(moments.uniform(0, 0.05))
            process.send_signal(signal.SIGKILL)
    assert not (out / "dataset.json").exists(), "it was complete before it was killed"
    time.sleep(0.5)  # the workers of the last run end
    run(corpus, out, processes=2, **SHARDS_OF_TWO)
    assert contents(out) == contents(unbroken)


def test_batches_are_bounded_by_their_audio():
    seconds = dict(enumerate(np.random.default_rng(0).uniform(0.5, 40, 300)))
    batches = list(_batches(seconds, 40.0))
    assert sorted(i for batch in batches for i in batch) == list(range(300))
    assert all(max(seconds[i] for i in batch) * len(batch) <= BATCH_SECONDS for batch in batches)
    assert len(batches) < 300 * 20 / BATCH_SECONDS * 1.3  # and well filled


@pytest.fixture(scope="module")
def copies(tmp_path_factory):
    """12 sounds of 3 speakers; 20 to 23 are copies of 0 to 3, one of them as flac, and 30 is one in other words."""
    manifest = make_corpus(tmp_path_factory.mktemp("copies") / "sounds", 12)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for i in range(4):
        samples, rate = soundfile.read(manifest.parent / f"{i:03d}.wav")
        name = f"{20 + i:03d}" + (".flac" if i == 2 else ".wav")
        write_audio(manifest.parent / name, samples, rate)
        lines.append({**lines[i], "audio": name})
    lines.append({**lines[0], "id": "030", "text": "zero", "speaker": "s2"})
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return manifest


def test_copies_are_dropped(copies, tmp_path):
    options = {"shard_utterances": 4, "valid_utterances": 0.0}
    filters = Filters(unique_audio=True)
    summary = run(copies, tmp_path / "one", processes=1, filters=filters, **options)
    dataset = Dataset.open(tmp_path / "one")
    assert [dataset.read(i).utterance_id for i in range(12)] == [f"{i:03d}" for i in range(12)]
    assert rejections(tmp_path / "one") == [(u, "duplicate audio") for u in ("020", "021", "022", "023", "030")]
    assert "the same samples as 002" in (tmp_path / "one" / "rejected.jsonl").read_text()
    assert list(dataset.verify()) == [] and not (tmp_path / "one" / "staging").exists()
    # Totals are those of a corpus without the copies.
    clean = tmp_path / "clean" / "manifest.jsonl"
    shutil.copytree(copies.parent, clean.parent)
    clean.write_text("".join(copies.read_text().splitlines(keepends=True)[:12]))
    without = run(clean, tmp_path / "without", processes=1, **options)
    assert summary.info.totals == without.info.totals
    assert summary.info.speaker_seconds == without.info.speaker_seconds
    # Two tasks, the second of which was killed while it selected.
    out = tmp_path / "two"
    assert run(copies, out, processes=1, shard_index=0, num_shards=2, filters=filters, **options) is None
    run(copies, out, processes=1, shard_index=1, num_shards=2, filters=filters, **options)
    assert contents(out) == contents(tmp_path / "one")
    for name in ("data-00004-of-00005.tfrecord", "data-00004-of-00005.index.npz", "dataset.json"):
        (out / name).unlink()
    run(copies, out, processes=2, filters=filters, **options)
    assert contents(out) == contents(tmp_path / "one")


def test_a_speaker_has_no_more_than_the_cap(copies, tmp_path):
    options = {"shard_utterances": 4, "valid_utterances": 0.0}
    for processes in (1, 2):
        filters = Filters(unique_audio=True, max_speaker_hours=3.0 / 3600)
        summary = run(copies, tmp_path / str(processes), processes=processes, filters=filters, **options)
    # 0.6 to 1.6 s: four utterances of each speaker, of 4.0 s and more, of which the next always fits below 1.6 s
    assert set(summary.info.speaker_seconds) == {"s0", "s1", "s2"}
    assert all(1.4 < seconds <= 3.0 for seconds in summary.info.speaker_seconds.values())
    dropped = [utterance for utterance, reason in rejections(tmp_path / "1") if reason == "speaker has enough"]
    assert summary.info.n_utterances + len(dropped) == 12 and dropped
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_filters_are_listed_by_reason(tmp_path):
    manifest = make_corpus(tmp_path / "corpus", 6)
    rate = 16_000
    speech = np.concatenate([sound(1.0, 1), 1e-4 * np.random.default_rng(0).standard_normal(rate)])
    write_audio(manifest.parent / "000.wav", np.clip(20 * sound(1.0, 0), -1, 1), rate)
    write_audio(manifest.parent / "001.wav", np.append(speech, np.zeros(4 * rate)), rate)
    write_audio(manifest.parent / "002.wav", speech + 0.1 * np.random.default_rng(1).standard_normal(2 * rate), rate)
    for i in (3, 4, 5):
        write_audio(manifest.parent / f"{i:03d}.wav", speech, rate)
    lines = [json.loads(line) for line in manifest.read_text().splitlines()]
    for i, words in enumerate((8, 8, 8, 1, 15, 4)):
        lines[i]["text"] = "seven " * words
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    limits = {"min_phonemes_per_second": 5.0, "max_phonemes_per_second": 40.0}
    filters = Filters(max_clipped=0.05, max_silence=0.6, min_snr=15.0, **limits)
    run(manifest, tmp_path / "out", processes=1, filters=filters)
    assert rejections(tmp_path / "out") == [
        ("000", "clipped"),
        ("001", "much silence"),
        ("002", "noisy"),
        ("003", "too few phonemes"),
        ("004", "too many phonemes"),
    ]


@pytest.mark.slow
def test_all_of_the_speech_by_processes_and_by_beam(speech, tmp_path):
    """`pytest -m slow tests/data_prep/test_engine.py`: every corpus of ../shared/speech; some minutes."""
    pytest.importorskip("apache_beam", reason="the extra `prep` is not installed")
    for source in ("manifest.jsonl", "LibriSpeech", "LJSpeech-1.1"):
        outs = [tmp_path / f"{source}-{engine}" for engine in ("local", "beam")]
        run(speech / source, outs[0])
        run(speech / source, outs[1], runner="DirectRunner")
        assert contents(outs[0]) == contents(outs[1]), source
        assert list(Dataset.open(outs[0]).verify()) == []


def pathological_corpus(folder: pathlib.Path, n_copies: int) -> tuple[pathlib.Path, dict[str, str]]:
    """A corpus of planted faults; returns its manifest and the reason for each utterance that is to be rejected."""
    folder.mkdir()
    rate = 16_000
    good = sound(2.0, seed=1)
    soundfile.write(folder / "truncated.flac", good, rate)
    content = (folder / "truncated.flac").read_bytes()
    (folder / "truncated.flac").write_bytes(content[: len(content) // 2])
    (folder / "zero_bytes.wav").write_bytes(b"")
    (folder / "text.wav").write_text("this is not audio")
    soundfile.write(folder / "nan.wav", np.where(np.arange(len(good)) == 99, np.nan, good), rate, subtype="FLOAT")
    with soundfile.SoundFile(folder / "two_hours.flac", "w", 8_000, 1) as long:
        for _ in range(120):
            long.write(np.zeros(60 * 8_000, np.int16))
    for seed, name in enumerate(("no_text", "only_marks", "good", "emoji_and_digits"), start=10):
        soundfile.write(folder / f"{name}.wav", sound(2.0, seed), rate)
    # What must be read all the same.
    soundfile.write(folder / "wrong_extension.flac", sound(2.0, seed=2), rate, format="WAV")
    soundfile.write(folder / "eight_bits.wav", sound(2.0, seed=3), rate, subtype="PCM_U8")
    soundfile.write(folder / "stereo.wav", np.stack([sound(2.0, 4, 48_000), sound(2.0, 5, 48_000)], axis=1), 48_000)
    texts = {"no_text.wav": "", "only_marks.wav": "…?!", "emoji_and_digits.wav": "10 cats 😀"}
    audio = sorted(path.name for path in folder.iterdir())
    lines = [{"audio": name, "speaker": "s", "text": texts.get(name, "one two three")} for name in audio]
    lines += [{"audio": "good.wav", "speaker": "s", "text": "one two three", "id": f"copy{i}"} for i in range(n_copies)]
    manifest = folder / "manifest.jsonl"
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))
    reasons = dict.fromkeys(("truncated", "zero_bytes", "text", "nan"), "unreadable audio")
    reasons |= {"two_hours": "too long", "no_text": "no transcript", "only_marks": "no phonemes"}
    return manifest, reasons | {f"copy{i}": "duplicate audio" for i in range(n_copies)}


@pytest.mark.parametrize("n_copies", [30, pytest.param(10_000, marks=pytest.mark.slow)])
def test_planted_faults(n_copies, tmp_path):
    manifest, reasons = pathological_corpus(tmp_path / "corpus", n_copies)
    out = tmp_path / "out"
    run(manifest, out, processes=1, filters=Filters(unique_audio=True), shard_utterances=max(20, n_copies // 20))
    assert dict(rejections(out)) == reasons
    dataset = Dataset.open(out)
    found = {dataset.read(i).utterance_id for i in range(len(dataset))}
    assert found == {"good", "wrong_extension", "eight_bits", "stereo", "emoji_and_digits"}
    assert list(dataset.verify()) == []
