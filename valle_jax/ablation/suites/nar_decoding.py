"""How the NAR's codes are chosen (P1: the most probable; `Filling` has the others). One training, many ways to speak.

valle ablate nar_decoding --data DATASET --corpus CORPUS --out ablations --preset small
"""

from valle_jax.ablation.suite import Member, Suite

SUITE = Suite(
    name="nar_decoding",
    question="How should the NAR choose its codes, and what does guidance by the prompt cost?",
    baseline="greedy",
    members=(
        Member("greedy"),
        Member("temperature 0.4", speaking={"nar_temperature": 0.4}),
        Member("temperature 0.8", speaking={"nar_temperature": 0.8}),
        Member("temperature 0.8, guidance 3.25", speaking={"nar_temperature": 0.8, "nar_guidance": 3.25}),
        Member("control: untrained NAR", nar={"train.steps": 1}, expect="worse"),
    ),
    systems=("nar", "valle"),
    speaking={"nar_temperature": 0.0, "nar_guidance": 1.0},  # P1's choice, and no guidance
    decisive=("similarity", "wer"),
)
