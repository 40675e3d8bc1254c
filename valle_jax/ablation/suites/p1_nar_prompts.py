"""What the prompts give the NAR decoder (P1, section 5.2, the table of NAR prompts).

valle ablate p1_nar_prompts --data DATASET --corpus CORPUS --out ablations --preset small
"""

from valle_jax.ablation.suite import Member, Suite

SUITE = Suite(
    name="p1_nar_prompts",
    question="What do the phonemes and the acoustic prompt give the NAR decoder, and does the order of P1 hold?",
    baseline="phoneme and acoustic prompt",
    members=(
        Member("phoneme and acoustic prompt"),
        Member("phoneme prompt", nar={"model.nar_context": "text"}),
        Member("no prompt", nar={"model.nar_context": "none"}),
        Member("control: untrained NAR", nar={"train.steps": 1}, expect="worse"),
    ),
    systems=("nar", "valle"),  # P1's rows are of true codebook 1
    speaking={"nar_guidance": 1.0},  # none: it would be of those alone that have a prompt, and costs words
    decisive=("similarity", "wer"),
)
