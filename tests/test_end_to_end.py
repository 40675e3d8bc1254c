"""The documented way from speech files to a synthesised wav through the command line, and what mistakes on it get.

The chain runs once, in processes of its own, on a minute or two of espeak's digits with decoders that learn nothing:
what is checked is that each stage reads what the one before it wrote.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from environments import with_devices

import valle_jax
from valle_jax.audio import write_audio
from valle_jax.cli import main
from valle_jax.data.dataset import Dataset
from valle_jax.inference.sampling import Sampling
from valle_jax.inference.synthesizer import Options

pytest.importorskip("phonemizer", reason="the extra `text` is not installed")
pytest.importorskip("espeakng_loader", reason="the extra `text` is not installed")

SMALL = ("d_model=32", "n_layers=1", "n_heads=2", "d_ff=64")
SETTINGS = [f"--set=model.{setting}" for setting in SMALL] + ["--set=train.evaluate_rows=2", "--set=train.log_every=2"]
SETTINGS += ["--mesh=data=1"]  # the tests' own process has eight devices
STEPS = 4
TEXT = "seven two nine"


def _run(module: str, *arguments: str | os.PathLike) -> subprocess.CompletedProcess:
    """A command as a user gives it, on one CPU device."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=with_devices(1))
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done


def _train(folder: pathlib.Path, stage: str, workdir: str) -> list[str]:
    where = [f"--data={folder / 'dataset'}", f"--workdir={folder / workdir}", f"--steps={STEPS}"]
    return ["train", "--preset=tiny", f"--stage={stage}", *where, *SETTINGS]


@pytest.fixture(scope="module")
def chain(tmp_path_factory) -> pathlib.Path:
    """A folder with `corpus`, `dataset`, `ar`, `nar`, `model`, `speech.wav`, and what the verbs printed in *.log."""
    folder = tmp_path_factory.mktemp("chain")
    corpus = folder / "corpus"
    _run("data_prep.synthetic", f"--out={corpus}", "--minutes=0.5", "--voices=4", "--test-utterances=2")
    first = json.loads((corpus / "test" / "manifest.jsonl").read_text().splitlines()[0])
    prompt, prompt_text = corpus / "test" / first["audio"], first["text"]
    shutil.copy(prompt, folder / "prompt.wav")
    (folder / "prompt.txt").write_text(prompt_text)
    for name, command in {
        "prepare": ["prepare", f"--source={corpus / 'train'}", f"--out={folder / 'dataset'}", "--processes=1"],
        "inspect": ["inspect", folder / "dataset", "--verify"],
        "ar": _train(folder, "ar", "ar"),
        "nar": _train(folder, "nar", "nar"),
        "export": ["export", f"--ar={folder / 'ar'}", f"--nar={folder / 'nar'}", f"--out={folder / 'model'}"],
        "synthesize": _synthesize(folder),
    }.items():
        (folder / f"{name}.log").write_text(_run("valle_jax.cli", *command).stdout)
    return folder


def _synthesize(folder: pathlib.Path, **changes: str | os.PathLike) -> list[str]:
    arguments = {
        "model": folder / "model",
        "text": TEXT,
        "prompt": folder / "prompt.wav",
        "prompt-text": (folder / "prompt.txt").read_text(),
        "out": folder / "speech.wav",
        "seed": "5",
    }
    return ["synthesize", *(f"--{name}={value}" for name, value in (arguments | changes).items())]


def test_dataset_holds_the_corpus(chain):
    lines = [json.loads(line) for line in (chain / "corpus" / "train" / "manifest.jsonl").read_text().splitlines()]
    dataset = Dataset.open(chain / "dataset")
    assert len(dataset) == len(lines)
    seconds = sum(soundfile.info(chain / "corpus" / "train" / line["audio"]).duration for line in lines)
    # A recording's last frame is filled up: at most 1/75 s each.
    frames = int(dataset.index.n_frames.sum())
    assert 0 <= frames / 75 - seconds <= len(lines) / 75
    assert f"all {len(lines)} records are intact" in (chain / "inspect.log").read_text()


