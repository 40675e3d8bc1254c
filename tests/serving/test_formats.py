"""Containers piece by piece."""

import io
import shutil
import subprocess

import numpy as np
import pytest
import soundfile

from valle_jax.serving.formats import Encoder, encode

RATE = 24_000


@pytest.fixture(scope="module")
def samples():
    """1.25 s of a tone in noise."""
    return 0.3 * np.sin(np.arange(30_000) * 0.05) + 0.01 * np.random.default_rng(0).standard_normal(30_000)


@pytest.fixture(scope="module")
def flac_pieces(samples):
    """It as a stream of five pieces."""
    encoder = Encoder(RATE, "flac")
    return [encoder.append(samples[i : i + 6000], last=i == 24_000) for i in range(0, 30_000, 6000)]


def test_a_flac_in_pieces_is_the_file_but_for_what_its_header_cannot_know(samples, flac_pieces):
    assert all(len(piece) > 1000 for piece in flac_pieces)
    # STREAMINFO: the sizes of the smallest and the largest frame, the number of samples (36 bits), and an MD5 sum.
    # Zeros mean "unknown" (RFC 9639, section 8.2).
    file = bytearray(encode(samples, RATE, "flac"))
    file[12:18] = bytes(6)
    file[21] &= 0xF0
    file[22:42] = bytes(20)
    assert b"".join(flac_pieces) == file


@pytest.mark.skipif(not shutil.which("ffmpeg"), reason="there is no ffmpeg: apt-get install ffmpeg")
@pytest.mark.parametrize("pieces", [2, 5])
def test_players_read_a_flac_while_it_grows(samples, flac_pieces, pieces):
    # libsndfile itself reads no flac of unknown length.
    ffmpeg = ["ffmpeg", "-loglevel", "error", "-f", "flac", "-i", "pipe:", "-f", "s16le", "pipe:"]
    heard = subprocess.run(ffmpeg, input=b"".join(flac_pieces[:pieces]), capture_output=True, check=True).stdout
    block = 4096  # libFLAC's at this rate; what does not fill one waits for the next piece, or the last
    whole, _ = soundfile.read(io.BytesIO(encode(samples, RATE, "flac")), dtype="int16")
    np.testing.assert_array_equal(
        np.frombuffer(heard, "<i2"), whole if pieces == 5 else whole[: pieces * 6000 // block * block]
    )
