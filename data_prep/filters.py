"""Which recordings are good enough: each rule is off until it has a number; what it rejects is counted and listed."""

from __future__ import annotations

import dataclasses

import numpy as np

from valle_jax.errors import UserError

SILENT_PEAK = 1e-3  # -60 dBFS: recordings that never get louder are silence
FRAME_SECONDS = 0.02
CLIPPED = 0.999  # of full scale: 16-bit audio that was limited stops a few steps below it
SILENT_DECIBELS = 40.0  # below the loud frames: under the weakest consonants, above the hiss of a room


@dataclasses.dataclass(frozen=True)
class Rejection:
    """Why a recording is not used: a reason that can be counted, and what is known of this recording."""

    reason: str
    detail: str


@dataclasses.dataclass(frozen=True)
class Filters:
    """Quality of recordings; None: not asked for."""

    min_phonemes_per_second: float | None = None
    """Fewer: much silence, or a transcript that lacks words. Read speech has 10 to 16."""
    max_phonemes_per_second: float | None = None
    """More: a transcript with words that are not in the audio."""
    max_clipped: float | None = None
    """Largest share of samples at full scale."""
    max_silence: float | None = None
    """Largest share of 20 ms frames 40 dB or more below the loud ones."""
    min_snr: float | None = None
    """Least signal-to-noise ratio in dB, estimated from the loud and the quiet frames."""
    min_alignment: float | None = None
    """Least score of the transcript's forced alignment (English only): nats per 10 ms of speech that it explains the
    audio worse than phones in any order do, so at most 0."""
    unique_audio: bool = False
    """Keep the first, in the order of the source, of recordings with the same samples."""
    max_speaker_hours: float | None = None
    """Most hours of a speaker; which utterances stay is drawn by a hash of their samples."""

    def __post_init__(self):
        for name in ("max_clipped", "max_silence"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise UserError(f"--filters.{name.replace('_', '-')} is a share in [0, 1]")
        if self.max_speaker_hours is not None and self.max_speaker_hours <= 0:
            raise UserError("--filters.max-speaker-hours must be positive")

    @property
    def need_the_corpus(self) -> bool:
        """Whether some of them can only decide when all recordings are known."""
        return self.unique_audio or self.max_speaker_hours is not None

    def of_audio(self, samples: np.ndarray, sample_rate: int) -> Rejection | None:
        """Judges float [samples], which are not silent."""
        if self.max_clipped is not None and (share := clipped_share(samples)) > self.max_clipped:
            return Rejection("clipped", f"{share:.2%} of the samples, more than {self.max_clipped:.2%}")
        if self.max_silence is None and self.min_snr is None:
            return None
        decibels = frame_decibels(samples, sample_rate)
        if self.max_silence is not None and (share := silent_share(decibels)) > self.max_silence:
            return Rejection("much silence", f"{share:.0%} of the frames, more than {self.max_silence:.0%}")
        if self.min_snr is not None and (snr := estimated_snr(decibels)) < self.min_snr:
            return Rejection("noisy", f"{snr:.1f} dB, less than {self.min_snr:g} dB")
        return None

    def of_text(self, n_phonemes: int, seconds: float) -> Rejection | None:
        """Judges the length of the phonemes, spaces and marks included, beside the audio's."""
        rate = n_phonemes / seconds
        if self.min_phonemes_per_second is not None and rate < self.min_phonemes_per_second:
            return Rejection("too few phonemes", f"{rate:.1f} a second, less than {self.min_phonemes_per_second:g}")
        if self.max_phonemes_per_second is not None and rate > self.max_phonemes_per_second:
            return Rejection("too many phonemes", f"{rate:.1f} a second, more than {self.max_phonemes_per_second:g}")
        return None

    def of_alignment(self, score: float) -> Rejection | None:
        """Judges how well the text explains the audio."""
        if self.min_alignment is not None and score < self.min_alignment:
            return Rejection("text does not fit", f"score {score:.2f}, less than {self.min_alignment:g}")
        return None


def clipped_share(samples: np.ndarray) -> float:
    """Share of samples at full scale that stand beside another one: a lone peak is no clipping."""
    full = np.abs(samples) >= CLIPPED
    return float(np.mean(full & (np.append(full[1:], False) | np.append(False, full[:-1]))))


def frame_decibels(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    """Power of frames of 20 ms in dB of full scale, float64 [frames], at least one."""
    size = min(round(FRAME_SECONDS * sample_rate), len(samples))
    frames = samples[: len(samples) // size * size].reshape(-1, size).astype(np.float64)
    return 10 * np.log10(np.square(frames).mean(axis=1) + 1e-12)


def silent_share(decibels: np.ndarray) -> float:
    """Share of frames SILENT_DECIBELS or more below the loud ones (the 95th percentile)."""
    return float(np.mean(decibels <= np.percentile(decibels, 95) - SILENT_DECIBELS))


def estimated_snr(decibels: np.ndarray) -> float:
    """Signal-to-noise ratio in dB: loud frames (95th percentile of power), less the noise, over quiet ones (10th).

    After NIST's `stnr` (Speech Quality Assurance package), which takes the noise from the lower and speech from the
    upper end of the frames' energies. It needs pauses: speech without any is taken for noise in part.
    """
    noise, loud = 10 ** (np.percentile(decibels, [10, 95]) / 10)
    return float(10 * np.log10(max(loud - noise, 1e-12) / noise))
