"""Audio of a few fixed utterances while a stage trains, for TensorBoard."""

from __future__ import annotations

import os
from collections.abc import Callable

import jax
import numpy as np

from valle_jax.codec import get_codec
from valle_jax.config import Config
from valle_jax.data.dataset import Dataset
from valle_jax.data.info import DatasetInfo
from valle_jax.data.schema import Utterance
from valle_jax.inference.batching import Job, fill_codebooks, sample_first_codebook
from valle_jax.inference.sampling import Sampling
from valle_jax.model import Params, build
from valle_jax.text.vocabulary import EOS_ID

N_UTTERANCES = 3
PROMPT_SECONDS = 3.0
SAMPLING = Sampling(temperature=0.8, top_p=0.95)

Preview = tuple[str, np.ndarray, int]  # name, float32 samples, samples per second


def make_previews(
    dataset_path: str | os.PathLike[str], codec_weights: str | None = None
) -> Callable[[Config, DatasetInfo], Callable]:
    """For `train(make_sampler=...)`: previews of the first held-out utterances that are longer than a prompt.

    The AR stage continues the first 3 s of each and is heard through codebook 1 alone; the NAR stage fills in the other
    codebooks of the true codebook 1.
    """

    def make_sampler(config: Config, info: DatasetInfo) -> Callable[[int, Params], list[Preview]]:
        codec = get_codec(info.codec.name, codec_weights)
        decoder = build(config.model)
        prompt_frames = round(PROMPT_SECONDS * info.codec.frames_per_second)
        utterances = _choose(Dataset.open(dataset_path), prompt_frames)
        jobs = [
            Job(
                np.append(u.phonemes, EOS_ID),
                u.codes[:prompt_frames].astype(np.int32),
                min_frames=0,
                max_frames=2 * (len(u.codes) - prompt_frames),
            )
            for u in utterances
        ]

        def continuations(params: Params) -> list[np.ndarray]:
            """The codebooks that this stage makes, [T, 1] or [T, Q] per utterance."""
            if config.model.stage == "nar":
                return fill_codebooks(jobs, [u.codes[prompt_frames:, 0] for u in utterances], (decoder, params))
            keys = jax.random.split(jax.random.key(0), len(jobs))
            return [take.codes for take in sample_first_codebook(jobs, (decoder, params), keys, SAMPLING)]

        def sample(step: int, params: Params) -> list[Preview]:
            previews: list[Preview] = []
            if not utterances:
                return previews
            for utterance, job, codes in zip(utterances, jobs, continuations(params), strict=True):
                whole = np.concatenate([job.prompt_codes[:, : codes.shape[1]], codes])
                samples = codec.decode(whole[None])[0]
                previews.append((f"{config.model.stage}/{utterance.utterance_id}", samples, info.codec.sample_rate))
            return previews

        return sample

    return make_sampler


def _choose(dataset: Dataset, prompt_frames: int) -> list[Utterance]:
    """Held-out utterances if there are any, in the order of the dataset."""
    for split in ("valid_speaker", "valid_utterance", "train"):
        indices = dataset.indices(split)
        long_enough = indices[dataset.index.n_frames[indices] > prompt_frames][:N_UTTERANCES]
        if len(long_enough):
            return [dataset.read(int(i)) for i in long_enough]
    return []
