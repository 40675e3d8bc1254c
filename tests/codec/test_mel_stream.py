"""`mel_rvq` chunk by chunk: one chunk is the whole; what seams cost; rows; what the frames ahead change."""

import numpy as np
import pytest

from valle_jax.codec.mel_rvq import HOP, log_mel, mel_to_magnitude


@pytest.fixture(scope="module")
def codes(codec, babble):
    """Of 4 s, [1, 300, 8]."""
    return codec.encode([babble])[0]


def test_one_chunk_is_the_whole(codec, codes):
    np.testing.assert_array_equal(codec.stream()(codes, last=True)[0], codec.decode(codes)[0])
    assert codec.stream()(codes[:, :0]).shape == (1, 0)


def test_seams_are_much_nearer_to_the_whole_than_to_chunks_decoded_apart(codec, codes):
    """By the distance of the log-mel frames at the seams to the coded ones; on speech it is about a fifth larger."""
    stream, parts = codec.stream(), []
    for start in range(0, 300, 25):
        parts.append(stream(codes[:, start : start + 25], codes[:, start + 25 : start + 31])[0])
        assert len(parts[-1]) == 25 * HOP
    coded = codec.dequantize(codes[0])
    distance = [np.sqrt(np.square(log_mel(x) - coded).mean(1)) for x in (np.concatenate(parts), codec.decode(codes)[0])]
    seams = [i for start in range(25, 300, 25) for i in range(start - 2, start + 2)]
    streamed, whole = (d[seams].mean() for d in distance)
    apart = np.concatenate([codec.decode(codes[:, start : start + 25])[0] for start in range(0, 300, 25)])
    assert streamed - whole < 0.3 * (np.sqrt(np.square(log_mel(apart) - coded).mean(1))[seams].mean() - whole)


def test_rows_and_what_is_ahead(codec, codes):
    """Rows are decoded as if alone; only the last 2 frames of a chunk sound of what is ahead of it, but for phases."""
    a, b = codec.stream(), codec.stream()
    two = np.concatenate([codes[:, :40], codes[:, 100:140]])
    for start, end in ((0, 20), (20, 40)):
        np.testing.assert_array_equal(a(two[:, start:end])[1], b(two[1:, start:end])[0])
    silence, loud = np.zeros((1, 6, 8), int), codes[:, 100:106]
    first, second = (codec.stream()(codes[:, :40], ahead)[0] for ahead in (silence, loud))
    levels = [mel_to_magnitude(log_mel(x)).sum(1) for x in (first, second)]
    np.testing.assert_allclose(levels[0][:36], levels[1][:36], rtol=0.35)
