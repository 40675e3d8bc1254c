"""Suites: the shipped ones are sound, and what is wrong with one is said."""

import dataclasses

import pytest

from valle_jax.ablation.plan import Training, make_plan
from valle_jax.ablation.suite import Member, Suite, load_suite, shipped, speak
from valle_jax.configs import get_options
from valle_jax.errors import UserError
from valle_jax.evaluation.systems import SYSTEMS


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    from train.train_helpers import write_dataset

    return str(write_dataset(tmp_path_factory.mktemp("data") / "random"))


def training(data: str, preset: str = "tiny", **settings) -> Training:
    return Training(preset, (data,), {"ar": settings, "nar": settings})


def counts(plan) -> dict[str, int]:
    return {stage: sum(run.stage == stage for run in plan.trainings) for stage in ("ar", "nar")}


# How many trainings of each stage the members come to: what is equal is trained once.
SHIPPED = {
    "architecture": {"ar": 8, "nar": 8},  # ReLU is what tiny has
    "nar_decoding": {"ar": 1, "nar": 2},
    "p1_ar_prompt": {"ar": 1, "nar": 1},
    "p1_nar_prompts": {"ar": 1, "nar": 4},
    "sampling": {"ar": 1, "nar": 1},
    "scale": {"ar": 21, "nar": 0},
    "valle2_groups": {"ar": 5, "nar": 1},
}


def test_every_shipped_suite_is_known():
    assert shipped() == sorted(SHIPPED)


@pytest.mark.parametrize("name", SHIPPED)
@pytest.mark.parametrize("preset", ["tiny", "digits", "small", "valle2"])
def test_shipped_suites_are_sound(name, preset, data, tmp_path):
    suite = load_suite(name)
    assert suite.name == name
    plan = make_plan(suite, training(data, preset), tmp_path)  # every setting is a key, and a value of its type
    if preset == "tiny":
        assert counts(plan) == SHIPPED[name]
    for member in suite.members:
        assert set(suite.systems_of(member)) <= set(SYSTEMS)
        speak(get_options(preset), suite.speaking_of(member))
    assert [run.member.name for run in plan.members] == [member.name for member in suite.members]


def two(**changes) -> Suite:
    members = (Member("a"), Member("b", nar={"model.nar_context": "text"}), Member("c", seed=1, expect="same"))
    return dataclasses.replace(Suite("two", "which?", "a", members), **changes)


def test_members_share_the_trainings_whose_settings_are_equal(data, tmp_path):
    plan = make_plan(two(), training(data), tmp_path)
    a, b, c = plan.members
    assert a.stages["ar"] is b.stages["ar"] and a.stages["nar"] is c.stages["nar"] is not b.stages["nar"]
    assert a.model == c.model != b.model
    assert plan.trainings[0].members == ("a", "b", "c")  # the most wanted first
    # A setting that says what holds anyway is no other setting.
    said = two(members=(Member("a"), Member("b", nar={"model.nar_context": "prompt"}), two().members[2]))
    assert counts(make_plan(said, training(data), tmp_path)) == {"ar": 1, "nar": 1}


def test_what_decides_a_training_decides_its_folder(data, tmp_path):
    from train.train_helpers import write_dataset

    def folder(path=data, preset="tiny", **settings):
        return make_plan(two(), training(path, preset, **settings), tmp_path).members[0].stages["ar"].workdir

    assert folder() == folder() == folder(**{"train.steps": "2000"})  # the preset's own
    others = [{"train.steps": 7}, {"train.seed": 1}, {"model.n_layers": 2}, {"data.share": 0.5}]
    other_data = str(write_dataset(tmp_path / "other", seed=1))
    folders = {folder(), folder(other_data), folder(preset="small"), *(folder(**other) for other in others)}
    assert len(folders) == 3 + len(others)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "d"}, "baseline 'd' is no member"),
        ({"members": (Member("a"), Member("A"))}, "same name"),
        ({"members": (Member("a"), Member("b"))}, "control"),
        ({"members": (Member("a", speaking={"top": 1}, expect="same"),)}, "knows no 'top'"),
        ({"speaking": {"top": 1}}, "knows no 'top'"),
    ],
)
def test_what_is_wrong_with_a_suite(changes, message):
    with pytest.raises(UserError, match=message):
        two(**changes)


def test_an_unknown_key_names_the_member(data, tmp_path):
    suite = two(members=(Member("a", ar={"model.layers": 1}, expect="same"),))
    with pytest.raises(UserError, match=r"two, a: unknown configuration key 'model.layers'; did you mean"):
        make_plan(suite, training(data), tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [("SUITE = 1", "defines no SUITE"), ("import nothing_like_it", "ModuleNotFoundError"), ("(", "SyntaxError")],
)
def test_a_file_that_is_no_suite(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        load_suite(str(path))


def test_a_suite_of_ones_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from valle_jax.ablation.suite import Member, Suite\n"
        "SUITE = Suite('mine', 'which?', 'a', (Member('a'), Member('b', seed=1, expect='same')))\n"
    )
    assert load_suite(str(path)).baseline == "a"
    with pytest.raises(UserError, match="no suite 'none': give a Python file"):
        load_suite("none")


def test_a_member_speaks_as_all_do_but_for_its_own():
    suite = two(speaking={"top_p": 0.5, "temperature": 0.7})
    assert suite.speaking_of(Member("d", speaking={"temperature": 0.9})) == {"top_p": 0.5, "temperature": 0.9}


def test_speaking_reaches_options_and_sampling():
    options = speak(get_options("digits"), {"top_p": 0.5, "nar_temperature": 0.0})
    assert (options.sampling.top_p, options.nar_temperature) == (0.5, 0.0)
    assert options.sampling.guidance == get_options("digits").sampling.guidance
