"""Where the papers leave a choice (docs/model.md): each other choice by itself.

valle ablate architecture --data DATASET --corpus CORPUS --out ablations --preset small
"""

from valle_jax.ablation.suite import Member, Suite

SUITE = Suite(
    name="architecture",
    question="Which of the choices that the papers leave open matters?",
    baseline="our choices",
    members=(
        Member("our choices"),
        Member("bidirectional text attention", ar={"model.text_attention": "bidirectional"}),
        Member("untied AR", ar={"model.ar_tied": False}),
        Member("NAR heads tied to the next embedding", nar={"model.nar_tying": "next"}),
        Member("untied NAR", nar={"model.nar_tying": "none"}),
        Member("LayerNorm after the residual", both={"model.norm_position": "post"}),
        Member("rotary positions", both={"model.positions": "rotary", "model.position_amplitude": 1.0}),
        Member("ReLU", both={"model.activation": "relu"}),
        Member("GELU", both={"model.activation": "gelu"}),
        Member("SwiGLU", both={"model.activation": "swiglu"}),
        Member("control: our choices, other seed", both={"train.seed": 1000}, expect="same"),
    ),
    decisive=("wer", "similarity"),
)
