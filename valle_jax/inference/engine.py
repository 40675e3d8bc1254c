"""Continuous batching: a fixed number of slots, of which each takes the next utterance as soon as it is free.

The host schedules; the device runs three compiled programs: `_prefill` of one utterance a chip (one program a length
bucket), `_insert` into free slots, and `_decode`, which draws codes in all slots until one is free. An utterance is
always computed by the same programs, so with the same key it gets the same codes, whatever its slot and neighbours.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from valle_jax.errors import UserError
from valle_jax.inference.batching import Job, Take, ar_batch, ar_prefix_length, bucket
from valle_jax.inference.decoding import Slots, bind, draw, prefill
from valle_jax.inference.sampling import Sampling
from valle_jax.model import Decoder, Params
from valle_jax.parallel.sharding import check_divides, constrain, parts, tree_shardings

NEVER = 1 << 30


@functools.partial(jax.jit, static_argnames=("decoder", "sampling", "max_frames"))
def _prefill(decoder: Decoder, params: Params, batch, keys, limits, sampling: Sampling, max_frames: int) -> Slots:
    """Utterances in slots that are as long as the batch's prefixes; limits int32 [2, R]."""
    capacity = batch["segment"].shape[1]
    model = bind(decoder, params)
    return prefill(model, batch, keys, *limits, sampling=sampling, capacity=capacity, max_frames=max_frames)


def _on_rows(slots: Slots) -> Slots:
    """Held to the mesh: the rows of every array on the batch axes, the heads of the cache on theirs."""

    def place(x):
        return constrain(x, ("batch", "heads", None, None) if x.ndim == 4 else ("batch",) + (None,) * (x.ndim - 1))

    return jax.tree.map(place, slots)


@functools.partial(jax.jit, static_argnames=("guided",), donate_argnames=("slots",))
def _insert(
    slots: Slots, prefilled: Slots, source: jax.Array, keys_N: jax.Array, rows_N: jax.Array, guided: bool
) -> Slots:
    """Copies row `source` of what was prefilled into rows, int32, each with a key of its own.

    A row beyond the last is left out.
    """
    B, R = slots.keys.shape[0], prefilled.keys.shape[0]
    second_half = jnp.where(rows_N < B, rows_N + B, 2 * B)

    def write(into, fresh):
        from_, to = source[None], rows_N
        if guided and fresh.shape[0] == 2 * R:
            from_, to = jnp.stack([source, source + R]), jnp.concatenate([rows_N, second_half])
        # A prefilled cache is as long as its prefix; what the row holds behind its length is never seen.
        window = tuple(slice(size) for size in fresh.shape[1:])
        return into.at[(to, *window)].set(jnp.repeat(fresh[from_], len(rows_N), axis=0), mode="drop")

    filled = jax.tree.map(write, slots, prefilled)
    return _on_rows(dataclasses.replace(filled, keys=filled.keys.at[rows_N].set(keys_N, mode="drop")))


@functools.partial(jax.jit, static_argnames=("decoder", "sampling"), donate_argnames=("slots",))
def _decode(
    decoder: Decoder, params: Params, slots: Slots, sampling: Sampling, steps, leave_at
) -> tuple[Slots, jax.Array, jax.Array]:
    """Draws until `leave_at` slots have ended, all have, or `steps` codes each; also steps and codes drawn."""
    model = bind(decoder, params)
    layers = model.unstack()
    live = slots.live.sum()

    def more(carry):
        slots, step, _ = carry
        now = slots.live.sum()
        return (step < steps) & (now > 0) & (live - now < leave_at)

    def one(carry):
        slots, step, drawn = carry
        return draw(model, layers, sampling, slots), step + 1, drawn + slots.live.sum()

    slots, step, drawn = jax.lax.while_loop(more, one, (slots, jnp.int32(0), jnp.int32(0)))
    return _on_rows(slots), step, drawn


@dataclasses.dataclass(frozen=True, eq=False)
class Task:
    """An utterance to draw takes of.

    Attributes:
      name: whatever tells it from others.
      job: what to generate.
      keys: [N], a random key for each take. The prefix is computed once for all.
      follow: is called at every look at a take that goes on, with its codes so far, int32 [T]. Where it returns False
        the task is dropped: its slots are free, and it is not yielded.
    """

    name: str
    job: Job
    keys: jax.Array
    follow: Callable[[np.ndarray], bool] | None = None


