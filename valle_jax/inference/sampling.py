"""Decoding rules: how the next code is drawn from the logits. `Sampling` composes small frozen dataclasses.

A rule maps logits [B, V] to logits [B, V] with what it excludes at -inf, and leaves at least one code in every row. The
last of the V is the end of speech.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from valle_jax.errors import UserError


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


class Rule(Protocol):
    """Logits to logits; hashable, because it is part of a compiled program."""

    def __call__(self, logits_BV: jax.Array) -> jax.Array:
        """The same shape; what is excluded at -inf."""


@dataclasses.dataclass(frozen=True)
class Bias:
    """Adds to the logits of single codes."""

    pairs: tuple[tuple[int, float], ...]

    def __post_init__(self):
        codes = [code for code, _ in self.pairs]
        _require(len(set(codes)) == len(codes), f"logit_bias {self.pairs} names a code twice")
        # Finite, so that they cannot exclude all codes together; -1e9 excludes a code as long as there is another.
        _require(all(abs(bias) <= 1e9 for _, bias in self.pairs), f"logit_bias {self.pairs} must be in -1e9 to 1e9")

    def __call__(self, logits_BV: jax.Array) -> jax.Array:
        """UserError for a code that there is not."""
        V = logits_BV.shape[-1]
        added_V = np.zeros(V, np.float32)
        for code, bias in self.pairs:
            _require(-1 <= code < V - 1, f"logit_bias: code {code} is not in -1 to {V - 2}")
            added_V[code] = bias
        return logits_BV + added_V[None] if self.pairs else logits_BV


@dataclasses.dataclass(frozen=True)
class Temperature:
    """Divides the logits; 0 is the limit, which leaves the most probable code."""

    temperature: float

    def __post_init__(self):
        _require(0 <= self.temperature < math.inf, f"temperature {self.temperature} must not be negative")

    def __call__(self, logits_BV: jax.Array) -> jax.Array:
        """Scaled, or only the most probable."""
        return logits_BV / self.temperature if self.temperature else TopK(1)(logits_BV)


@dataclasses.dataclass(frozen=True)
class TopK:
    """Keeps the k most probable codes, and those as probable as the last of them."""

    k: int

    def __post_init__(self):
        _require(self.k >= 0, f"top_k {self.k} must not be negative")

    def __call__(self, logits_BV: jax.Array) -> jax.Array:
        """All where k is 0 or there are no more than k."""
        if not 0 < self.k < logits_BV.shape[-1]:
            return logits_BV
        return _most_probable(logits_BV, jnp.ones_like(logits_BV), self.k)


@dataclasses.dataclass(frozen=True)
class TopP:
    """Nucleus sampling (Holtzman et al., 2020): keeps the most probable codes that together reach p."""

    p: float

    def __post_init__(self):
        _require(0 < self.p <= 1, f"top_p {self.p} must be in (0, 1]")

    def __call__(self, logits_BV: jax.Array) -> jax.Array:
        """The most probable code always stays."""
        if self.p == 1:
            return logits_BV
        return _most_probable(logits_BV, jax.nn.softmax(logits_BV, axis=-1), self.p)


@dataclasses.dataclass(frozen=True)
class MinP:
    """Keeps the codes at least p times as probable as the most probable one (Nguyen et al., 2024)."""

    p: float

    def __post_init__(self):
        _require(0 <= self.p <= 1, f"min_p {self.p} must be in [0, 1]")

    def __call__(self, logits_BV: jax.Array) -> jax.Array:
        """The most probable code always stays."""
        if self.p == 0:
            return logits_BV
        lowest_B1 = logits_BV.max(-1, keepdims=True) + math.log(self.p)
        return jnp.where(logits_BV >= lowest_B1, logits_BV, -jnp.inf)


def _most_probable(logits_BV: jax.Array, weight_BV: jax.Array, enough: float) -> jax.Array:
    """Keeps the most probable codes that together weigh enough, and those as probable as the last of them.

    The least logit that stays is found bit by bit: on the CPU, 32 sums take a tenth of the time of a sort.
    """
    bits_BV = jax.lax.bitcast_convert_type(logits_BV, jnp.int32)
    order_BV = jax.lax.bitcast_convert_type(bits_BV ^ (bits_BV >> 31 | -(1 << 31)), jnp.uint32)  # that of the floats

    def settle(bit, least_B1):
        higher_B1 = least_B1 | jnp.uint32(1 << 31) >> bit
        weight_B1 = jnp.where(order_BV >= higher_B1, weight_BV, 0).sum(-1, keepdims=True)
        return jnp.where(weight_B1 >= enough, higher_B1, least_B1)

    least_B1 = jax.lax.fori_loop(0, 32, settle, jnp.zeros((*logits_BV.shape[:-1], 1), jnp.uint32))
    return jnp.where(order_BV >= least_B1, logits_BV, -jnp.inf)


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How codes are drawn. Hashable: it is a static argument of the compiled sampler.

    `logit_bias`, `temperature`, `top_k`, `top_p` and `min_p` are `rules`, applied in this order.

    Attributes:
      temperature: divides the logits; 0 takes the most probable code.
      top_k: keep the k most probable codes; 0 keeps all.
      top_p: keep the most probable codes that together reach this probability (nucleus sampling); 1 keeps all.
      min_p: keep the codes at least this many times as probable as the most probable one; 0 keeps all.
      logit_bias: pairs of a code and what is added to its logit, in -1e9 to 1e9; code -1 is the end of speech.
      end_if_most_probable: end also where the end of speech is the most probable code although another one was drawn,
        as VALL-E-X and lifeiteng/vall-e do: fewer takes run on, some end early. The papers only draw.
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
    min_p: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()
    end_if_most_probable: bool = False
    repetition_window: int = 0
    repetition_threshold: float = 0.1
    guidance: float = 1.0

    def __post_init__(self):
        hash(self.rules)  # each checks itself when it is made, and that it can be a part of a compiled program
        _require(self.repetition_window >= 0, f"repetition_window {self.repetition_window} must not be negative")

    @property
    def rules(self) -> tuple[Rule, ...]:
        """In the order in which they are applied."""
        return (
            Bias(self.logit_bias),
            Temperature(self.temperature),
            TopK(self.top_k),
            TopP(self.top_p),
            MinP(self.min_p),
        )

    @property
    def guided(self) -> bool:
        """Whether every row is decoded twice, with and without its text."""
        return self.guidance != 1.0

    def truncate(self, logits_BV: jax.Array) -> jax.Array:
        """All rules, one after the other."""
        return functools.reduce(lambda logits, rule: rule(logits), self.rules, logits_BV)

    def draw(self, logits_BV: jax.Array, keys_B: jax.Array, recent_BK: jax.Array) -> jax.Array:
        """Draws one code per row.

        Args:
          logits_BV: float32; forbidden codes at -inf.
          keys_B: one random key per row, so that a row's codes do not depend on its neighbours.
          recent_BK: the last `repetition_window` codes of each row, -1 where there are fewer.

        Returns:
          Codes int32 [B].
        """
        categorical = jax.vmap(jax.random.categorical)
        full_BV = Bias(self.logit_bias)(logits_BV)
        most_probable_B = full_BV.argmax(-1).astype(jnp.int32)
        if self.temperature == 0:
            return most_probable_B
        code_B = categorical(keys_B, self.truncate(logits_BV)).astype(jnp.int32)
        if self.repetition_window:
            share_B = (recent_BK == code_B[:, None]).mean(-1)
            again_B = categorical(jax.vmap(jax.random.fold_in, (0, None))(keys_B, 1), full_BV).astype(jnp.int32)
            code_B = jnp.where(share_B > self.repetition_threshold, again_B, code_B)
        if self.end_if_most_probable:
            code_B = jnp.where(most_probable_B == logits_BV.shape[-1] - 1, most_probable_B, code_B)
        return code_B
