"""Mozilla's Common Voice, one language of it."""

from __future__ import annotations

from collections.abc import Iterator

from data_prep.sources.corpus import Corpus
from data_prep.sources.recording import Recording, espeak_language
from valle_jax.errors import UserError

# No client of one of them is in another (the corpus's README), so that the speakers of dev are new ones.
_SPLITS = {"train.tsv": None, "dev.tsv": "valid_speaker", "test.tsv": "test"}


def is_common_voice(corpus: Corpus) -> bool:
    """Whether clips/ and a list that is used are there."""
    return "clips" in corpus.top and bool(corpus.top.keys() & {*_SPLITS, "validated.tsv"})


def common_voice(corpus: Corpus) -> Iterator[Recording]:
    """Common Voice: clips/*.mp3 and the lists train.tsv, dev.tsv, test.tsv; without those three, validated.tsv.

    Layout: https://github.com/common-voice/cv-dataset. Speakers are `client_id`, and languages `locale`.

    Raises:
      UserError: a list without the columns client_id, path and sentence.
    """
    names = [name for name in _SPLITS if name in corpus.top] or ["validated.tsv"]
    for name in names:
        lines = corpus.lines(name)
        columns = next(lines, "").split("\t")
        if missing := {"client_id", "path", "sentence"} - set(columns):
            raise UserError(f"{corpus.address(name)} has no column {min(missing)!r}")
        for number, line in enumerate(lines, start=2):
            values = line.split("\t")
            if len(values) < max(map(columns.index, ("client_id", "path", "sentence"))) + 1:
                raise UserError(f"{corpus.address(name)}: line {number} has only {len(values)} columns")
            row = dict(zip(columns, values, strict=False))
            clip = row["path"] if "." in row["path"] else row["path"] + ".mp3"
            yield Recording(
                utterance_id=clip.rpartition(".")[0],
                speaker_id=row["client_id"],
                text=row["sentence"].strip(),
                audio_path=corpus.address(f"clips/{clip}"),
                source=f"clips/{clip}",
                language=espeak_language(row.get("locale")),
                split=_SPLITS.get(name),
            )
