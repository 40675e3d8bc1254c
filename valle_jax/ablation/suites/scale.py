"""How the held-out loss falls with the decoder's width and with the data: L = a N^-b + c.

valle ablate scale --data DATASET --out ablations --preset small --steps 5000
"""

from valle_jax.ablation.suite import Member, Suite

WIDTHS = (64, 96, 128, 192, 256)  # heads of 32 channels
SHARES = (1.0, 0.5, 0.25, 0.125)


def settings(width: int, share: float) -> dict:
    """Of a decoder of a width on a share of the training utterances."""
    shape = {"model.d_model": width, "model.n_heads": width // 32, "model.d_ff": 4 * width}
    return {**shape, "data.share": share}


SUITE = Suite(
    name="scale",
    question="By which power law does the held-out loss of the AR decoder fall with its width and with the data?",
    baseline=f"width {WIDTHS[-1]}, data 1",
    members=(
        *(Member(f"width {width}, data {share:g}", ar=settings(width, share)) for width in WIDTHS for share in SHARES),
        Member("control: one step", ar={**settings(WIDTHS[-1], 1.0), "train.steps": 1}, expect="worse"),
    ),
    stages=("ar",),
    decisive=("ar loss",),
    scales=True,
)
