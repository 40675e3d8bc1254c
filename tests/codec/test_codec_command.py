"""`valle codec` on the command line."""

import re

import numpy as np
import pytest
from encodec_models import noise

from valle_jax import cli
from valle_jax.audio import write_audio


@pytest.fixture
def recording(tmp_path):
    """A wav file of 1 s."""
    write_audio(tmp_path / "voice.wav", noise(24_000), 24_000)
    return str(tmp_path / "voice.wav")


def test_there_and_back(tmp_path, recording, capsys):
    codes, out = str(tmp_path / "codes.npy"), str(tmp_path / "out.wav")
    cli.main(["codec", "encode", recording, codes, "--codec", "mel_rvq"])
    assert np.load(codes).shape == (75, 8)
    np.save(tmp_path / "turned.npy", np.load(codes).T)
    for file in (codes, str(tmp_path / "turned.npy")):
        cli.main(["codec", "decode", file, out, "--codec", "mel_rvq"])
    assert capsys.readouterr().out.splitlines()[-1] == f"1.00 s: {out}"


@pytest.mark.parametrize("implementation", ["jax", "torch"])
def test_verify(tmp_path, recording, encodec_weights, capsys, implementation):
    codes = str(tmp_path / "codes.npy")
    cli.main(["codec", "encode", recording, codes, "--weights", encodec_weights])
    np.save(tmp_path / "stored.npy", np.load(codes).T)
    verify = ["codec", "verify", "--weights", encodec_weights, "--implementation", implementation]
    cli.main([*verify, "--audio", recording, "--codes", str(tmp_path / "stored.npy")])
    said = capsys.readouterr().out
    assert "not the official weights" in said
    assert min(float(share.rstrip("%")) for share in said.splitlines()[-1].split(": ")[1].split()) > 95
    np.save(tmp_path / "others.npy", (np.load(codes) + 1) % 1024)
    with pytest.raises(SystemExit, match="1"):
        cli.main([*verify, "--audio", recording, "--codes", str(tmp_path / "others.npy")])
    assert "other weights made them" in capsys.readouterr().err


def test_a_stored_pair_of_the_real_weights_is_not_of_random_ones(shared, encodec_weights, capsys):
    pair = shared / "encodec_codes" / "hello_world"
    arguments = ["--audio", str(pair / "test.wav"), "--codes", str(pair / "test.codes.npy")]
    with pytest.raises(SystemExit, match="1"):
        cli.main(["codec", "verify", "--weights", encodec_weights, *arguments])
    assert "codebook 1 are equal" in capsys.readouterr().err  # 149 frames of each, so they were compared


def test_an_archive_is_no_file_of_codes(tmp_path, capsys):
    np.savez(tmp_path / "x.npz", codes=np.zeros((20, 8), np.int32))
    with pytest.raises(SystemExit, match="2"):
        cli.main(["codec", "decode", str(tmp_path / "x.npz"), str(tmp_path / "x.wav"), "--codec", "mel_rvq"])
    assert "archive of arrays" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((20, 9), np.int32), r"not integers \[T, 8\]"),
        (np.zeros((20, 8)), "holds float64"),
        (np.full((20, 8), 1024), r"outside \[0, 1024\)"),
    ],
)
def test_wrong_codes(tmp_path, capsys, array, message):
    np.save(tmp_path / "x.npy", array)
    with pytest.raises(SystemExit, match="2"):
        cli.main(["codec", "decode", str(tmp_path / "x.npy"), str(tmp_path / "x.wav"), "--codec", "mel_rvq"])
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert re.search(message, error)
