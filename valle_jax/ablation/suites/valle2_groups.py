"""How many codes an AR step may say (P2, section 3.2: grouped code modelling).

valle ablate valle2_groups --data DATASET --corpus CORPUS --out ablations --preset valle2
"""

from valle_jax.ablation.suite import Member, Suite

SUITE = Suite(
    name="valle2_groups",
    question="What do groups of codes cost, and from which size on?",
    baseline="G = 1",
    members=(
        *(Member(f"G = {size}", ar={"model.group_size": size}) for size in (1, 2, 4, 8)),
        Member("control: untrained AR", ar={"train.steps": 1}, expect="worse"),
    ),
    decisive=("wer",),
)
