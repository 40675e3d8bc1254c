"""How codes are drawn (P1: sampling; P2, section 3.3: repetition-aware sampling). One training, many ways to speak.

valle ablate sampling --data DATASET --corpus CORPUS --out ablations --preset small
"""

from valle_jax.ablation.suite import Member, Suite


def aware(threshold: float) -> dict:
    """P2's K = 10 with a threshold t_r (P2: 0.1)."""
    return {"repetition_window": 10, "repetition_threshold": threshold}


SUITE = Suite(
    name="sampling",
    question="Which decoding rules make bad takes, and does repetition-aware sampling make fewer of them?",
    baseline="top-p 0.9",
    members=(
        Member("top-p 0.9", speaking={"top_p": 0.9}),
        Member("top-p 0.9, repetition-aware", speaking={"top_p": 0.9, **aware(0.1)}),
        Member("top-p 0.5", speaking={"top_p": 0.5}),
        Member("top-p 0.5, repetition-aware", speaking={"top_p": 0.5, **aware(0.1)}),
        Member("top-p 0.5, repetition-aware, t = 0.3", speaking={"top_p": 0.5, **aware(0.3)}),
        Member("greedy", speaking={"temperature": 0.0}),
        Member("near greedy, repetition-aware", speaking={"top_p": 0.01, **aware(0.1)}),
        Member("all codes, temperature 1"),
        Member("temperature 0.7", speaking={"temperature": 0.7}),
        Member("top-k 30", speaking={"top_k": 30}),
        Member("control: top-p 0.9, other draws", speaking={"top_p": 0.9}, seed=1000, expect="same"),
    ),
    # What a preset has beside the rules to hold a take in shape is off: it would hide what the rules do.
    speaking={
        "top_k": 0,
        "top_p": 1.0,
        "temperature": 1.0,
        "repetition_window": 0,
        "guidance": 1.0,
        "min_rate_ratio": 0.0,
        "max_rate_ratio": 2.5,
    },
    decisive=("bad_take", "wer"),
)
