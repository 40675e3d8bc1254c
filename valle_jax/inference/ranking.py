"""Which of several takes of a text to keep, by what is heard of them.

The measures are those of `valle_jax.evaluation`; they and their models are loaded when they are asked for.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from valle_jax.inference.batching import Job
from valle_jax.inference.request import Audio, Options

if TYPE_CHECKING:
    from valle_jax.evaluation.measures import Similarity, WordErrors

RERANK_SIMILARITY = 0.3  # P2, section 4.1: takes below do not compete for the lowest word error rate


def choose(job: Job, takes: Sequence[Audio], prompt: np.ndarray, options: Options) -> Audio:
    """The best take by `options.rank_by`; takes without problems go first. Its `info` then has the scores.

    Word error rates are of the whole text: where the prompt begins it, the prompt is heard before the take.

    Args:
      job: what was to be said.
      takes: of it.
      prompt: float32 [samples], through the codec: P2's similarity is to that.
      options: how takes are ranked, and by which models.

    Raises:
      UserError: a package is not installed, or weights cannot be had.
    """
    from valle_jax.evaluation.sample import Sample

    def heard(audio: Sequence[np.ndarray]) -> list[Sample]:
        rate, text = takes[0].sample_rate, job.words or ""
        return [Sample("", "", text, samples, rate, prompt_resynthesised=prompt) for samples in audio]

    alone = [take.samples for take in takes]
    if "wer" in options.rank_by:
        whole = [np.concatenate([prompt, samples]) for samples in alone] if job.continues else alone
        for take, words in zip(takes, _words(options.recogniser).measure(heard(whole)), strict=True):
            take.info["wer"] = float(words["word_errors"]) / max(1.0, float(words["words"]))
    if "similarity" in options.rank_by:
        for take, voice in zip(takes, _voices(options.speaker_model).measure(heard(alone)), strict=True):
            take.info["similarity"] = float(voice.get("similarity_prompt_resynthesised", 0.0))

    def order(take: Audio) -> tuple[float, ...]:
        facts = take.info
        return bool(facts["problems"]), *_order(facts.get("wer"), facts.get("similarity")), -facts["log_probability"]

    return min(takes, key=order)


def rerank(word_error_rates: Sequence[float], similarities: Sequence[float]) -> int:
    """The take that P2 keeps of several: the lowest WER among those with SIM above 0.3, else the highest SIM.

    A take without a similarity (NaN: nothing was said) is the last choice.
    """
    known = np.nan_to_num(np.asarray(similarities, float), nan=-1.0)
    return min(range(len(known)), key=lambda i: _order(word_error_rates[i], known[i]))


def _order(word_error_rate: float | None, similarity: float | None) -> tuple[float, ...]:
    """The best take has the lowest; None: that does not count."""
    if similarity is None:
        return (0.0 if word_error_rate is None else word_error_rate,)
    if word_error_rate is None:
        return (-similarity,)
    similar = similarity > RERANK_SIMILARITY
    return not similar, word_error_rate if similar else 0.0, -similarity


@functools.cache
def _words(recogniser: str) -> WordErrors:
    from valle_jax.evaluation.measures import WordErrors
    from valle_jax.hearing.recognition import get_recogniser

    return WordErrors(get_recogniser(recogniser))


@functools.cache
def _voices(speaker_model: str) -> Similarity:
    from valle_jax.evaluation.measures import Similarity
    from valle_jax.hearing.similarity import get_voice

    return Similarity(get_voice(speaker_model))
