"""Reading, writing and resampling of waveforms."""

import numpy as np
import pytest
import soundfile

from valle_jax.audio import read_audio, resample, write_audio
from valle_jax.errors import UserError


def tone(seconds: float, rate: int, hertz: float = 440.0) -> np.ndarray:
    return (0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


@pytest.mark.parametrize(("suffix", "tolerance"), [(".wav", 2**-15), (".flac", 2**-15), (".ogg", 0.03)])
def test_written_audio_reads_back(tmp_path, suffix, tolerance):
    """16 bits round by at most one step; Vorbis is lossy."""
    samples = tone(0.5, 24_000)
    write_audio(tmp_path / f"tone{suffix}", samples, 24_000)
    read = read_audio(tmp_path / f"tone{suffix}", 24_000)
    assert read.dtype == np.float32
    assert np.abs(read - samples).max() <= tolerance


def test_channels_are_averaged_and_the_rate_is_changed(tmp_path):
    left, right = tone(1, 16_000, 300), tone(1, 16_000, 1000)
    soundfile.write(tmp_path / "stereo.wav", np.stack([left, right], axis=1), 16_000, subtype="FLOAT")
    read = read_audio(tmp_path / "stereo.wav", 24_000)
    expected = (tone(1, 24_000, 300) + tone(1, 24_000, 1000)) / 2
    assert read.shape == (24_000,)
    # The resampler's filter rings at the ends; inside it is far below 16 bits.
    np.testing.assert_allclose(read[1000:-1000], expected[1000:-1000], atol=1e-4)


def test_resample_keeps_an_array_of_the_right_rate():
    samples = tone(0.1, 24_000)
    assert resample(samples, 24_000, 24_000) is samples
    assert resample(np.zeros(0), 16_000, 24_000).shape == (0,)
    assert resample(samples.astype(np.float64), 24_000, 16_000).dtype == np.float32


def test_clipped_when_written(tmp_path):
    write_audio(tmp_path / "loud.wav", np.array([2.0, -2.0, 0.0]), 24_000)
    np.testing.assert_allclose(read_audio(tmp_path / "loud.wav", 24_000), [1, -1, 0], atol=2**-15)


@pytest.mark.parametrize("content", [b"", b"not audio at all" * 100])
def test_unreadable_file_is_a_one_line_error(tmp_path, content):
    (tmp_path / "bad.wav").write_bytes(content)
    with pytest.raises(UserError, match=r"cannot read audio .*bad\.wav: \S") as error:
        read_audio(tmp_path / "bad.wav", 24_000)
    assert "\n" not in str(error.value)


def test_missing_file_and_unknown_suffix(tmp_path):
    with pytest.raises(UserError, match=r"missing\.wav: no such file"):
        read_audio(tmp_path / "missing.wav", 24_000)
    with pytest.raises(UserError, match=r"\.wav, \.flac, \.ogg"):
        write_audio(tmp_path / "speech.xyz", np.zeros(10), 24_000)
    with pytest.raises(UserError, match="cannot write"):
        write_audio(tmp_path / "no_such_folder" / "speech.wav", np.zeros(10), 24_000)


def test_non_finite_samples_are_rejected(tmp_path):
    soundfile.write(tmp_path / "nan.wav", np.array([0.0, np.nan, 0.1]), 24_000, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN"):
        read_audio(tmp_path / "nan.wav", 24_000)
