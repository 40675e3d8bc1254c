"""The codec `encodec_24khz`: EnCodec (arXiv 2210.13438) by its PyTorch package, as in VALL-E, section 4.1 (6 kbps)."""

from __future__ import annotations

import importlib
import sys
import types
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from valle_jax.codec.base import CodecInfo
from valle_jax.codec.encodec_files import find
from valle_jax.errors import UserError

SAMPLE_RATE = 24_000
HOP = 320
BANDWIDTH_KBPS = 6.0  # 8 codebooks of 1024 at 75 frames/s
# Padding on the right changes nothing before it, because the convolutions and the LSTM are causal, except that the
# convolutions' padding on the left mirrors up to six frames: shorter items are coded alone.
_PADDABLE_FRAMES = 7


class EncodecTorch:
    """`Codec` over EnCodec's PyTorch implementation. Make one with `load`.

    An item's codes are those that the package gives for it alone, whatever its batch. In a batch of several items
    rounding may differ in the last bit, as in any batched convolution.
    """

    def __init__(self, model: Any, weight_hash: str, device: str, batch_seconds: float | None = None):
        """Args: an EncodecModel, its hash, a torch device, and the audio that one batch may hold, padding included.

        Without `batch_seconds` items go one by one on a CPU, where batches gain nothing, and by 120 s elsewhere.
        """
        self._model = model.to(device).eval()
        self._model.set_target_bandwidth(BANDWIDTH_KBPS)
        self._device = device
        seconds = batch_seconds if batch_seconds is not None else (0 if device == "cpu" else 120)
        self._batch_frames = int(seconds * SAMPLE_RATE / HOP)
        self.info = CodecInfo(
            name="encodec_24khz",
            sample_rate=SAMPLE_RATE,
            frames_per_second=SAMPLE_RATE / HOP,
            codebooks=model.quantizer.get_num_quantizers_for_bandwidth(model.frame_rate, BANDWIDTH_KBPS),
            codebook_size=model.quantizer.bins,
            weight_hash=weight_hash,
            parameters={"bandwidth_kbps": BANDWIDTH_KBPS},
        )

    @classmethod
    def load(
        cls, weights: str | None = None, device: str | None = None, batch_seconds: float | None = None
    ) -> EncodecTorch:
        """Loads a state dict file that `valle_jax.codec.encodec_files.find` finds.

        `device` is torch's; None: CUDA where there is one.

        Raises:
          UserError: torch or encodec missing, the file of another model, or as for `find`.
        """
        torch, encodec = import_encodec()
        path, weight_hash = find(weights)
        model = encodec.EncodecModel.encodec_model_24khz(pretrained=False)
        try:
            model.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except Exception as error:  # torch.load has no common error for damaged files
            raise UserError(f"{path} is not a state dict of EnCodec 24 kHz: {_one_line(error)}") from None
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        return cls(model, weight_hash, device, batch_seconds)

    @property
    def codebooks(self) -> np.ndarray:
        """`Codec.codebooks`, K = 128."""
        layers = self._model.quantizer.vq.layers[: self.info.codebooks]
        return np.stack([layer.codebook.detach().cpu().numpy() for layer in layers])

    def encode(self, audio: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """`Codec.encode`; items of similar length share a batch."""
        import torch

        lengths = np.array([-(-len(samples) // HOP) for samples in audio], np.int32)
        codes = np.zeros((len(audio), max(lengths, default=0), self.info.codebooks), np.uint16)
        for batch in self._batches(lengths):
            samples = torch.tensor([len(audio[item]) for item in batch], device=self._device)
            waveforms = np.zeros((len(batch), 1, int(samples.max())), np.float32)
            for row, item in enumerate(batch):
                waveforms[row, 0, : len(audio[item])] = audio[item]
            with torch.inference_mode():
                x = torch.from_numpy(waveforms).to(self._device)
                if len(batch) == 1:
                    ((coded, _),) = self._model.encode(x)
                else:
                    coded = self._encode_batch(x, samples)
            for item, item_codes in zip(batch, coded.cpu().numpy(), strict=True):
                codes[item, : lengths[item]] = item_codes.T[: lengths[item]]
        return codes, lengths

    def _encode_batch(self, x_BCT: Any, length_B: Any) -> Any:
        """Codes [B, Q, frames] of waveforms, in whose rows a layer sees behind their length what it would see alone."""
        for layer in self._model.encoder.model:
            stride = layer.conv.conv.stride[0] if hasattr(layer, "conv") else 1
            if stride > 1:
                x_BCT, length_B = _mirror_end(x_BCT, length_B, stride), -(-length_B // stride)
            x_BCT = layer(x_BCT)
        codes_QBT = self._model.quantizer.encode(x_BCT, self._model.frame_rate, BANDWIDTH_KBPS)
        return codes_QBT.transpose(0, 1)

    def decode(self, codes: np.ndarray, lengths: np.ndarray | None = None) -> list[np.ndarray]:
        """`Codec.decode`; T frames give T * 320 samples. Codes [B, T, q] with q < Q decode the first q levels."""
        import torch

        codes = np.asarray(codes)
        lengths = np.full(len(codes), codes.shape[1]) if lengths is None else np.asarray(lengths)
        audio = [np.zeros(0, np.float32)] * len(codes)
        for batch in self._batches(lengths):
            padded = codes[batch, : max(lengths[batch])].astype(np.int64).swapaxes(1, 2)
            with torch.inference_mode():
                decoded = self._model.decode([(torch.from_numpy(padded).to(self._device), None)])
            for item, samples in zip(batch, decoded.cpu().numpy(), strict=True):
                audio[item] = samples[0, : lengths[item] * HOP].copy()
        return audio

    def _batches(self, lengths: np.ndarray) -> Iterable[list[int]]:
        """Indices of the items that are not empty, by length; a batch, padded to its longest item, is within bounds."""
        batch: list[int] = []
        for item in np.argsort(lengths, kind="stable"):
            if lengths[item] == 0:
                continue
            alone = batch and lengths[batch[0]] < _PADDABLE_FRAMES
            if batch and (alone or (len(batch) + 1) * lengths[item] > self._batch_frames):
                yield batch
                batch = []
            batch.append(int(item))
        if batch:
            yield batch


def _mirror_end(x_BCT: Any, length_B: Any, stride: int) -> Any:
    """Rows completed to a whole stride by their mirror image, as the package does with one whose length that is."""
    import torch

    time = torch.arange(-(-x_BCT.shape[2] // stride) * stride, device=x_BCT.device)[None]
    source = torch.where(time < length_B[:, None], time, (2 * (length_B[:, None] - 1) - time).clamp(min=0))
    return torch.gather(x_BCT, 2, source[:, None].expand(-1, x_BCT.shape[1], -1))


def import_encodec() -> tuple[types.ModuleType, types.ModuleType]:
    """The modules torch and encodec.

    encodec imports torchaudio only to resample and save files, which is not done here; the registry's torchaudio is
    built for CUDA and fails to load beside a CPU-only torch. An empty module takes its place while encodec is imported,
    and leaves it afterwards, so that nobody else meets it.
    """
    try:
        torch = importlib.import_module("torch")
    except ImportError as error:
        raise UserError(f"encodec_24khz needs torch ({_one_line(error)}); pip install 'valle-jax[prep]'") from None
    stand_in = None
    try:
        importlib.import_module("torchaudio")
    except (ImportError, OSError, RuntimeError, AttributeError):  # what a missing or mismatched build raises
        stand_in = sys.modules["torchaudio"] = types.ModuleType("torchaudio")
    try:
        return torch, importlib.import_module("encodec")
    except ImportError as error:
        raise UserError(f"encodec_24khz needs encodec ({_one_line(error)}); pip install 'valle-jax[prep]'") from None
    finally:
        if stand_in is not None:
            del sys.modules["torchaudio"]


def _one_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)[:200]
