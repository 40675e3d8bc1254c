"""What a corpus is listed as, whatever its layout."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Recording:
    """The audio of one utterance with its transcript, not yet read.

    Fields are plain values: a recording is written to a line of JSON and read back.

    Attributes:
      utterance_id: unique in the corpus.
      speaker_id: unique in the corpus.
      text: transcript; "" where the corpus has none.
      audio_path: local file or URL (gs://, s3://, …) that holds the audio; it may be missing. With `offset`: an
        archive, or `tfds:FILE?QUERY`, a file of TensorFlow Datasets.
      source: where it came from, the same on every machine (the audio's path inside the corpus, and which part of it).
      language: espeak-ng code, or None: the one asked for when preparing.
      split: one of SPLITS, or None: drawn when preparing.
      start_seconds, end_seconds: the part of the audio that is meant; None: from its start, to its end.
      words: of the text, and when each is said (text, start, end), in seconds of the audio's file; () where not known.
      offset, size: the bytes of the (uncompressed) archive that are the audio; None: the whole file.
    """

    utterance_id: str
    speaker_id: str
    text: str
    audio_path: str
    source: str
    language: str | None = None
    split: str | None = None
    start_seconds: float | None = None
    end_seconds: float | None = None
    offset: int | None = None
    size: int | None = None
    words: tuple[tuple[str, float, float], ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "words", tuple((str(word), start, end) for word, start, end in self.words))


def part(source: str, start_seconds: float, end_seconds: float) -> str:
    """The `source` of a part of a recording (as W3C Media Fragments writes it)."""
    return f"{source}#t={start_seconds:g},{end_seconds:g}"


_ESPEAK = {"en": "en-us", "english": "en-us", "fr": "fr-fr", "zh": "cmn", "nn": "nb", "chinese": "cmn"}


def espeak_language(name: str | None) -> str | None:
    """What corpora call a language (`English`, `en`, `zh-CN`, `sv-SE`), as espeak-ng calls it; None stays None.

    Names that espeak-ng does not know stay as they are: the recordings are rejected for an unknown language.
    """
    if not name:
        return None
    base = name.lower().partition("-")[0]
    return _ESPEAK.get(base, base if len(base) < 4 else name)
