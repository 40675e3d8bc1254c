"""The codec `encodec_24khz` in JAX: the same weights and codes as by the PyTorch package, without PyTorch."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh

from valle_jax.codec.base import CodecInfo
from valle_jax.codec.encodec_files import find
from valle_jax.codec.encodec_weights import convert
from valle_jax.codec.seanet import RATIOS, EncodecNetwork, State
from valle_jax.errors import UserError
from valle_jax.interop import state_file
from valle_jax.parallel.sharding import named_sharding

SAMPLE_RATE = 24_000
HOP = int(np.prod(RATIOS))
BANDWIDTHS_KBPS = (1.5, 3.0, 6.0, 12.0, 24.0)
KBPS_PER_CODEBOOK = 0.75  # 10 bits, 75 times a second
# Padding on the right changes nothing before it, as everything is causal, except that the padding on the left mirrors
# up to six frames: shorter items are coded at their own length.
MIN_FRAMES = 7
_BATCH_SECONDS = 120.0


class EncodecJax:
    """`Codec` over EnCodec's networks in JAX. Make one with `load`.

    An item's codes are those that the package gives for it alone, whatever its batch. Lengths are rounded up to four
    buckets an octave and batches to powers of two, so that few programs are compiled.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        weight_hash: str,
        *,
        bandwidth_kbps: float = 6.0,
        decode_dtype: jnp.dtype = jnp.float32,
        mesh: Mesh | None = None,
    ):
        """Takes parameters of `convert`.

        Args:
          params: with at least as many codebooks as the bandwidth asks for.
          weight_hash: of the file that they come from.
          bandwidth_kbps: one of BANDWIDTHS_KBPS; each codebook takes 0.75.
          decode_dtype: of the decoder's computation; codes are always found in float32.
          mesh: whose `data` and `fsdp` axes share the items of a batch; None: the default device.
        """
        if bandwidth_kbps not in BANDWIDTHS_KBPS:
            raise UserError(f"EnCodec has no bandwidth of {bandwidth_kbps} kbps; it has {BANDWIDTHS_KBPS}")
        count = round(bandwidth_kbps / KBPS_PER_CODEBOOK)
        codebooks = params["quantizer"]["codebooks"][:count]
        params = {**params, "quantizer": {"codebooks": codebooks}}
        graph, state = nnx.split(nnx.eval_shape(lambda: EncodecNetwork(*codebooks.shape[:2])))
        nnx.replace_by_pure_dict(state, params)
        self._mesh = mesh
        self._state = jax.device_put(state, None if mesh is None else named_sharding(mesh, ()))
        self.codebooks = np.asarray(codebooks)
        self.info = CodecInfo(
            name="encodec_24khz",
            sample_rate=SAMPLE_RATE,
            frames_per_second=SAMPLE_RATE / HOP,
            codebooks=count,
            codebook_size=codebooks.shape[1],
            weight_hash=weight_hash,
            parameters={"bandwidth_kbps": bandwidth_kbps},
        )
        self._encode = jax.jit(functools.partial(encode, graph))
        self._decode = jax.jit(functools.partial(decode, graph, decode_dtype))

    @classmethod
    def load(cls, weights: str | None = None, **options: Any) -> EncodecJax:
        """Loads a state dict file that `valle_jax.codec.encodec_files.find` finds; `options` as for `EncodecJax`.

        Raises:
          UserError: the file is of another model, or as for `find`.
        """
        path, weight_hash = find(weights)
        try:
            params = convert(state_file.read(path))
        except ValueError as error:
            raise UserError(f"{path} is not a state dict of EnCodec 24 kHz: {error}") from None
        return cls(params, weight_hash, **options)

    def encode(self, audio: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """`Codec.encode`; items of similar length share a batch."""
        lengths = np.array([-(-len(samples) // HOP) for samples in audio], np.int32)
        codes = np.zeros((len(audio), max(lengths, default=0), self.info.codebooks), np.uint16)
        for items, rows, frames in self._batches(lengths):
            waveforms, samples = np.zeros((rows, frames * HOP), np.float32), np.zeros(rows, np.int32)
            for row, item in enumerate(items):
                samples[row] = len(audio[item])
                waveforms[row, : samples[row]] = audio[item]
            coded = np.asarray(self._encode(self._state, self._place(waveforms), self._place(samples)))
            for item, item_codes in zip(items, coded, strict=False):
                codes[item, : lengths[item]] = item_codes[: lengths[item]]
        return codes, lengths

    def decode(self, codes: np.ndarray, lengths: np.ndarray | None = None) -> list[np.ndarray]:
        """`Codec.decode`; T frames give T * 320 samples. Codes [B, T, q] with q < Q decode the first q levels."""
        codes = np.asarray(codes)
        lengths = np.full(len(codes), codes.shape[1]) if lengths is None else np.asarray(lengths)
        audio = [np.zeros(0, np.float32)] * len(codes)
        for items, rows, frames in self._batches(lengths):
            padded = np.zeros((rows, frames, codes.shape[2]), np.int32)
            for row, item in enumerate(items):
                padded[row, : lengths[item]] = codes[item, : lengths[item]]
            decoded = np.asarray(self._decode(self._state, self._place(padded), None)[0])
            for item, samples in zip(items, decoded, strict=False):
                audio[item] = samples[: lengths[item] * HOP].copy()
        return audio

    def decoder(self) -> tuple[dict[str, jax.Array], Callable[[dict[str, jax.Array], jax.Array], jax.Array]]:
        """Decoding as a pure function of weights by name and codes [B, T, Q], for export; and the weights."""
        leaves, structure = jax.tree_util.tree_flatten_with_path(self._state)
        names = [jax.tree_util.keystr(path) for path, _ in leaves]

        def function(params: dict[str, jax.Array], codes: jax.Array) -> jax.Array:
            return self._decode(jax.tree.unflatten(structure, [params[name] for name in names]), codes, None)[0]

        return dict(zip(names, [leaf for _, leaf in leaves], strict=True)), function

    def stream(self) -> DecodeStream:
        """Decodes chunk by chunk what `decode` would at once."""
        return DecodeStream(functools.partial(self._decode, self._state))

    def _place(self, batch: np.ndarray) -> jax.Array:
        return jax.device_put(batch, None if self._mesh is None else named_sharding(self._mesh, ("batch",)))

    def _batches(self, lengths: np.ndarray) -> Iterator[tuple[list[int], int, int]]:
        """Indices of the items that are not empty, by length, and the rows and frames that their batch is padded to."""
        shards = 1 if self._mesh is None else self._mesh.shape["data"] * self._mesh.shape["fsdp"]
        max_frames = shards * _BATCH_SECONDS * self.info.frames_per_second
        batch: list[int] = []
        frames = 0

        def padded() -> tuple[list[int], int, int]:
            rows = 1 << (len(batch) - 1).bit_length()
            return batch, -(-rows // shards) * shards, frames

        for item in np.argsort(lengths, kind="stable"):
            if lengths[item] == 0:
                continue
            bucket = bucket_frames(int(lengths[item]))
            if batch and (bucket != frames or (len(batch) + 1) * bucket > max_frames):
                yield padded()
                batch = []
            frames = bucket
            batch.append(int(item))
        if batch:
            yield padded()


class DecodeStream:
    """The decoder's state between chunks of codes."""

    def __init__(self, decode: Any):
        self._decode = decode
        self._state: State = None

    def __call__(self, codes: np.ndarray, ahead: np.ndarray | None = None, *, last: bool = False) -> np.ndarray:
        """`CodecStream`; the first chunk has at least MIN_FRAMES frames. Causal: `ahead` is not looked at."""
        frames = codes.shape[1]
        if self._state is None and frames < MIN_FRAMES:
            raise ValueError(f"a stream starts with at least {MIN_FRAMES} frames, not {frames}")
        if last:  # of whatever length: padded, so that few programs are compiled
            codes = np.pad(codes, ((0, 0), (0, bucket_frames(frames) - frames), (0, 0)))
        samples, self._state = self._decode(np.asarray(codes, np.int32), self._state)
        return np.asarray(samples)[:, : frames * HOP]


def bucket_frames(frames: int) -> int:
    """The length that so many frames are padded to: four lengths an octave, none below MIN_FRAMES."""
    if frames < MIN_FRAMES:
        return frames
    step = max(8, 1 << (frames.bit_length() - 3))
    return -(-frames // step) * step


def encode(
    graph: nnx.GraphDef, state: nnx.State, waveform_BT: jax.Array, length_B: jax.Array | None = None
) -> jax.Array:
    """Codes, uint16 [B, T / hop, Q]; of rows that have `length_B` samples, None: all."""
    network: EncodecNetwork = nnx.merge(graph, state)
    # Codes hang on small differences: no chip may round the products of float32 numbers to fewer bits.
    with jax.default_matmul_precision("highest"):
        return network.quantizer.encode(network.encoder(waveform_BT, length_B)).astype(jnp.uint16)


def decode(
    graph: nnx.GraphDef, dtype: jnp.dtype, state: nnx.State, code_BTQ: jax.Array, past: State
) -> tuple[jax.Array, State]:
    """Samples, float32 [B, T * hop], and the state of the decoder behind them."""
    network: EncodecNetwork = nnx.merge(graph, state)
    with jax.default_matmul_precision("highest" if dtype == jnp.float32 else "default"):
        waveform_BT, past = network.decoder(network.quantizer.decode(code_BTQ).astype(dtype), past)
    return waveform_BT.astype(jnp.float32), past
