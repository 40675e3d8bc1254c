"""`valle prepare` end to end: records, splits, resume after a kill, processes, rejects, errors, TFDS."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import soundfile
from small_corpora import contents

from data_prep.prepare import Prepare, prepare
from valle_jax import cli
from valle_jax.audio import read_audio, write_audio
from valle_jax.codec import get_codec
from valle_jax.data.dataset import Dataset
from valle_jax.errors import UserError
from valle_jax.text.phonemizer import Phonemizer
from valle_jax.text.vocabulary import Vocabulary

pytest.importorskip("phonemizer", reason="the extra `text` is not installed")


def run(source, out, **options):
    return prepare(Prepare(source=str(source), out=str(out), **options), progress=False)


def test_records_are_those_of_the_parts(corpus, unbroken):
    lines = [json.loads(line) for line in corpus.read_text().splitlines()]
    phonemes = Phonemizer("en-us")([line["text"] for line in lines])
    codec = get_codec("mel_rvq")
    dataset = Dataset.open(unbroken)
    assert len(dataset) == 30
    for i, line in enumerate(lines):
        utterance = dataset.read(i)
        codes, lengths = codec.encode([read_audio(corpus.parent / line["audio"], codec.info.sample_rate)])
        assert utterance.utterance_id == line["audio"].removesuffix(".wav")
        assert (utterance.speaker_id, utterance.text) == (line["speaker"], line["text"])
        assert (utterance.language, utterance.source) == ("en-us", line["audio"])
        np.testing.assert_array_equal(utterance.phonemes, Vocabulary.default().encode(phonemes[i]))
        np.testing.assert_array_equal(utterance.codes, codes[0, : lengths[0]])


def test_info(unbroken):
    info = Dataset.open(unbroken).info
    assert info.codec == get_codec("mel_rvq").info
    assert info.vocabulary == Vocabulary.default()
    # 5 rounds of 0.6, 0.8, ..., 1.6 s
    assert sum(info.speaker_seconds.values()) == pytest.approx(5 * 6.6, abs=1e-6)
    assert set(info.speaker_seconds) == {"s0", "s1", "s2"}


def test_two_processes_write_the_same(corpus, unbroken, tmp_path):
    options = {"shard_utterances": 2, "valid_utterances": 0.1, "valid_speakers": 0.3}
    run(corpus, tmp_path / "two", processes=2, **options)
    assert contents(tmp_path / "two") == contents(unbroken)


def test_resumed_after_a_kill_writes_the_same(corpus, unbroken, tmp_path):
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "valle_jax.cli", "prepare", "--source", corpus, "--out", out, "--processes", "1"]
    command += ["--shard-utterances", "2", "--valid-utterances", "0.1", "--valid-speakers", "0.3"]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 60
        while len(list(out.glob("data-*.tfrecord"))) < 2:
            assert process.poll() is None and time.monotonic() < deadline, "it ended before it could be killed"
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    time.sleep(0.5)
    complete = set(out.glob("data-*.tfrecord"))
    times = {path: path.stat().st_mtime_ns for path in complete}
    time.sleep(0.5)
    assert set(out.glob("data-*.tfrecord")) == complete, "the worker outlived its parent"
    assert len(complete) < 15 and not (out / "dataset.json").exists(), "it was complete before it was killed"
    finished = subprocess.run([str(word) for word in command], capture_output=True, text=True, check=True)
    assert contents(out) == contents(unbroken)
    assert {path: path.stat().st_mtime_ns for path in complete} == times, "a complete shard was done again"
    assert "30 utterances" in finished.stdout


def test_resuming_with_other_options_is_refused(corpus, unbroken):
    before = contents(unbroken)
    same = {"shard_utterances": 2, "valid_utterances": 0.1, "valid_speakers": 0.3}
    assert run(corpus, unbroken, **same).info.n_utterances == 30  # nothing left to do
    for change, message in [
        ({"language": "en-gb"}, "language='en-us' but this run asks for language='en-gb'"),
        ({"shard_utterances": 3}, "shard_utterances=2 but this run asks for shard_utterances=3"),
        ({"seed": 5}, "seed=0 but this run asks for seed=5"),
        ({"vocabulary": "corpus"}, "vocabulary='ipa-1 .*' but this run asks for vocabulary='corpus'"),
        ({"max_seconds": 9.0}, "max_seconds=40.0 but this run asks for max_seconds=9.0"),
    ]:
        with pytest.raises(UserError, match=message):
            run(corpus, unbroken, **(same | change))
    assert contents(unbroken) == before
    (unbroken.parent / "other").mkdir(exist_ok=True)
    (unbroken.parent / "other" / "file").write_text("precious")
    with pytest.raises(UserError, match=r"other is not empty and holds no plan\.json"):
        run(corpus, unbroken.parent / "other", **same)


def test_planted_faults_are_each_listed(corpus, tmp_path):
    folder = tmp_path / "faulty"
    shutil.copytree(corpus.parent, folder)
    rate = 16_000
    write_audio(folder / "000.wav", np.zeros(rate), rate)
    write_audio(folder / "001.wav", np.zeros(0), rate)
    write_audio(folder / "002.wav", 0.1 * np.ones(rate // 10), rate)
    write_audio(folder / "003.wav", np.tile(read_audio(folder / "029.wav", rate), 3), rate)
    (folder / "004.wav").write_bytes(b"not audio at all")
    (folder / "005.wav").unlink()
    soundfile.write(folder / "006.wav", np.full(rate, np.nan, np.float32), rate, subtype="FLOAT")
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    lines[7]["text"] = None
    lines[8]["text"] = "?!"
    lines[9]["language"] = "klingon"
    lines[10]["text"] = "a whole book " * 50
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))

    summary = run(folder, tmp_path / "out", processes=1, max_seconds=4.0)
    rejected = [json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines()]
    assert [(line["utterance_id"], line["reason"]) for line in rejected] == [
        ("000", "silent audio"),
        ("001", "empty audio"),
        ("002", "too short"),
        ("003", "too long"),
        ("004", "unreadable audio"),
        ("005", "unreadable audio"),
        ("006", "unreadable audio"),
        ("007", "no transcript"),
        ("008", "no phonemes"),
        ("009", "unknown language"),
        ("010", "too much text"),
    ]
    assert "0.10 s, less than 0.5 s" in rejected[2]["detail"] and "4.80 s, more than 4 s" in rejected[3]["detail"]
    assert "NaN" in rejected[6]["detail"] and str(tmp_path) not in json.dumps(rejected)
    assert all(line["audio"] == line["utterance_id"] + ".wav" for line in rejected)
    assert summary.info.n_utterances == len(Dataset.open(tmp_path / "out")) == 19
    assert "unreadable audio 3" in str(summary)


def test_nothing_usable_is_an_error(corpus, tmp_path, capsys):
    arguments = ["--source", str(corpus), "--out", str(tmp_path / "out"), "--min-seconds", "9", "--processes", "1"]
    with pytest.raises(SystemExit) as stop:
        cli.main(["prepare", *arguments])
    assert stop.value.code == 1
    assert "none of the 30 recordings is usable: too short 30" in capsys.readouterr().err
    assert len((tmp_path / "out" / "rejected.jsonl").read_text().splitlines()) == 30
    assert not (tmp_path / "out" / "dataset.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"language": "english"}, "unknown language 'english'; near ones: .*en-us"),
        ({"codec": "opus"}, "unknown codec 'opus'"),
        ({"layout": "kaldi"}, "unknown layout 'kaldi'"),
        ({"layout": "ljspeech"}, "is not of layout ljspeech"),
        ({"vocabulary": "nowhere.json"}, r"cannot read vocabulary nowhere\.json"),
        ({"valid_utterances": 1.0}, r"shares in \[0, 1\)"),
        ({"min_seconds": 50.0}, "must be below --max-seconds"),
        ({"shard_utterances": 0}, "--shard-utterances must be positive"),
        ({"out": "/proc/nothing/here"}, "cannot write to --out"),
    ],
)
def test_wrong_arguments_stop_before_any_work(corpus, tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        run(corpus, options.pop("out", tmp_path / "out"), **options)
    assert not (tmp_path / "out").exists()


def test_a_recording_that_kills_its_worker_costs_itself(corpus, tmp_path):
    """espeak-ng 1.52 crashes on Greenlandic numbers, and takes its process along."""
    shutil.copytree(corpus.parent, tmp_path / "corpus")
    lines = [json.loads(line) for line in corpus.read_text().splitlines()][:4]
    lines[2] |= {"text": "0 1 2 3 4 5 6 7 8 9 10 11 12 20 100 1000", "language": "kl"}
    (tmp_path / "corpus" / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    run(tmp_path / "corpus", tmp_path / "out", processes=1)
    dataset = Dataset.open(tmp_path / "out")
    assert [dataset.read(i).utterance_id for i in range(3)] == ["000", "001", "003"]
    (rejected,) = (json.loads(line) for line in (tmp_path / "out" / "rejected.jsonl").read_text().splitlines())
    assert (rejected["utterance_id"], rejected["reason"]) == ("002", "crashes the worker")
    assert rejected["detail"].startswith("signal SIG")


def test_vocabulary_of_the_corpus(corpus, tmp_path):
    run(corpus, tmp_path / "out", vocabulary="corpus", processes=1, shard_utterances=10)
    dataset = Dataset.open(tmp_path / "out")
    texts = [json.loads(line)["text"] for line in corpus.read_text().splitlines()]
    assert dataset.info.vocabulary == Vocabulary.from_corpus(Phonemizer("en-us")(texts))
    assert dataset.info.vocabulary.decode(dataset.read(3).phonemes) == Phonemizer("en-us")([texts[3]])[0]


def test_symbols_outside_the_vocabulary_are_counted(corpus, tmp_path):
    (tmp_path / "small.json").write_text(json.dumps({"version": "small", "symbols": list(" wʌntuːfɔɹ")}))
    summary = run(corpus, tmp_path / "out", vocabulary=str(tmp_path / "small.json"), processes=1)
    phonemes = Phonemizer("en-us")([json.loads(line)["text"] for line in corpus.read_text().splitlines()])
    assert summary.info.unknown_symbols["ˈ"] == "".join(phonemes).count("ˈ") > 0
    assert "unknown symbols" in str(summary)


def test_real_speech(speech, tmp_path):
    chapter = speech / "LibriSpeech" / "train-clean-100" / "26" / "496"
    target = tmp_path / "LibriSpeech" / "train-clean-100" / "26" / "496"
    target.mkdir(parents=True)
    for name in ("26-496.trans.txt", "26-496-0000.flac", "26-496-0003.flac"):
        shutil.copy(chapter / name, target)
    trans = target / "26-496.trans.txt"
    trans.write_text("".join(line for line in trans.open() if line.startswith(("26-496-0000", "26-496-0003"))))
    summary = run(tmp_path / "LibriSpeech", tmp_path / "out", processes=1)
    dataset = Dataset.open(tmp_path / "out")
    assert summary.info.n_utterances == 2 and not summary.rejected
    assert dataset.info.vocabulary.decode(dataset.read(0).phonemes).startswith("ɪt wʌz nˈaʊ mˈɪd dʒuːlˈaɪ")
    seconds = [soundfile.info(target / f"26-496-000{i}.flac").duration for i in (0, 3)]
    assert [len(dataset.read(i).codes) for i in (0, 1)] == [int(np.ceil(s * 75)) for s in seconds]


def test_tensorflow_datasets_reads_it(unbroken):
    tfds = pytest.importorskip("tensorflow_datasets", reason="the extra `prep` is not installed")
    builder = tfds.builder_from_directory(str(unbroken))
    dataset = Dataset.open(unbroken)
    assert builder.info.splits["data"].num_examples == len(dataset)
    count = 0
    for i, record in enumerate(tfds.as_numpy(builder.as_dataset("data", shuffle_files=False))):
        utterance = dataset.read(i)
        assert record["utterance_id"].decode() == utterance.utterance_id
        assert record["text"].decode() == utterance.text
        assert record["n_frames"] == len(utterance.codes)
        np.testing.assert_array_equal(record["phonemes"], utterance.phonemes)
        codes = np.frombuffer(record["codes"], "<u2").reshape(-1, dataset.info.codec.codebooks)
        np.testing.assert_array_equal(codes, utterance.codes)
        count += 1
    assert count == len(dataset)
    assert os.path.exists(unbroken / "features.json")
