"""Recognisers and speaker models of the `transformers` library: the papers' judges, where their weights can be had."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from valle_jax.audio import resample
from valle_jax.errors import UserError
from valle_jax.hearing.recognition import TimedWord

_RATE = 16_000  # of all models here
_MIN_SAMPLES = 1_600  # what the convolutions in front of the encoders need, with room

RECOGNISERS = {
    "hubert-large": "facebook/hubert-large-ls960-ft",  # P1's
    "whisper": "openai/whisper-large-v3",
    "parakeet": "nvidia/parakeet-tdt-0.6b-v2",
}
# P1's is UniSpeech's WavLM-Large with a TDNN, whose checkpoint transformers cannot read; this is Microsoft's smaller
# one of the same kind, so its figures are not P1's.
SPEAKERS = {"wavlm-tdnn": "microsoft/wavlm-base-plus-sv"}

_GENERATING = ("ForConditionalGeneration", "ForRNNT", "ForTDT")  # endings of architectures that write token by token


class TransformersRecogniser:
    """A CTC model, read greedily without a language model, or one that generates text (Whisper, transducers)."""

    def __init__(self, name: str):
        """`name` is a key of `RECOGNISERS`, a model id or a folder.

        Raises:
          UserError: a package is missing, weights cannot be had, or the model is no recogniser.
        """
        import_transformers()
        import transformers

        self.name = name
        source = RECOGNISERS.get(name, name)
        architecture = (_load(transformers.AutoConfig, source).architectures or [""])[0]
        self._generates = architecture.endswith(_GENERATING)
        if not (self._generates or architecture.endswith("ForCTC")):
            raise UserError(f"{source} is {architecture or 'a model of unknown kind'}, not a recogniser of speech")
        self._model = _load(getattr(transformers, architecture), source).eval()
        self._processor = _load(transformers.AutoProcessor, source)

    def transcribe(self, audio: Sequence[np.ndarray], sample_rate: int) -> list[str]:
        """The text heard in each utterance, float32 [samples]; "" for silence.

        One at a time: some of these models (without attention mask) read a padded batch differently.
        """
        return [self._transcribe(_prepare(samples, sample_rate)) for samples in audio]

    def words(self, samples: np.ndarray, sample_rate: int) -> list[TimedWord] | None:
        """The words of an utterance, float32 [samples], and when each is heard; None: this model does not tell.

        CTC models with the tokenizer of wav2vec 2.0 (HuBERT, WavLM, …) do, to one frame of theirs (20 ms); CTC marks a
        word where the model is sure of it, which is inside of it.
        """
        import transformers

        tokenizer = getattr(self._processor, "tokenizer", None)
        if self._generates or not isinstance(tokenizer, transformers.Wav2Vec2CTCTokenizer):
            return None
        samples = _prepare(samples, sample_rate)
        if not samples.any():
            return []
        decoded: Any = tokenizer.decode(self._ids(samples)[0], skip_special_tokens=True, output_word_offsets=True)
        frame = self._model.config.inputs_to_logits_ratio / _RATE
        return [
            (word["word"], word["start_offset"] * frame, word["end_offset"] * frame) for word in decoded.word_offsets
        ]

    def _transcribe(self, samples: np.ndarray) -> str:
        if not samples.any():
            return ""
        return self._processor.batch_decode(self._ids(samples), skip_special_tokens=True)[0].strip()

    def _ids(self, samples: np.ndarray) -> Any:
        """Tokens [1, n] of samples at _RATE: what is generated, or the likeliest of each frame."""
        import torch

        inputs = self._processor(samples, sampling_rate=_RATE, return_tensors="pt")
        with torch.inference_mode():
            if self._generates:
                ids = self._model.generate(**inputs)
                return getattr(ids, "sequences", ids)
            return self._model(**inputs).logits.argmax(-1)


class TransformersSpeaker:
    """x-vectors of a WavLM or wav2vec 2.0 with a TDNN, as speaker verification uses them."""

    standardise = False

    def __init__(self, name: str):
        """`name` is a key of `SPEAKERS`, a model id or a folder.

        Raises:
          UserError: a package is missing, or weights cannot be had.
        """
        import_transformers()
        import transformers

        self.name = name
        source = SPEAKERS.get(name, name)
        self._model: Any = _load(transformers.AutoModelForAudioXVector, source).eval()
        self._extractor = _load(transformers.AutoFeatureExtractor, source)

    def embed(self, audio: Sequence[np.ndarray], sample_rate: int) -> np.ndarray:
        """Unit vectors float32 [n, d] of float [samples] each."""
        import torch

        vectors = []
        for samples in audio:
            inputs = self._extractor(_prepare(samples, sample_rate), sampling_rate=_RATE, return_tensors="pt")
            with torch.inference_mode():
                vectors.append(torch.nn.functional.normalize(self._model(**inputs).embeddings[0], dim=0).numpy())
        return np.stack(vectors)


def import_transformers() -> None:
    """UserError unless transformers and torch can be imported."""
    if "transformers" not in sys.modules:
        try:
            import torchaudio  # noqa: F401
        except (ImportError, OSError):  # of another build than torch; transformers would fail on it, and needs it not
            sys.modules["torchaudio"] = None  # type: ignore[assignment]
    try:
        import torch  # noqa: F401
        import transformers  # noqa: F401
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'valle-jax[eval]'") from None


def _prepare(samples: np.ndarray, sample_rate: int) -> np.ndarray:
    samples = resample(samples, sample_rate, _RATE)
    return np.pad(samples, (0, max(0, _MIN_SAMPLES - len(samples))))


def _load(kind: Any, source: str) -> Any:
    """`kind.from_pretrained(source)`; UserError in one line where it fails."""
    try:
        return kind.from_pretrained(source)
    except (OSError, ValueError, ImportError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(".")
        raise UserError(
            f"cannot load {source}: {reason}; give a folder with the model, or run once with network to fill the cache"
        ) from None
