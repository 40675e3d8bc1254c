"""Decoding rules: how the next code is drawn from the logits. Each is a frozen dataclass; they compose in order."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from valle_jax.errors import UserError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How codes are drawn. Hashable: it is a static argument of the compiled sampler.

    Attributes:
      temperature: divides the logits; 0 takes the most probable code.
      top_k: keep the k most probable codes; 0 keeps all.
      top_p: keep the most probable codes that together reach this probability (nucleus sampling); 1 keeps all.
      repetition_window: K of repetition-aware sampling (P2, section 3.3): a drawn code whose share among the last K
        codes exceeds `repetition_threshold` is drawn again from the full distribution; 0 switches it off (P2: 10).
      repetition_threshold: t_r (P2: 0.1).
      guidance: g of classifier-free guidance (Ho and Salimans, 2022): logits become l0 + g (l - l0), where l0 are those
        without the text. Above 1 speech keeps closer to the text; it doubles the work, and needs a decoder that was
        trained with `train.text_dropout`. 1 switches it off.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_window: int = 0
    repetition_threshold: float = 0.1
    guidance: float = 1.0

    def __post_init__(self):
        _require(self.temperature >= 0, f"temperature {self.temperature} must not be negative")
        _require(self.top_k >= 0, f"top_k {self.top_k} must not be negative")
        _require(0 < self.top_p <= 1, f"top_p {self.top_p} must be in (0, 1]")
        _require(self.repetition_window >= 0, f"repetition_window {self.repetition_window} must not be negative")

    @property
    def guided(self) -> bool:
        """Whether every row is decoded twice, with and without its text."""
        return self.guidance != 1.0

    def truncate(self, logits_BV: jax.Array) -> jax.Array:
        """Temperature, then top-k, then top-p: logits [B, V] with the excluded codes at -inf."""
        logits_BV = logits_BV / self.temperature
        V = logits_BV.shape[-1]
        if (self.top_k == 0 or self.top_k >= V) and self.top_p == 1.0:
            return logits_BV
        kept_BK, _ = jax.lax.top_k(logits_BV, min(self.top_k or V, V))
        if self.top_p < 1.0:
            probability_BK = jax.nn.softmax(kept_BK, axis=-1)
            before_BK = jnp.cumsum(probability_BK, axis=-1) - probability_BK  # mass of the codes above each
            kept_BK = jnp.where(before_BK < self.top_p, kept_BK, jnp.inf)  # the most probable code always stays
        lowest_B1 = kept_BK.min(-1, keepdims=True)
        return jnp.where(logits_BV >= lowest_B1, logits_BV, -jnp.inf)

    def draw(self, logits_BV: jax.Array, keys_B: jax.Array, recent_BK: jax.Array) -> jax.Array:
        """Draws one code per row.

        Args:
          logits_BV: float32; forbidden codes at -inf.
          keys_B: one random key per row, so that a row's codes do not depend on its neighbours.
          recent_BK: the last `repetition_window` codes of each row, -1 where there are fewer.

        Returns:
          Codes int32 [B].
        """
        if self.temperature == 0:
            return logits_BV.argmax(-1).astype(jnp.int32)
        categorical = jax.vmap(jax.random.categorical)
        code_B = categorical(keys_B, self.truncate(logits_BV)).astype(jnp.int32)
        if self.repetition_window:
            share_B = (recent_BK == code_B[:, None]).mean(-1)
            again_B = categorical(jax.vmap(jax.random.fold_in, (0, None))(keys_B, 1), logits_BV).astype(jnp.int32)
            code_B = jnp.where(share_B > self.repetition_threshold, again_B, code_B)
        return code_B
