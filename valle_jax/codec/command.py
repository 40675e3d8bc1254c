"""The verb `valle codec`: verify, encode, decode."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Annotated, Literal

import numpy as np
import tyro

from valle_jax.audio import check_writable, read_audio, write_audio
from valle_jax.codec import CODECS, get_codec
from valle_jax.codec.base import Codec
from valle_jax.codec.encodec_files import HUB_HASH, find
from valle_jax.errors import UserError, WorkError

# Of codebook 1, where an agreement by chance is one in a thousand. Resamplers differ, so equal weights need not give
# equal codes.
MIN_AGREEMENT = 0.5


@dataclasses.dataclass(frozen=True)
class Verify:
    """Check EnCodec's weights: their hash, and, given a recording and its codes, what they make of it.

    Example: valle codec verify --audio test.wav --codes test.codes.npy
    """

    weights: str | None = None
    """File of the weights; default: the official ones, fetched if they are not in torch.hub's cache."""
    audio: str | None = None
    """Recording that codes are known of."""
    codes: str | None = None
    """Its codes, .npy [Q, T] or [T, Q]."""
    implementation: Literal["jax", "torch"] = "jax"
    """Which of the two computes them."""

    def run(self) -> None:
        """Prints what was found; WorkError where the codes are of other weights."""
        if (self.audio is None) != (self.codes is None):
            raise UserError("--audio and --codes go together")
        path, weight_hash = find(self.weights)
        official = "the official weights" if weight_hash.startswith(HUB_HASH) else "not the official weights"
        codec = get_codec("encodec_24khz", str(path), implementation=self.implementation)
        print(f"{path}: SHA-256 {weight_hash}…, {official}; EnCodec 24 kHz by {self.implementation}")
        if self.audio is None or self.codes is None:
            return
        expected = read_codes(self.codes, codec)
        found = codec.encode([read_audio(self.audio, codec.info.sample_rate)])[0][0]
        frames = min(len(found), len(expected))
        if not frames or abs(len(found) - len(expected)) > 1:
            raise WorkError(f"{self.audio} has {len(found)} frames, {self.codes} has {len(expected)}")
        same = (found[:frames] == expected[:frames]).mean(0)
        print("equal codes by codebook: " + " ".join(f"{share:.1%}" for share in same))
        if same[0] < MIN_AGREEMENT:
            raise WorkError(
                f"{same[0]:.1%} of the codes of codebook 1 are equal, at least {MIN_AGREEMENT:.0%} must be: "
                "other weights made them"
            )


@dataclasses.dataclass(frozen=True)
class Encode:
    """Audio to codes.

    Example: valle codec encode speech.wav codes.npy --codec mel_rvq
    """

    audio: tyro.conf.Positional[str]
    """Audio file."""
    out: tyro.conf.Positional[str]
    """.npy file to write, uint16 [T, Q]."""
    codec: Literal[CODECS] = "encodec_24khz"  # type: ignore[valid-type]  # the choices are a constant
    """Codec."""
    weights: str | None = None
    """File that replaces its default weights."""

    def run(self) -> None:
        """Encodes and says how many frames there are."""
        if not pathlib.Path(self.out).absolute().parent.is_dir() or not self.out.endswith(".npy"):
            raise UserError(f"cannot write codes {self.out}: the suffix must be .npy and the folder must be there")
        codec = get_codec(self.codec, self.weights)
        codes = codec.encode([read_audio(self.audio, codec.info.sample_rate)])[0][0]
        np.save(self.out, codes)
        print(f"{len(codes)} frames of {codec.info.codebooks} codebooks: {self.out}")


@dataclasses.dataclass(frozen=True)
class Decode:
    """Codes to audio.

    Example: valle codec decode codes.npy speech.wav --codec mel_rvq
    """

    codes: tyro.conf.Positional[str]
    """.npy file [T, Q] or [Q, T]; fewer codebooks than the codec has are enough."""
    out: tyro.conf.Positional[str]
    """Audio file to write (.wav, .flac or .ogg)."""
    codec: Literal[CODECS] = "encodec_24khz"  # type: ignore[valid-type]  # the choices are a constant
    """Codec."""
    weights: str | None = None
    """File that replaces its default weights."""

    def run(self) -> None:
        """Decodes and says how long the audio is."""
        check_writable(self.out)
        codec = get_codec(self.codec, self.weights)
        samples = codec.decode(read_codes(self.codes, codec)[None])[0]
        write_audio(self.out, samples, codec.info.sample_rate)
        print(f"{len(samples) / codec.info.sample_rate:.2f} s: {self.out}")


@tyro.conf.configure(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes)
@dataclasses.dataclass(frozen=True)
class CodecCommand:
    """Work with a codec alone.

    Example: valle codec encode speech.wav codes.npy --codec mel_rvq
    """

    action: (
        Annotated[Verify, tyro.conf.subcommand("verify")]
        | Annotated[Encode, tyro.conf.subcommand("encode")]
        | Annotated[Decode, tyro.conf.subcommand("decode")]
    )
    """What to do."""

    def run(self) -> None:
        """Runs the action."""
        self.action.run()


def read_codes(path: str, codec: Codec) -> np.ndarray:
    """Codes int32 [T, Q] of a .npy file in either order of axes.

    Raises:
      UserError: unreadable, not two axes, more codebooks than the codec has, or codes that it does not know.
    """
    try:
        codes = np.load(pathlib.Path(path), allow_pickle=False)
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read codes {path}: {error}") from None
    if not isinstance(codes, np.ndarray):
        raise UserError(f"{path} is an archive of arrays; give a .npy file of one")
    if codes.ndim == 2 and codes.shape[0] <= codec.info.codebooks < codes.shape[1]:
        codes = codes.T
    if codes.ndim != 2 or not 0 < codes.shape[1] <= codec.info.codebooks or not np.issubdtype(codes.dtype, np.integer):
        raise UserError(f"{path} holds {codes.dtype} {list(codes.shape)}, not integers [T, {codec.info.codebooks}]")
    if codes.size and (codes.min() < 0 or codes.max() >= codec.info.codebook_size):
        raise UserError(f"{path} has codes outside [0, {codec.info.codebook_size})")
    return codes.astype(np.int32)
