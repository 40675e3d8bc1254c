"""How the NAR's codes are chosen (P1: the most probable; `Filling` has the others). One training, many ways to speak.

valle ablate nar_decoding --data DATASET --corpus CORPUS --out ablations --preset small
"""

from valle_jax.ablation.suite import Member, Suite


def choose(temperature: float, guidance: float) -> dict:
    """Temperature 0 is P1's greedy choice, guidance 1 is none."""
    return {"nar_temperature": temperature, "nar_guidance": guidance}


SUITE = Suite(
    name="nar_decoding",
    question="How should the NAR choose its codes, and what does guidance by the prompt cost?",
    baseline="greedy",
    members=(
        Member("greedy", speaking=choose(0.0, 1.0)),
        Member("temperature 0.4", speaking=choose(0.4, 1.0)),
        Member("temperature 0.8", speaking=choose(0.8, 1.0)),
        Member("temperature 0.8, guidance 3.25", speaking=choose(0.8, 3.25)),
        Member("control: untrained NAR", nar={"train.steps": 1}, speaking=choose(0.0, 1.0), expect="worse"),
    ),
    systems=("nar", "valle"),
    decisive=("similarity", "wer"),
)
