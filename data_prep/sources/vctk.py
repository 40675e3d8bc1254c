"""CSTR's VCTK corpus."""

from __future__ import annotations

from collections.abc import Iterator

from data_prep.sources.corpus import Corpus, joined
from data_prep.sources.recording import Recording

_AUDIO = ("wav48_silence_trimmed", "wav48")  # of 0.92, of 0.80
_ENDS = ("_mic1.flac", "_mic2.flac", ".wav")


def is_vctk(corpus: Corpus) -> bool:
    """Whether the folders of either version are there."""
    return "txt" in corpus.top and any(name in corpus.top for name in _AUDIO)


def vctk(corpus: Corpus) -> Iterator[Recording]:
    """VCTK 0.92: wav48_silence_trimmed/p225/p225_001_mic1.flac and txt/p225/p225_001.txt; 0.80 has wav48/*/*.wav.

    Layout: README of https://doi.org/10.7488/ds/2645. Both microphones recorded the same utterance: the first is used,
    and the second only where the first is missing. The texts of p315 were lost: its recordings have none.
    """
    audio = next(name for name in _AUDIO if name in corpus.top)
    texts = dict(corpus.walk("txt"))
    for folder, names in corpus.walk(audio):
        speaker_id = folder.rpartition("/")[2]
        found: dict[str, str] = {}
        for end in _ENDS:
            for name in names:
                if name.endswith(end):
                    found.setdefault(name.removesuffix(end), name)
        with_text = set(texts.get(f"txt/{speaker_id}", ()))
        for utterance_id in sorted(found):
            text = f"{utterance_id}.txt"
            lines = corpus.lines(f"txt/{speaker_id}/{text}") if text in with_text else ()
            name = joined(folder, found[utterance_id])
            yield Recording(
                utterance_id=utterance_id,
                speaker_id=speaker_id,
                text=" ".join(line.strip() for line in lines),
                audio_path=corpus.address(name),
                source=name,
            )
