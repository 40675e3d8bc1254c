"""Where a text can be cut: paragraphs, sentences, clauses. Rules of punctuation, with abbreviations by language."""

from __future__ import annotations

import re

# Behind these a full stop ends no sentence, by the first part of espeak-ng's code; without the stop, lower case.
_ABBREVIATIONS = {
    "en": "mr mrs ms dr prof rev gen col sgt capt lt hon st mt ft messrs sr jr vs e.g i.e cf viz approx no vol fig pp "
    "ed eds jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri",
    "de": "hr fr dr prof dipl ing bzw ca d.h z.b u.a z.t usw vgl s nr bd abs art evtl ggf inkl max min mio mrd sog str "
    "st tel u v.a",
    "fr": "m mm mme mlle dr pr me st ste av bd cf ex env p pp vol chap fig no art",
    "es": "sr sra srta sres dr dra prof d da ud uds av avda c p.ej pág págs cap vol núm art aprox",
    "it": "sig sigg dott prof ing avv on s ecc es pag pagg vol cap art n tel",
    "pt": "sr sra srs dr dra prof d av p.ex pág págs cap vol núm art tel",
    "nl": "dhr mevr mw dr prof ir drs ing bijv d.w.z o.a m.b.t nr blz jl enz ca",
}
# These end a sentence if no digit follows.
_PERHAPS = "etc inc ltd co corp bros jr a.m p.m u.s u.k usw ecc enz no"
_ORDINALS = "de da nb nn no fi cs sk hu hr sl sr et lv pl tr is"  # languages that write "3." for "third"

_CLOSING = "\"'”’»›)\\]}」』）】"
_OPENING = "\"'“‘«‹([{¿¡„「『（【"
_END = re.compile(rf"(?:[.!?…؟।॥۔]+|(?P<wide>[。！？｡]+))(?:[{_CLOSING}]|\s»(?=\s|$))*(?P<gap>\s+|$)?")
_CLAUSE = re.compile(r"(?<=[,;:—–])\s+|(?<=[、，；：])")


def paragraphs(text: str) -> list[str]:
    """The parts between empty lines, on one line each."""
    parts = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [part for part in parts if part]


def sentences(text: str, language: str = "en-us") -> list[str]:
    """The sentences of a paragraph, with all their marks.

    A sentence ends behind `.`, `!`, `?`, `…` and their like in other scripts, with the quotes and brackets that close
    there, if a space follows and then no lower-case letter; in Chinese and Japanese a space is not needed. A full stop
    behind an abbreviation, an initial or an ordinal ends none.
    """
    found, start = [], 0
    for end in _END.finditer(text):
        before, after = text[start : end.start()], text[end.end() :]
        if end["wide"] or (end["gap"] is not None and _ends(before, end[0], after, language)):
            found.append(text[start : end.end()].strip())
            start = end.end()
    return [sentence for sentence in (*found, text[start:].strip()) if sentence]


def _ends(before: str, marks: str, after: str, language: str) -> bool:
    """Whether marks with a space behind them end a sentence."""
    following = after.lstrip(_OPENING + " ")[:1]
    if following.islower():
        return False
    if not marks.startswith(".") or marks.startswith(".."):
        return True
    word = before.rsplit(None, 1)[-1].lstrip(_OPENING) if before.strip() else ""
    family = language.split("-")[0]
    if word.lower() in _PERHAPS.split():
        return not following.isdigit()
    if word.lower() in _ABBREVIATIONS.get(family, "").split():
        return False
    if re.fullmatch(r"[^\W\d_]|(?:\w\.)+\w", word):
        return word == "I" and family == "en"  # "J. R. R. Tolkien", but "So am I."
    numbers = re.fullmatch(r"\d{1,2}", word)
    return not (numbers and (family in _ORDINALS.split() or before.strip() == word))  # "am 3. Oktober", "1. The first"


def clauses(sentence: str) -> list[str]:
    """A sentence cut behind commas, semicolons, colons and dashes."""
    return [clause for clause in (part.strip() for part in _CLAUSE.split(sentence)) if clause]
