"""What the acoustic prompt gives the AR decoder at inference (P1, section 5.2, the table of the AR prompt).

valle ablate p1_ar_prompt --data DATASET --corpus CORPUS --out ablations --preset small
"""

from valle_jax.ablation.suite import Member, Suite

SUITE = Suite(
    name="p1_ar_prompt",
    question="What does the acoustic prompt give the AR decoder, and does the order of P1 hold?",
    baseline="acoustic prompt",
    members=(
        Member("acoustic prompt"),
        Member("no acoustic prompt", systems=("ar-no-prompt",)),
        Member("control: prompt of another speaker", systems=("other-speaker",), expect="worse"),
        Member("control: acoustic prompt, other draws", seed=1000, expect="same"),
    ),
    decisive=("similarity",),
)