@dataclasses.dataclass
class Occupancy:
    """How full the slots have been.

    Attributes:
      slots: how many there are.
      steps: that were run, each in all slots.
      drawn: groups of codes and ends of speech that came out.
    """

    slots: int
    steps: int = 0
    drawn: int = 0

    @property
    def share(self) -> float:
        """Of the slots that drew something, on average over the steps."""
        return self.drawn / max(1, self.steps * self.slots)


@dataclasses.dataclass(eq=False)
class _Open:
    """A task whose takes are being drawn: its prefix is row `source` of what was prefilled."""

    task: Task
    prefilled: Slots
    source: int
    placed: int = 0
    takes: dict[int, Take] = dataclasses.field(default_factory=dict)


class Engine:
    """Draws codebook 1 of any number of utterances in a fixed number of slots.

    Args:
      ar: the AR decoder and its parameters.
      sampling: the decoding rules.
      slots: utterances side by side; a multiple of the mesh's data axes.
      max_tokens: of a prefix and the frames behind it.
      max_frames: most frames of a take.
      steps: most codes that are drawn between two looks at the queue.
      mesh: the chips of this host, `data` by `tensor`; None: one chip.
    """

    def __init__(
        self,
        ar: tuple[Decoder, Params],
        sampling: Sampling,
        *,
        slots: int = 16,
        max_tokens: int,
        max_frames: int,
        steps: int = 64,
        mesh: Mesh | None = None,
    ):
        self._decoder, params = ar
        self._mesh = mesh
        if mesh is None:
            self._params = jax.device_put(params)
        else:
            check_divides(mesh, self._decoder.axes, self._decoder.abstract_params, slots)
            self._params = jax.device_put(params, tree_shardings(mesh, self._decoder.axes))
        self._sampling = sampling
        self._n_slots, self._steps = slots, steps
        self._n_prefilled = 1 if mesh is None else parts(mesh, "batch")  # utterances side by side: one a group of chips
        self._max_tokens, self._max_frames = bucket(max_tokens), max_frames
        self.occupancy = Occupancy(slots)

    def run(self, tasks: Iterable[Task | None]) -> Iterator[tuple[Task, list[Take]]]:
        """Yields each task with its takes as soon as it is done; takes the next ones only when slots are free.

        None among the tasks says that there is none at the moment: the engine asks again at the next look, and where
        it has nothing to draw at once, so that the iterable can wait then.

        Raises:
          UserError: a task needs more tokens or frames than the engine was made for.
        """
        tasks = iter(tasks)
        slots: Slots | None = None
        free = list(range(self._n_slots))
        opened: collections.deque[_Open] = collections.deque()  # with takes that have no slot yet
        drawing: dict[int, tuple[_Open, int]] = {}  # by row: whose take it is, and which
        exhausted = False
        while True:
            while free and not (exhausted and not opened):
                if not opened:
                    fresh = list(itertools.islice(tasks, self._n_prefilled))
                    exhausted = len(fresh) < self._n_prefilled
                    opened.extend(self._prefill([task for task in fresh if task is not None]))
                    if None in fresh and not opened:
                        break
                    continue
                slots = self._empty(opened[0].prefilled) if slots is None else slots
                slots = self._place(slots, opened[0], free, drawing)
                if opened[0].placed == len(opened[0].task.keys):
                    opened.popleft()
            if slots is None or not drawing:
                if exhausted:
                    return
                continue
            leave_at = NEVER if exhausted and not opened else 1
            slots, steps, drawn = self._run(
                _decode, self._decoder, self._params, slots, self._sampling, self._steps, leave_at
            )
            self.occupancy.steps += int(steps)
            self.occupancy.drawn += int(drawn)
            ended, going_on = self._look(slots, drawing)
            for row, take in ended:
                owner, number = drawing.pop(row)
                free.append(row)
                owner.takes[number] = take
                if len(owner.takes) == len(owner.task.keys):
                    yield owner.task, [owner.takes[i] for i in range(len(owner.takes))]
            dropped = {
                drawing[row][0]
                for row, codes in going_on
                if (follow := drawing[row][0].task.follow) is not None and not follow(codes)
            }
            if dropped:
                rows = [row for row, (owner, _) in drawing.items() if owner in dropped]
                slots = dataclasses.replace(slots, live=slots.live.at[np.array(rows)].set(False))
                free += rows
                drawing = {row: what for row, what in drawing.items() if row not in rows}
                opened = collections.deque(owner for owner in opened if owner not in dropped)

    def _place(self, slots: Slots, owner: _Open, free: list[int], drawing: dict[int, tuple[_Open, int]]) -> Slots:
        """As many takes of a task as slots are free."""
        keys = owner.task.keys
        rows = np.full(len(keys), self._n_slots, np.int32)
        while free and owner.placed < len(keys):
            rows[owner.placed] = free.pop()
            drawing[int(rows[owner.placed])] = owner, owner.placed
            owner.placed += 1
        source = np.int32(owner.source)
        return self._run(_insert, slots, owner.prefilled, source, keys, rows, self._sampling.guided)

    def _run(self, program: Callable, *arguments: Any) -> Any:
        with contextlib.nullcontext() if self._mesh is None else jax.set_mesh(self._mesh):
            return program(*arguments)

    def _prefill(self, tasks: Sequence[Task]) -> list[_Open]:
        """The tasks with their prefixes computed; those of one length bucket side by side."""
        by_bucket: dict[int, list[Task]] = {}
        for task in tasks:
            self._check(task)
            by_bucket.setdefault(bucket(ar_prefix_length(task.job, self._decoder.config)), []).append(task)
        opened = []
        for alike in by_bucket.values():
            rows = [*alike, *alike[:1] * (self._n_prefilled - len(alike))]
            batch = ar_batch([task.job for task in rows], self._decoder)
            keys = jnp.stack([task.keys[0] for task in rows])
            limits = np.array([[task.job.min_frames, task.job.max_frames] for task in rows], np.int32).T
            prefilled = self._run(
                _prefill, self._decoder, self._params, batch, keys, limits, self._sampling, self._max_frames
            )
            opened += [_Open(task, prefilled, i) for i, task in enumerate(alike)]
        return opened

    def _check(self, task: Task) -> None:
        config = self._decoder.config
        tokens = ar_prefix_length(task.job, config) + -(-task.job.max_frames // config.codes_per_step)
        if tokens > self._max_tokens or task.job.max_frames > self._max_frames:
            raise UserError(
                f"{task.name} needs {tokens} tokens and draws {task.job.max_frames} frames; this engine has "
                f"slots of {self._max_tokens} and {self._max_frames}"
            )

    def _empty(self, prefilled: Slots) -> Slots:
        """All slots, with nothing in them."""
        keys = jax.random.split(jax.random.key(0), self._n_slots)

        def many(x: jax.Array) -> jax.Array:
            shape = (x.shape[0] * self._n_slots // self._n_prefilled, *x.shape[1:])
            if x.ndim == 4:  # the cache
                shape = (*shape[:2], self._max_tokens, shape[3])
            return jnp.zeros(shape, x.dtype)

        slots = jax.tree.map(many, dataclasses.replace(prefilled, keys=prefilled.length))
        return self._run(jax.jit(_on_rows), dataclasses.replace(slots, keys=keys))

    def _look(self, slots: Slots, rows: Iterable[int]) -> tuple[list[tuple[int, Take]], list[tuple[int, np.ndarray]]]:
        """Which of the rows have nothing more to draw, with what they drew, and the others, with their codes so far."""
        parts = slots.live, slots.codes, slots.length, slots.finished, slots.mean_log_probability
        live, codes, length, finished, log_probability = jax.device_get(parts)
        ended, going_on = [], []
        for row in rows:
            drawn = codes[row, : length[row]]
            if live[row]:
                going_on.append((row, drawn))
            else:
                ended.append((row, Take(drawn[:, None], bool(finished[row]), float(log_probability[row]))))
        return ended, going_on
