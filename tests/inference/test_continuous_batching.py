"""Continuous batching against the one-shot sampler; what slots and neighbours must not change."""

import itertools

import jax
import numpy as np
import pytest
from packed import tiny_config

from valle_jax.errors import UserError
from valle_jax.inference.batching import Job, sample_first_codebook
from valle_jax.inference.engine import Engine, Task, _decode
from valle_jax.inference.sampling import Sampling
from valle_jax.model import build
from valle_jax.parallel.mesh import make_mesh
from valle_jax.plan.collectives import find_collectives
from valle_jax.plan.hlo import parse_module
from valle_jax.text.vocabulary import EOS_ID

SAMPLING = Sampling(temperature=0.9, top_k=20, repetition_window=4)


@pytest.fixture(scope="module")
def ar():
    """A random decoder whose tied head is loud enough to prefer some codes clearly."""
    return _decoder()


def _decoder(**changes):
    decoder = build(tiny_config("ar", **changes))
    params = jax.jit(decoder.init)(jax.random.key(1))
    params["embed"]["acoustic"] = params["embed"]["acoustic"] * 4
    return decoder, params


def _tasks(count: int, takes: int = 1) -> list[Task]:
    """Utterances of 5 to 40 frames, of one prefill bucket."""
    rng = np.random.default_rng(0)
    tasks = []
    for i in range(count):
        most = int(rng.integers(5, 41))
        text = np.append(rng.integers(3, 40, rng.integers(4, 12)), EOS_ID).astype(np.int32)
        prompt = rng.integers(0, 60, (rng.integers(3, 9), 4)).astype(np.int32)
        keys = jax.random.split(jax.random.fold_in(jax.random.key(7), i), takes)
        tasks.append(Task(str(i), Job(text, prompt, min(5, most), most), keys))
    return tasks


def _engine(ar, sampling=SAMPLING, slots=4, **more) -> Engine:
    return Engine(ar, sampling, slots=slots, max_tokens=128, max_frames=40, **more)


def _codes(engine: Engine, tasks) -> dict[str, list[list[int]]]:
    return {task.name: [take.codes[:, 0].tolist() for take in takes] for task, takes in engine.run(tasks)}


def test_codes_depend_neither_on_the_slot_nor_on_the_neighbours(ar):
    """Exact: an utterance is always computed by the same compiled programs."""
    tasks = _tasks(12)
    engine = _engine(ar)
    forward = _codes(engine, tasks)
    assert _codes(engine, tasks[::-1]) == forward
    assert _codes(engine, tasks[5:6]) == {"5": forward["5"]}
    assert len({str(codes) for codes in forward.values()}) == 12


@pytest.mark.parametrize("group", [1, 2])
def test_the_one_shot_sampler_draws_the_same(ar, group):
    """Other programs, so that only codes whose scores tie to a few ulps may differ; here none does."""
    ar = ar if group == 1 else _decoder(group_size=group)
    tasks = _tasks(6)
    keys = jax.numpy.concatenate([task.keys for task in tasks])
    takes = sample_first_codebook([task.job for task in tasks], ar, keys, SAMPLING)
    continuous = {task.name: takes[0] for task, takes in _engine(ar).run(tasks)}
    for task, take in zip(tasks, takes, strict=True):
        other = continuous[task.name]
        assert other.codes.tolist() == take.codes.tolist()
        assert other.finished == take.finished
        np.testing.assert_allclose(other.log_probability, take.log_probability, atol=1e-5)  # float32 sums of 40


def test_takes_of_one_task_are_those_of_their_keys(ar):
    """The prefix is computed once; more takes than slots wait for their turn."""
    (task,) = _tasks(1, takes=6)
    together = _codes(_engine(ar), [task])[task.name]
    single = [_codes(_engine(ar), [Task("", task.job, task.keys[i : i + 1])])[""][0] for i in range(6)]
    assert together == single
    assert len({str(codes) for codes in together}) > 1


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_the_one_shot_sampler_computes_the_prefix_of_many_takes_once(ar, guidance):
    """The codes are those of single takes."""
    tasks = _tasks(3, takes=4)
    jobs, keys = [task.job for task in tasks], jax.numpy.stack([task.keys for task in tasks])
    sampling = Sampling(temperature=0.9, guidance=guidance)
    together = sample_first_codebook(jobs, ar, keys.reshape(-1), sampling)
    apart = [sample_first_codebook(jobs, ar, keys[:, n], sampling) for n in range(4)]
    for i in range(3):
        for n in range(4):
            assert together[4 * i + n].codes.tolist() == apart[n][i].codes.tolist()


