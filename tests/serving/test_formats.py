"""Containers piece by piece."""

import numpy as np

from valle_jax.serving.formats import Encoder, encode


def test_a_flac_in_pieces_is_the_file_but_for_what_its_header_cannot_know():
    samples = 0.3 * np.sin(np.arange(30_000) * 0.05) + 0.01 * np.random.default_rng(0).standard_normal(30_000)
    encoder = Encoder(24_000, "flac")
    pieces = [encoder.append(samples[i : i + 6000], last=i == 24_000) for i in range(0, 30_000, 6000)]
    assert all(len(piece) > 1000 for piece in pieces)
    # STREAMINFO: the sizes of the smallest and the largest frame, the number of samples (36 bits), and an MD5 sum.
    # Zeros mean "unknown" (RFC 9639, section 8.2).
    file = bytearray(encode(samples, 24_000, "flac"))
    file[12:18] = bytes(6)
    file[21] &= 0xF0
    file[22:42] = bytes(20)
    assert b"".join(pieces) == file
