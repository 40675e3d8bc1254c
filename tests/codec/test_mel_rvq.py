"""The embedded codec: shapes, independence of the batch, silence, fidelity, damaged weights."""

import itertools

import numpy as np
import pytest

from valle_jax.audio import read_audio
from valle_jax.codec import mel_rvq as mel
from valle_jax.codec.mel_rvq import MelRVQ
from valle_jax.errors import UserError


@pytest.mark.parametrize("n_samples", [0, 1, 319, 320, 321, 1279, 1280, 1281, 24_000, 24_001, 33_333])
def test_frames_are_the_samples_by_320_rounded_up(codec, babble, n_samples):
    codes, lengths = codec.encode([babble[:n_samples]])
    n_frames = -(-n_samples // 320)
    assert lengths.dtype == np.int32 and lengths.tolist() == [n_frames]
    assert codes.shape == (1, n_frames, 8) and codes.dtype == np.uint16
    assert codec.log_mel(babble[:n_samples]).shape == (n_frames, mel.N_MELS)
    (audio,) = codec.decode(codes)
    assert audio.shape == (n_frames * 320,) and audio.dtype == np.float32
    assert np.isfinite(audio).all()


def test_an_item_does_not_depend_on_its_batch(codec, babble):
    """Bit for bit, in both directions: a dataset must not change with how its work was divided."""
    items = [babble[:50_000], babble[20_000:30_001], babble[:1], babble]
    codes, lengths = codec.encode(items)
    audio = codec.decode(codes, lengths)
    assert codes.shape == (4, 300, 8) and codes.max() < codec.info.codebook_size
    for item, row, length, samples in zip(items, codes, lengths, audio, strict=True):
        alone, _ = codec.encode([item])
        np.testing.assert_array_equal(row[:length], alone[0])
        assert not row[length:].any()
        np.testing.assert_array_equal(samples, codec.decode(alone)[0])
    assert len(np.unique(codes[3, :, 0])) > 10  # the comparison is about something


def test_empty_batch(codec):
    codes, lengths = codec.encode([])
    assert codes.shape == (0, 0, 8) and lengths.shape == (0,)
    assert codec.decode(codes, lengths) == []


@pytest.mark.parametrize("amplitude", [0, 2**-15])
def test_silence_is_code_zero_with_and_without_dither(codec, amplitude):
    """The dither of a 16-bit file must not make the codes of digital silence flicker, on any level."""
    silence = amplitude * np.random.default_rng(0).uniform(-1, 1, 48_000).astype(np.float32)
    codes, _ = codec.encode([silence])
    assert not codes.any()
    assert np.abs(codec.decode(codes)[0]).max() < 1e-3


def test_frames_are_centred_on_their_samples(codec):
    """A click in the middle of frame 10's 320 samples is loudest in frame 10."""
    click = np.zeros(24_000, np.float32)
    click[10 * 320 + 160] = 1
    assert codec.log_mel(click).sum(axis=1).argmax() == 10


def test_blocks_of_analysis_do_not_show(monkeypatch, babble):
    whole = mel.log_mel(babble)
    monkeypatch.setattr(mel, "_BLOCK_FRAMES", 64)
    # Products of other shapes may round differently; features are of the order of 1.
    np.testing.assert_allclose(mel.log_mel(babble), whole, atol=1e-5)


def test_cheapest_path_is_the_cheapest_of_all_paths():
    rng = np.random.default_rng(0)
    costs = rng.uniform(size=(5, 4)).astype(np.float32)
    for switch_cost in (0, 0.2, 10):

        def total(path, switch_cost=switch_cost):
            changes = sum(a != b for a, b in itertools.pairwise(path))
            return sum(costs[t, k] for t, k in enumerate(path)) + switch_cost * changes

        best = min(itertools.product(range(4), repeat=5), key=total)
        assert tuple(mel.cheapest_path(costs, switch_cost)) == best


def test_every_level_brings_the_frames_closer(codec, speech):
    """On speakers that the codebooks were not fitted on: within 0.3 nepers (2.6 dB) rms; measured are 0.25."""
    audio = read_audio(sorted((speech / "LibriSpeech" / "test-other").rglob("*.flac"))[0], 24_000)
    frames = codec.log_mel(audio)
    codes = codec.encode([audio])[0][0]
    errors = [np.square(codec.dequantize(codes[:, :q]) - frames).mean() for q in range(9)]
    assert all(later < earlier for earlier, later in itertools.pairwise(errors))
    assert errors[8] < 0.3**2


def test_decoded_speech_sounds_like_its_frames(codec, speech):
    """Analysed again, decoded speech has the mel frames that it was decoded from.

    Griffin-Lim is not exact: 0.15 nepers (1.3 dB) on average is twice what is measured; the frames' own spread is 1.3.
    """
    audio = read_audio(sorted((speech / "LibriSpeech" / "test-other").rglob("*.flac"))[0], 24_000)[:96_000]
    codes, _ = codec.encode([audio])
    again = codec.log_mel(codec.decode(codes)[0])
    assert np.abs(again - codec.dequantize(codes[0])).mean() < 0.15


def test_hash_follows_the_weights(codec, tmp_path):
    assert MelRVQ.load().info == codec.info
    books = codec.codebooks.astype(np.float16)
    for name, change in [("same", 0), ("other", 1)]:
        books[1, 1, 1] += change
        path = tmp_path / f"{name}.npz"
        np.savez(path, codebooks=books, projection=codec.projection, switch_cost=np.float32(codec.switch_cost))
        other = MelRVQ.load(str(path))
        assert (other.info.weight_hash == codec.info.weight_hash) == (name == "same")
    with pytest.raises(UserError, match="prepare both with one codec"):
        codec.info.check_same(other.info, "the model", "the dataset")


def test_damaged_weights_are_a_one_line_error(codec, tmp_path):
    good = tmp_path / "good.npz"
    np.savez(good, codebooks=codec.codebooks, projection=codec.projection, switch_cost=codec.switch_cost)
    content = good.read_bytes()
    flipped = bytearray(content)
    flipped[len(content) // 2] ^= 0xFF
    broken = {"cut": content[: len(content) // 2], "flipped": bytes(flipped), "text": b"hello", "empty": b""}
    for name, damaged in broken.items():
        path = tmp_path / f"{name}.npz"
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{name}.npz is not a mel_rvq weight file") as error:
            MelRVQ.load(str(path))
        assert "\n" not in str(error.value)
    np.savez(tmp_path / "else.npz", weights=np.zeros(3))
    with pytest.raises(UserError, match="not a mel_rvq weight file"):
        MelRVQ.load(str(tmp_path / "else.npz"))
    with pytest.raises(UserError, match="cannot read"):
        MelRVQ.load(str(tmp_path / "missing.npz"))