@pytest.mark.parametrize("stage", ["ar", "nar"])
def test_run_describes_itself(chain, stage):
    metrics = [json.loads(line) for line in (chain / stage / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in metrics if "loss" in line]
    assert [line["step"] for line in metrics if "loss" in line] == [2, 4]
    # Untrained: near the logarithm of 1,024 codes, and of the end of speech.
    assert all(np.isfinite(losses)) and losses[0] < np.log(1025) + 0.5
    config = json.loads((chain / stage / "config.json").read_text())
    assert (config["model"]["stage"], config["model"]["d_model"], config["train"]["steps"]) == (stage, 32, STEPS)
    run = json.loads((chain / stage / "run.json").read_text())
    assert run["datasets"][0]["fingerprint"] == Dataset.open(chain / "dataset").fingerprint


def test_model_directory_is_complete(chain):
    names = {path.name for path in (chain / "model").iterdir()}
    assert names == {
        "config.json",
        "vocabulary.json",
        "codec.json",
        "ar.safetensors",
        "nar.safetensors",
        "model_card.md",
    }


def test_speech_is_readable_and_of_a_plausible_length(chain):
    info = json.loads((chain / "synthesize.log").read_text())
    samples, rate = soundfile.read(chain / "speech.wav")
    assert rate == 24_000 and samples.ndim == 1
    assert len(samples) == info["frames"] * 320
    assert info["seconds"] == pytest.approx(len(samples) / rate)
    assert np.isfinite(samples).all() and np.abs(samples).max() > 1e-3
    # The prompt's rate of speaking sets the limits of the duration, by phonemes; words serve as well within a factor.
    words = len((chain / "prompt.txt").read_text().split())
    expected = soundfile.info(chain / "prompt.wav").duration / words * len(TEXT.split())
    assert 0.3 * expected < info["seconds"] < 3 * expected


def test_python_gives_what_the_command_line_gives(chain):
    tts = valle_jax.load(chain / "model")
    # The command's own decoding rules.
    options = Options(sampling=Sampling(temperature=0.8, top_p=0.95))
    audio = tts.synthesize(
        TEXT, prompt=chain / "prompt.wav", prompt_text=(chain / "prompt.txt").read_text(), seed=5, options=options
    )
    info = json.loads((chain / "synthesize.log").read_text())
    assert audio.info["frames"] == info["frames"] == len(audio.codes)
    assert audio.info["log_probability"] == pytest.approx(info["log_probability"], abs=1e-4)
    written, _ = soundfile.read(chain / "speech.wav", dtype="float32")
    # 16 bits: half a step of rounding. Another code anywhere would change the waveform by far more.
    np.testing.assert_allclose(written, np.clip(audio.samples, -1, 1), atol=1 / 32768)


def test_a_continued_prompt_and_a_bad_take_that_is_named(chain, tmp_path, capsys):
    """A take whose shortest length is its longest never ends by itself."""
    text = (chain / "prompt.txt").read_text() + f" {TEXT} {TEXT}"
    out = tmp_path / "rest.wav"
    prompt, bounds = f"--prompt={chain / 'prompt.wav'}", ["--min-rate-ratio=1.5", "--max-rate-ratio=1.5"]
    arguments = ["synthesize", f"--model={chain / 'model'}", f"--text={text}", prompt, "--continual", f"--out={out}"]
    main([*arguments, *bounds, "--tries=2"])
    printed = capsys.readouterr()
    info = json.loads(printed.out)
    assert info["tries"] == 2 and "no_end_of_speech" in info["problems"]
    assert f"warning: {out} has no_end_of_speech" in printed.err
    assert soundfile.info(out).frames == info["frames"] * 320
    for wrong in ("--prompt-text=one", "--voice=anna"):
        assert "leave out" in _fails_in_one_line([*arguments, wrong], capsys)


def _fails_in_one_line(arguments, capsys, code: int = 2) -> str:
    """The message of a command that must end with the code; not a process, for speed: `main` is all a process runs."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    error = capsys.readouterr().err
    assert stop.value.code == code, error
    assert "Traceback" not in error
    message = error.strip().split("\n")[-1]  # before it, progress
    assert message.startswith(f"valle {arguments[0]}: ")
    return message


def _silence(chain: pathlib.Path) -> pathlib.Path:
    write_audio(chain / "silence.wav", np.zeros(72_000, np.float32), 24_000)
    return chain / "silence.wav"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model": "nowhere"}, "nowhere is not a model directory"),
        ({"prompt": "nowhere.wav"}, r"nowhere\.wav"),
        ({"prompt": _silence}, "silent"),
        ({"text": ""}, "no phonemes"),
        ({"text": "... !"}, "no phonemes"),
        ({"prompt-text": " "}, "no phonemes"),
        ({"prompt-text": "nine " * 400}, "too few of the 1024 tokens"),
        ({"language": "klingon"}, "unknown language 'klingon'"),
        ({"out": "speech.txt"}, r"speech\.txt"),
        ({"out": "no/such/folder/speech.wav"}, "no/such/folder"),
    ],
)
def test_mistakes_in_synthesis(chain, capsys, change, message):
    change = {name: value(chain) if callable(value) else value for name, value in change.items()}
    assert_matches(message, _fails_in_one_line(_synthesize(chain, **change), capsys))


@pytest.mark.parametrize("missing", ["config.json", "codec.json", "nar.safetensors"])
def test_incomplete_model_directory(chain, tmp_path, capsys, missing):
    shutil.copytree(chain / "model", tmp_path / "model")
    (tmp_path / "model" / missing).unlink()
    assert_matches(missing, _fails_in_one_line(_synthesize(chain, model=tmp_path / "model"), capsys))


@pytest.mark.parametrize("damaged", ["config.json", "vocabulary.json", "codec.json", "ar.safetensors"])
def test_damaged_model_directory(chain, tmp_path, capsys, damaged):
    """As a copy that was cut off leaves it."""
    shutil.copytree(chain / "model", tmp_path / "model")
    path = tmp_path / "model" / damaged
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert_matches(damaged, _fails_in_one_line(_synthesize(chain, model=tmp_path / "model"), capsys))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--data=nowhere"], "nowhere"),
        (["--data={chain}/corpus"], "corpus"),
        (["--preset=huge"], "huge"),
        (["--set=model.layers=3"], r"unknown configuration key 'model\.layers'; did you mean 'model\.n_layers'"),
        (["--set=model.n_layers"], "not of the form key=value"),
        (["--set=model.n_heads=5"], "not divisible"),
        (["--mesh=data=4"], "2 rows .* are not divisible by mesh data=4"),
        (["--mesh=data=99"], "99"),
        (["--init-from=nowhere"], "nowhere"),
    ],
)
def test_mistakes_in_training(chain, tmp_path, capsys, change, message):
    changes = dict(argument.format(chain=chain).removeprefix("--").split("=", 1) for argument in change)
    arguments = {
        "preset": "tiny",
        "stage": "ar",
        "data": chain / "dataset",
        "workdir": tmp_path / "new",
        "mesh": "data=1",
    }
    command = ["train", *(f"--{name}={value}" for name, value in (arguments | changes).items())]
    assert_matches(message, _fails_in_one_line(command, capsys))


def test_another_stage_in_the_same_work_directory(chain, capsys):
    assert_matches("model.stage=ar.*nar", _fails_in_one_line(_train(chain, "nar", "ar"), capsys))


def test_exporting_the_wrong_stage(chain, tmp_path, capsys):
    command = ["export", f"--ar={chain / 'nar'}", f"--nar={chain / 'nar'}", f"--out={tmp_path / 'model'}"]
    assert_matches("is a run of the nar stage", _fails_in_one_line(command, capsys))
    assert not (tmp_path / "model").exists()


def test_exporting_nothing(tmp_path, capsys):
    command = ["export", f"--ar={tmp_path}", f"--nar={tmp_path}", f"--out={tmp_path / 'model'}"]
    assert_matches(str(tmp_path), _fails_in_one_line(command, capsys))


@pytest.mark.parametrize(
    ("source", "layout", "message"),
    [
        ("nowhere", "auto", "no such file or folder: nowhere"),
        ("corpus/train", "librispeech", "not of layout librispeech"),
        ("model", "auto", "no known layout"),
    ],
)
def test_mistakes_in_preparation(chain, tmp_path, capsys, source, layout, message):
    path = source if source == "nowhere" else chain / source
    command = ["prepare", f"--source={path}", f"--layout={layout}", f"--out={tmp_path / 'out'}"]
    assert_matches(message, _fails_in_one_line(command, capsys))
    assert not (tmp_path / "out").exists()


def test_damaged_dataset(chain, tmp_path, capsys):
    """Inspection finds a flipped bit and fails; training without the index does not begin."""
    copy = tmp_path / "dataset"
    shutil.copytree(chain / "dataset", copy)
    (shard,) = copy.glob("*.tfrecord")
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert_matches("1 damaged", _fails_in_one_line(["inspect", copy, "--verify"], capsys, code=1))
    next(copy.glob("*.index.npz")).unlink()
    for command in (["inspect", copy], ["train", "--preset=tiny", "--stage=ar", f"--data={copy}", "--workdir=nowhere"]):
        assert_matches("index", _fails_in_one_line(command, capsys))


def assert_matches(pattern: str, message: str) -> None:
    """Like `pytest.raises(match=...)`."""
    assert re.search(pattern, message), message