def test_guidance_has_its_rows_beside_every_slot(ar):
    tasks = _tasks(5)
    sampling = Sampling(temperature=0.9, guidance=2.0)
    keys = jax.numpy.concatenate([task.keys for task in tasks])
    takes = sample_first_codebook([task.job for task in tasks], ar, keys, sampling)
    assert _codes(_engine(ar, sampling), tasks) == {
        task.name: [take.codes[:, 0].tolist()] for task, take in zip(tasks, takes, strict=True)
    }


def test_chips_share_the_slots(ar):
    """Rows on `data`, heads on `tensor`: the codes of one chip, in any slot (exact: one program again)."""
    tasks = _tasks(8)
    engine = _engine(ar, mesh=make_mesh({"data": 2, "tensor": 2}))
    forward = _codes(engine, tasks)
    assert _codes(engine, tasks[::-1]) == forward
    assert forward == _codes(_engine(ar), tasks)


def test_an_engine_uses_its_own_chips_only(ar):
    """No program reaches beyond the engine's mesh, and `data` groups tell each other only how many slots are live."""
    mesh = make_mesh({"data": 2, "tensor": 2}, jax.devices()[4:])
    engine = _engine(ar, mesh=mesh)
    (opened,) = engine._prefill(_tasks(1))
    slots = engine._empty(opened.prefilled)
    with jax.set_mesh(mesh):
        decode = _decode.lower(ar[0], engine._params, slots, SAMPLING, 8, 1).compile()
    assert {d for x in jax.tree.leaves(decode.output_shardings) for d in x.device_set} == set(jax.devices()[4:])
    found = find_collectives(parse_module(decode.as_text()), mesh)
    sent = {c.axes: c.payload_bytes for c in found if c.axes}  # the rest are groups of one chip
    assert sent.keys() == {"data", "tensor"}
    assert sent["data"] <= 8


def test_tasks_are_taken_when_slots_are_free_and_slots_stay_full(ar):
    taken = itertools.count()

    def tasks():
        for task in _tasks(40):
            next(taken)
            yield task

    engine = _engine(ar)
    results = engine.run(tasks())
    next(results)
    assert next(taken) < 12  # four slots, not the whole queue
    list(results)
    assert engine.occupancy.share > 0.85


def test_what_is_too_long_is_refused(ar):
    (task,) = _tasks(1)
    with pytest.raises(UserError, match="slots of 128 and 4"):
        list(Engine(ar, SAMPLING, slots=2, max_tokens=128, max_frames=4).run([task]))


def test_tasks_that_come_late_join_those_that_are_drawn(ar):
    """None says that there is none yet; the codes are those of tasks that were all there."""
    tasks = _tasks(6)
    engine = _engine(ar, steps=4)
    asked = 0

    def late():
        nonlocal asked
        for task in tasks:
            yield task
            for _ in range(3):
                asked += 1
                yield None

    assert _codes(engine, late()) == _codes(_engine(ar), tasks)
    assert asked == 18
    assert engine.occupancy.drawn > engine.occupancy.steps  # some were drawn side by side


def test_a_task_is_followed_and_dropped(ar):
    """What is dropped leaves its slots to others and nothing else; more takes than slots are dropped too."""
    tasks = _tasks(6)
    (many,) = _tasks(1, takes=6)
    expected = _codes(_engine(ar), tasks)
    seen: dict[str, list[list[int]]] = {"followed": [], "dropped": []}

    def follow(name, codes):
        seen[name].append(codes.tolist())
        return name == "followed"

    followed = Task("followed", tasks[4].job, tasks[4].keys, lambda codes: follow("followed", codes))
    dropped = Task("dropped", many.job, many.keys, lambda codes: follow("dropped", codes))
    codes = _codes(_engine(ar, steps=2), [dropped, followed, *tasks])
    assert codes == {**expected, "followed": expected["4"]}
    assert [len(part) for part in seen["followed"]] == sorted({len(part) for part in seen["followed"]})
    assert all(expected["4"][0][: len(part)] == part for part in seen["followed"])
    assert 0 < len(seen["dropped"]) <= 4
