"""LibriSpeech and LibriTTS, unpacked, or as the archives that OpenSLR distributes."""

from __future__ import annotations

import collections
import os
import tarfile
import zlib
from collections.abc import Iterator

from data_prep.sources.audio import open_archive
from data_prep.sources.corpus import Corpus, is_audio, joined
from data_prep.sources.recording import Recording
from valle_jax.errors import UserError

ARCHIVES = (".tar", ".tar.gz", ".tgz")


def librispeech(corpus: Corpus) -> Iterator[Recording]:
    """LibriSpeech: SPEAKER/CHAPTER/ID.flac with lines `ID TEXT` in *.trans.txt, at any depth, one or many subsets.

    Layout: README.TXT of https://www.openslr.org/12. Audio without a line is listed with an empty text, a line without
    audio with a path that does not exist.
    """
    return _by_folder(corpus, ".flac", "-")


def libritts(corpus: Corpus) -> Iterator[Recording]:
    """LibriTTS and LibriTTS-R: SPEAKER/CHAPTER/ID.wav beside ID.normalized.txt (and ID.original.txt, not used).

    Layout: https://www.openslr.org/60 and https://www.openslr.org/141.
    """
    return _by_folder(corpus, ".wav", "_")


def archives(corpus: Corpus) -> Iterator[Recording]:
    """The same two as .tar or .tar.gz, one after the other, each read in one pass; nothing is unpacked to disk.

    Audio is listed with where its bytes lie in the archive, so shards, which are runs of this list, are stretches of
    the archive. It waits for its folder's transcripts, which may come before or after it: as names, not as audio.
    """
    for name in corpus.matching(*ARCHIVES):
        yield from _archive(corpus, name)


def has_transcripts(corpus: Corpus, suffix: str) -> bool:
    """Whether a file anywhere in the corpus ends so."""
    return not corpus.file and any(name.endswith(suffix) for _, names in corpus.walk() for name in names)


def _by_folder(corpus: Corpus, suffix: str, separator: str) -> Iterator[Recording]:
    for folder, names in corpus.walk():
        audio = {os.path.splitext(name)[0]: name for name in names if is_audio(name)}
        texts: dict[str, str] = {}
        for name in names:
            if _holds_texts(name):
                texts |= _texts(name, corpus.lines(joined(folder, name)))
        for utterance_id in sorted(audio.keys() | texts.keys()):
            name = joined(folder, audio.get(utterance_id, utterance_id + suffix))
            yield Recording(
                utterance_id=utterance_id,
                speaker_id=utterance_id.partition(separator)[0],
                text=texts.get(utterance_id, ""),
                audio_path=corpus.address(name),
                source=name,
            )


def _holds_texts(name: str) -> bool:
    return name.endswith((".trans.txt", ".normalized.txt"))


def _texts(name: str, lines: Iterator[str]) -> dict[str, str]:
    """Transcripts by utterance, of one file."""
    if name.endswith(".normalized.txt"):
        return {name.removesuffix(".normalized.txt"): " ".join(line.strip() for line in lines)}
    pairs = (line.partition(" ") for line in lines)
    return {utterance_id: text.strip() for utterance_id, _, text in pairs}


def _archive(corpus: Corpus, name: str) -> Iterator[Recording]:
    address = corpus.address(name)
    audio: dict[str, dict[str, tarfile.TarInfo]] = collections.defaultdict(dict)  # waits, by folder and utterance
    texts: dict[str, dict[str, str]] = collections.defaultdict(dict)
    has_texts = False

    def recording(folder: str, utterance_id: str, text: str) -> Recording:
        member = audio[folder].pop(utterance_id, None)
        path = member.name.removeprefix("./") if member else joined(folder, utterance_id + ".flac")
        return Recording(
            utterance_id=utterance_id,
            speaker_id=utterance_id.partition("-")[0].partition("_")[0],
            text=text,
            audio_path=address,
            source=f"{name}/{path}",
            offset=member.offset_data if member else 0,
            size=member.size if member else 0,
        )

    try:
        with open_archive(address) as stream, tarfile.open(fileobj=stream, mode="r|") as members:
            for member in members:
                members.members = []  # type: ignore[attr-defined]  # which tarfile would keep
                folder, _, file = member.name.removeprefix("./").rpartition("/")
                utterance_id = os.path.splitext(file)[0]
                if is_audio(file):
                    audio[folder][utterance_id] = member
                    found = [utterance_id] if utterance_id in texts[folder] else []
                elif _holds_texts(file):
                    has_texts = True
                    content = members.extractfile(member)
                    assert content is not None
                    texts[folder] |= _texts(file, iter(content.read().decode().splitlines()))
                    found = [key for key in audio[folder] if key in texts[folder]]
                else:
                    continue
                for key in found:
                    yield recording(folder, key, texts[folder].pop(key))
    except (tarfile.TarError, EOFError, zlib.error, UnicodeDecodeError, OSError) as error:
        raise UserError(f"cannot read archive {address}: {error}; fetch it again") from None
    if not has_texts:
        raise UserError(
            f"{address} holds no *.trans.txt or *.normalized.txt, so it is not LibriSpeech or LibriTTS; unpack it"
        )
    for folder in list(audio):
        for key in list(audio[folder]):
            yield recording(folder, key, "")
    for folder in list(texts):
        for key, text in texts[folder].items():
            yield recording(folder, key, text)
