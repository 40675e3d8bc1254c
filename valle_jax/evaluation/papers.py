"""The papers' figures, beside which a table is printed (P1: arXiv 2301.02111, P2: arXiv 2406.05370)."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class PaperRow:
    """A row of a paper's table.

    Attributes:
      paper: "VALL-E" or "VALL-E 2".
      label: the row's name there.
      wer: word error rate, a share, by `asr`.
      similarity: speaker similarity to the resynthesised prompt, by `voice`.
      asr: recogniser, as our measures name it.
      voice: speaker model, as our measures name it.
    """

    paper: str
    label: str
    wer: float | None
    similarity: float | None
    asr: str = "hubert-large"
    voice: str = "wavlm-large-tdnn"  # UniSpeech's; what `wavlm-tdnn` is here is a smaller one


def _p1(label: str, wer: float | None, similarity: float | None) -> PaperRow:
    return PaperRow("VALL-E", label, None if wer is None else wer / 100, similarity)


def _p2(label: str, wer: float, similarity: float | None) -> PaperRow:
    return PaperRow("VALL-E 2", label, wer / 100, similarity, asr="conformer-transducer")


_P1_ROWS = (
    _p1("ground truth", 2.2, 0.754),
    _p1("YourTTS", 7.7, 0.337),
    _p1("VALL-E", 5.9, 0.580),
    _p1("NAR from true codebook 1, no prompt", 19.6, 0.518),
    _p1("NAR from true codebook 1, phoneme prompt", 3.0, 0.541),
    _p1("NAR from true codebook 1, phoneme and acoustic prompt", 2.8, 0.732),
    _p1("AR with acoustic prompt", 5.9, 0.585),
    _p1("AR without acoustic prompt", 5.9, 0.236),
)
_VCTK = {
    "ground truth": (0.546, 0.591, 0.620),
    "YourTTS": (0.357, 0.377, 0.394),
    "VALL-E": (0.382, 0.423, 0.484),
}

PAPER_ROWS: dict[str, tuple[PaperRow, ...]] = {
    "p1-librispeech": _P1_ROWS,
    "p1-librispeech-continual": (_p1("ground truth", 2.2, 0.754), _p1("VALL-E-continual", 3.8, 0.508)),
    "p1-vctk": tuple(
        _p1(f"{label} (108 speakers, {seconds} s)", None, similarity)
        for label, similarities in _VCTK.items()
        for seconds, similarity in zip((3, 5, 10), similarities, strict=True)
    ),
    # Reference utterance as the prompt, one sample; of five samples the WER alone.
    "p2-librispeech": (
        _p2("codec", 1.7, 0.715),
        _p2("VALL-E, retrained", 3.1, 0.633),
        _p2("VALL-E 2, groups of 1", 1.5, 0.643),
        _p2("VALL-E 2, groups of 2", 1.5, 0.635),
        _p2("VALL-E 2, groups of 4", 2.2, 0.615),
        _p2("VALL-E 2, groups of 8", 4.2, 0.566),
        _p2("VALL-E, best of 5", 0.8, None),
        _p2("VALL-E 2, groups of 1, best of 5", 0.7, None),
        _p2("VALL-E 2, groups of 2, best of 5", 0.6, None),
    ),
}
