"""Whether our decoders compute what a PyTorch VALL-E computed: `python -m valle_jax.interop.check FILE.npz`.

The file holds a model's tensors as `state/NAME`, inputs `text` [S], `codes` [T, Q], `prompt_frames`, `language_ids` [S]
(empty where the model has none), `n_heads`, and outputs in evaluation mode: `ar_logits` [positions, V + 1] of the
acoustic positions, teacher forced, begin of audio included where there is one; `ar_greedy` [N], the most probable codes
behind the prompt, end of speech left out; `nar_logits` [Q - 1, T - prompt_frames, V], given the prompt's codes and the
true codebooks below each stage.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import sys
import zipfile
from collections.abc import Sequence

import jax
import numpy as np

from valle_jax.config import ModelConfig
from valle_jax.errors import UserError
from valle_jax.inference.batching import Job, ar_batch, nar_batch
from valle_jax.inference.generate import generate_ar
from valle_jax.inference.sampling import Sampling
from valle_jax.interop import state_file
from valle_jax.interop.layout import Imported, convert
from valle_jax.model import build

TOLERANCE = 2e-4  # of logits: float32 sums in another order, through the layers


@dataclasses.dataclass(frozen=True)
class Agreement:
    """How far we are from the other program.

    Attributes:
      ar_error: largest absolute difference of the AR's logits.
      nar_error: likewise of the NAR's, over all stages.
      greedy_equal: whether the cached sampler draws the same most probable codes.
    """

    ar_error: float
    nar_error: float
    greedy_equal: bool

    @property
    def holds(self) -> bool:
        """Whether logits are within TOLERANCE and the codes are equal."""
        return self.ar_error <= TOLERANCE and self.nar_error <= TOLERANCE and self.greedy_equal


def check(path: str | pathlib.Path) -> Agreement:
    """Compares; UserError where the file is not as the module says."""
    names = ("text", "codes", "prompt_frames", "language_ids", "n_heads", "ar_logits", "ar_greedy", "nar_logits")
    try:
        with open(path, "rb") as stream:
            file = np.lib.npyio.NpzFile(stream)
            given = {name: file[name] for name in names}
        model = convert(state_file.read(path), n_heads=int(given["n_heads"]))
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is no such file: {error}") from None
    languages = given["language_ids"]
    codes, prompt_frames = given["codes"].astype(np.int32), int(given["prompt_frames"])
    steps = len(given["ar_greedy"])
    job = Job(given["text"].astype(np.int32), codes[:prompt_frames], min_frames=steps, max_frames=steps)
    # Sums in float32, as the other program's, on chips too.
    with jax.default_matmul_precision("highest"):
        ar_error = _ar_error(model, dataclasses.replace(job, prompt_codes=codes), languages, given["ar_logits"])
        nar_error = _nar_error(model, job, codes, languages, given["nar_logits"])
        greedy = _greedy(model, job, languages)
    return Agreement(ar_error, nar_error, bool(np.array_equal(greedy, given["ar_greedy"])))


def _with_languages(batch: dict[str, np.ndarray], languages: np.ndarray) -> dict[str, np.ndarray]:
    if len(languages):
        batch["language"][:, : len(languages)] = languages.astype(np.int32)
    return batch


def _float32(config: ModelConfig) -> ModelConfig:
    return dataclasses.replace(config, dtype="float32")


def _ar_error(model: Imported, whole: Job, languages: np.ndarray, expected: np.ndarray) -> float:
    decoder = build(_float32(model.config_ar))
    batch = _with_languages(ar_batch([whole], decoder), languages)
    logits = np.asarray(jax.jit(decoder.logits)(model.params_ar, batch))[0]
    start = len(whole.text)
    return float(np.abs(logits[start : start + len(expected)] - expected).max())


def _nar_error(model: Imported, job: Job, codes: np.ndarray, languages: np.ndarray, expected: np.ndarray) -> float:
    decoder = build(_float32(model.config_nar))
    logits = jax.jit(decoder.logits)
    batch = _with_languages(nar_batch([job], [codes[len(job.prompt_codes) :, 0]], decoder.config), languages)
    where = slice(len(job.text) + len(job.prompt_codes), len(job.text) + len(codes))
    batch["codes"][0, where] = codes[len(job.prompt_codes) :]
    errors = []
    for stage, theirs in enumerate(expected, start=1):
        ours = np.asarray(logits(model.params_nar, batch | {"stage": np.array([stage], np.int32)}))[0, where]
        errors.append(np.abs(ours - theirs).max())
    return float(max(errors))


def _greedy(model: Imported, job: Job, languages: np.ndarray) -> np.ndarray:
    decoder = build(_float32(model.config_ar))
    steps = job.max_frames
    limits = np.array([steps], np.int32)
    batch = _with_languages(ar_batch([job], decoder), languages)
    keys = jax.random.split(jax.random.key(0), 1)
    sampling = Sampling(temperature=0)
    return np.asarray(
        generate_ar(decoder, model.params_ar, batch, keys, limits, limits, sampling=sampling, max_frames=steps).codes[0]
    )


def main(arguments: Sequence[str]) -> int:
    """Prints one line of JSON for each file; 0 if all hold, 1 if not, 2 for a file that cannot be read."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    holds = True
    for path in arguments:
        try:
            agreement = check(path)
        except UserError as error:
            print(f"check: {error}", file=sys.stderr)
            return 2
        holds &= agreement.holds
        print(json.dumps({"file": str(path), **dataclasses.asdict(agreement), "holds": agreement.holds}))
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
