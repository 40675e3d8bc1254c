"""Where audio is cut: pure functions of which frames are speech."""

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from data_prep.transcription.segmentation import Piece, Segmentation, cut
from valle_jax.errors import UserError

SECOND = 100  # frames
SHORT = Segmentation(shortest=4, longest=8)


def speech(*stretches, total=60):
    """Frames of speech in seconds from, to."""
    frames = np.zeros(total * SECOND, bool)
    for start, end in stretches:
        frames[round(start * SECOND) : round(end * SECOND)] = True
    return frames


def pieces(frames, options=SHORT):
    return [(piece.start, piece.end) for piece in cut(frames, 1 / SECOND, options)]


def test_the_longest_pause_that_leaves_a_good_length_is_cut():
    # Pauses at 3 (too early), 5 (0.4 s), 7 (0.3 s).
    frames = speech((1, 3), (3.9, 5), (5.4, 7), (7.3, 12))
    assert pieces(frames) == [(0.85, 5.15), (5.25, 12.15)]


def test_long_pauses_are_always_cut_and_short_stretches_kept():
    assert pieces(speech((1, 2), (5, 6), (6.5, 7))) == [(0.85, 2.15), (4.85, 7.15)]
    assert pieces(speech((0, 3), total=3)) == [(0.0, 3.0)]
    assert pieces(speech()) == []


def test_where_no_pause_leaves_a_good_length():
    # The only pauses come early: the last of them is taken.
    assert pieces(speech((0, 1), (1.2, 2), (2.2, 9.5))) == [(0.0, 2.1), (2.1, 9.65)]
    # None at all: cut in speech, and both pieces are marked.
    found = cut(speech((0, 10), (10.5, 14)), 1 / SECOND, SHORT)
    assert found == [Piece(0.0, 7.7, False), Piece(7.7, 14.15, False)]


@hypothesis.given(st.lists(st.tuples(st.integers(1, 900), st.integers(1, 400)), max_size=40))
@hypothesis.settings(max_examples=60, deadline=None, derandomize=True)
def test_any_speech_is_kept_once_and_no_piece_is_too_long(runs):
    frames = np.concatenate([np.repeat([True, False], run) for run in runs] or [np.zeros(5, bool)])
    found = cut(frames, 1 / SECOND, SHORT)
    covered = np.zeros(len(frames), int)
    for piece in found:
        assert piece.end - piece.start <= SHORT.longest + 1e-9
        covered[round(piece.start * SECOND) : round(piece.end * SECOND)] += 1
    assert (covered[frames] >= 1).all() and covered.max(initial=0) <= 1


def test_lengths_that_make_no_sense():
    for wrong in ({"shortest": 20.0}, {"shortest": 0.5}, {"long_pause": 0.0}, {"aggressiveness": 4}):
        with pytest.raises(UserError, match="--segmentation"):
            Segmentation(**wrong)
