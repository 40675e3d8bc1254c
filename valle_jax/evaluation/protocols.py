"""What the papers test on, as rules from which any corpus with speakers gives a list of trials.

A protocol has one setting or several; a setting says where the prompt of a trial comes from.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from valle_jax.errors import UserError

# cut: the beginning of another recording of the speaker, up to the word boundary nearest to so many seconds.
# whole: another recording of the speaker as it is.
# prefix: the first seconds of the utterance itself, which the model goes on with (VALL-E-continual).
PromptKind = Literal["cut", "whole", "prefix"]
PROMPT_TOLERANCE = (0.75, 1.5)  # lengths of whole recordings that may stand for a cut, as shares of its length


@dataclasses.dataclass(frozen=True)
class Setting:
    """Where prompts come from.

    Attributes:
      name: in tables.
      prompt: see `PromptKind`.
      seconds: shortest and longest prompt; of a prefix, and for a cut the length that is aimed at, both are one.
    """

    name: str
    prompt: PromptKind
    seconds: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Protocol:
    """A rule for trials.

    Attributes:
      name: on the command line.
      seconds: shortest and longest utterance to test on.
      settings: each tests every utterance.
      systems: rows of its table, see `valle_jax.evaluation.systems.SYSTEMS`.
      subset: only recordings below a folder of this name are tested, where the corpus has it.
      version: changes with the meaning of the rule: lists of different versions do not compare.
    """

    name: str
    seconds: tuple[float, float]
    settings: tuple[Setting, ...]
    systems: tuple[str, ...]
    subset: str | None = None
    version: int = 1


_ROWS = ("ground-truth", "codec", "valle", "nar", "ar-no-prompt", "other-speaker", "other-text")
_CONTINUAL = Setting("first 3 s", "prefix", (3.0, 3.0))

PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        # P1, section 5.2: utterances of 4 to 10 s, 3 s of another utterance of the speaker.
        Protocol("p1-librispeech", (4, 10), (Setting("3 s", "cut", (3.0, 3.0)),), _ROWS, "test-clean"),
        Protocol("p1-librispeech-continual", (4, 10), (_CONTINUAL,), _ROWS, "test-clean"),
        # P1, section 5.3.
        Protocol("p1-vctk", (1.5, 15), tuple(Setting(f"{s} s", "cut", (s, s)) for s in (3, 5, 10)), _ROWS),
        # P2, section 4.1: a reference utterance as the prompt, and the first 3 s of the same one.
        Protocol(
            "p2-librispeech",
            (4, 10),
            (Setting("reference utterance", "whole", (2.0, 10.0)), _CONTINUAL),
            (*_ROWS, "best-of-5"),
            "test-clean",
        ),
        # Not of the papers: for corpora whose utterances are shorter than theirs.
        Protocol("short", (1.0, 10), (Setting("about 3 s", "whole", (2.0, 4.5)),), (*_ROWS, "best-of-5")),
    )
}


def get_protocol(name: str) -> Protocol:
    """The protocol of a name; UserError for an unknown one."""
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name!r}; known: {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]


def with_whole_prompts(protocol: Protocol) -> Protocol:
    """The same with whole recordings of about the length in place of cuts, which need a word aligner."""

    def whole(setting: Setting) -> Setting:
        if setting.prompt != "cut":
            return setting
        low, high = (round(share * setting.seconds[0], 2) for share in PROMPT_TOLERANCE)
        return Setting(setting.name, "whole", (low, high))

    return dataclasses.replace(protocol, settings=tuple(whole(setting) for setting in protocol.settings))
