"""A model as other programs read it: a state dict of PyTorch, programs of StableHLO."""

import json
import re

import jax
import jax.export
import numpy as np
import pytest
from random_model import save_random_model
from safetensors.numpy import load_file

from valle_jax import cli
from valle_jax.codec import get_codec
from valle_jax.inference.batching import Job, ar_batch, generate, nar_batch
from valle_jax.inference.model_dir import ModelDir, load_model_dir
from valle_jax.inference.sampling import Sampling
from valle_jax.model import build
from valle_jax.text.vocabulary import EOS_ID

LAYOUT = {"activation": "relu", "text_attention": "bidirectional"}


def save_model(path, codec, **switches):
    """A model directory of random decoders with heads of 64."""
    save_random_model(path, codec, d_model=64, n_layers=2, n_heads=1, d_ff=128, **switches)


def job(codebooks):
    random = np.random.default_rng(0)
    text = np.append(random.integers(3, 90, 12), EOS_ID).astype(np.int32)
    return Job(text, random.integers(0, 1024, (10, codebooks)).astype(np.int32), min_frames=6, max_frames=6)


def speak(model: ModelDir):
    """Greedy codes of both decoders."""
    ar, nar = (build(model.config_ar), model.params_ar), (build(model.config_nar), model.params_nar)
    keys = jax.random.split(jax.random.key(0), (1, 1))
    return generate([job(model.codec.codebooks)], ar, nar, keys, Sampling(temperature=0))[0].codes


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize(
    "switches",
    [
        {"position_amplitude": 2.0, "nar_tying": "same"},
        {"position_scale": "learned", "nar_tying": "next", "ar_tied": False, "prepend_bos": True},
        {"norm_position": "post", "nar_tying": "none"},
    ],
    ids=["tied", "untied", "post-norm"],
)
def test_a_state_dict_says_the_same_when_it_is_imported(tmp_path, suffix, switches):
    if suffix == "pt":
        pytest.importorskip("torch")
    save_model(tmp_path / "model", get_codec("mel_rvq").info, **LAYOUT, **switches)
    file = str(tmp_path / f"valle.{suffix}")
    cli.main(["export", "--model", str(tmp_path / "model"), "--format", "torch", "--out", file])
    cli.main(["import-checkpoint", file, "--out", str(tmp_path / "again")])
    first, again = load_model_dir(tmp_path / "model"), load_model_dir(tmp_path / "again")
    np.testing.assert_array_equal(speak(first), speak(again))


@pytest.mark.parametrize(
    ("switches", "arguments", "message"),
    [
        ({}, ["--format", "torch", "--out", "x.pt"], "model.activation=gelu has no place in that layout, only relu"),
        ({}, ["--format", "model", "--out", "x"], "is a model directory already"),
        (LAYOUT | {"group_size": 2}, ["--format", "torch", "--out", "x.pt"], "AR decoder .*model.group_size=2"),
        (
            LAYOUT | {"nar_stage": "token"},
            ["--format", "torch", "--out", "x.pt"],
            "NAR .*model.nar_stage=token",
        ),
        (LAYOUT | {"positions": "rotary"}, ["--format", "torch", "--out", "x.pt"], "model.positions=rotary"),
        ({"group_size": 2}, ["--format", "stablehlo", "--out", "x"], "model.group_size=2 has no place in ar_step"),
    ],
)
def test_what_cannot_be_exported(tmp_path, capsys, switches, arguments, message):
    save_model(tmp_path / "model", get_codec("mel_rvq").info, **switches)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["export", "--model", str(tmp_path / "model"), *arguments])
    assert re.search(message, capsys.readouterr().err)


def test_programs_speak_as_the_sampler_does(tmp_path, encodec_weights):
    from valle_jax.codec.encodec_jax import EncodecJax

    codec = EncodecJax.load(encodec_weights)
    save_model(tmp_path / "model", codec.info, prepend_bos=True)
    arguments = ["--format", "stablehlo", "--prefix-tokens", "64", "--max-frames", "16"]
    out = tmp_path / "programs"
    arguments += ["--codec-weights", encodec_weights]
    cli.main(["export", "--model", str(tmp_path / "model"), "--out", str(out), *arguments])
    manifest = json.loads((out / "programs.json").read_text())
    assert manifest["ar_step"]["inputs"]["[1]"] == "int32[1]" and manifest["nar"]["platforms"] == ["cpu", "cuda", "tpu"]

    def program(name):
        return jax.export.deserialize(bytearray((out / manifest[name]["file"]).read_bytes())).call

    model = load_model_dir(tmp_path / "model")
    expected = speak(model)
    case, weights = job(8), {name: load_file(out / f"{name}.safetensors") for name in ("ar", "nar", "codec")}
    logits, cache = program("ar_prefill")(weights["ar"], ar_batch([case], build(model.config_ar)))
    codes, step = [], program("ar_step")
    for i in range(6):
        codes.append(int(np.asarray(logits)[0, :1024].argmax()))
        position = np.array([1 + len(case.prompt_codes) + i], np.int32)  # behind the begin of audio
        logits, cache = step(weights["ar"], np.array([codes[-1]], np.int32), position, cache)
    np.testing.assert_array_equal(codes, expected[:, 0])

    rows = nar_batch([case], [np.array(codes)], model.config_nar)
    padded = {name: np.pad(x, [(0, 0), (0, 80 - x.shape[1]), *[(0, 0)] * (x.ndim - 2)]) for name, x in rows.items()}
    filled = np.asarray(program("nar")(weights["nar"], padded))[0, case.prefix_length : case.prefix_length + 6]
    np.testing.assert_array_equal(filled, expected)

    padded = np.zeros((1, 16, 8), np.int32)
    padded[0, :6] = filled
    samples = np.asarray(program("codec_decode")(weights["codec"], padded))[0]
    whole = codec.decode(padded)[0]
    np.testing.assert_allclose(samples, whole, atol=1e-6 * np.abs(whole).max())  # the same program, compiled again
