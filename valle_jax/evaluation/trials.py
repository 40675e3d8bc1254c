"""Trial lists: which utterance is said with which prompt, the same on every machine, as JSON lines."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections import defaultdict
from typing import Any

from tqdm import tqdm

from valle_jax.audio import read_audio
from valle_jax.errors import UserError, WorkError
from valle_jax.evaluation.corpus import Corpus, Rejected, Spoken
from valle_jax.evaluation.cutting import WordCutter
from valle_jax.evaluation.protocols import Protocol, Setting

LIST_VERSION = 1
_CONTINUED_SECONDS = 1.0  # that must be left of an utterance behind its prefix
_CANDIDATES = 8  # recordings that are tried for a cut
_ALIGNER_RATE = 16_000


@dataclasses.dataclass(frozen=True)
class Trial:
    """A text to say in the voice of a prompt, and the recording that it is compared with.

    Attributes:
      id: unique in the list.
      utterance: of the corpus; an utterance has a trial in each setting.
      setting: name of the `Setting`.
      speaker: who speaks both.
      text: what to say.
      audio: the recording of it, inside the corpus.
      seconds: its length.
      audio_hash: 16 hex digits of its file's SHA-256.
      prompt_audio: the prompt's recording, of which the first `prompt_seconds` are the prompt.
      prompt_seconds: length of the prompt.
      prompt_text: what the prompt says; None where the prompt is the beginning of `audio`.
      prompt_hash: as `audio_hash`.
    """

    id: str
    utterance: str
    setting: str
    speaker: str
    text: str
    audio: str
    seconds: float
    audio_hash: str
    prompt_audio: str
    prompt_seconds: float
    prompt_text: str | None
    prompt_hash: str

    @property
    def continues(self) -> bool:
        """Whether the prompt is the beginning of the utterance itself."""
        return self.prompt_text is None


@dataclasses.dataclass(frozen=True)
class TrialList:
    """Trials and how they came about.

    Attributes:
      header: `version`, `protocol`, `rule`, `language`, `limit`, `aligner`, and the `corpus`'s fingerprint.
      trials: in an order in which the first few are of different speakers.
      rejected: utterances that make no trial, with the reason.
    """

    header: dict[str, Any]
    trials: tuple[Trial, ...]
    rejected: tuple[Rejected, ...] = ()

    def save(self, folder: pathlib.Path) -> None:
        """Writes trials.jsonl, whose first line is the header, and rejected.jsonl, each at once or not at all."""
        for name, first, items in (
            ("rejected.jsonl", [], self.rejected),
            ("trials.jsonl", [self.header], self.trials),
        ):
            lines = [*first, *(dataclasses.asdict(item) for item in items)]
            partial = folder / f"{name}.{os.getpid()}.tmp"
            partial.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
            os.replace(partial, folder / name)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrialList:
        """Reads trials.jsonl, and rejected.jsonl where it is beside it.

        Raises:
          UserError: it is no such file, or of another version.
        """
        path = pathlib.Path(path)
        try:
            header, *trials = _read_lines(path)
            if header["version"] != LIST_VERSION:
                raise UserError(f"{path} has version {header['version']}, this program reads {LIST_VERSION}")
            beside = path.with_name("rejected.jsonl")
            rejected = _read_lines(beside) if beside.exists() else []
            return cls(header, tuple(Trial(**t) for t in trials), tuple(Rejected(**r) for r in rejected))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"cannot read the trial list {path}: {error}") from None


def _read_lines(path: pathlib.Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def make_trials(
    corpus: Corpus, protocol: Protocol, *, limit: int | None = None, language: str = "en-us", progress: bool = True
) -> TrialList:
    """The trials of a protocol on a corpus. What is chosen is chosen by hashes of names: no other list is possible.

    Recordings of a training split are left out. `limit` is the number of utterances, the speakers in turn.

    Raises:
      UserError: prompts are to be cut and pocketsphinx is not installed.
      WorkError: no utterance makes a trial.
    """
    maker = _Maker(corpus, protocol, language)
    trials: list[Trial] = []
    ordered = maker.ordered()
    rejected = [*corpus.rejected, *maker.rejected]
    n_utterances = 0
    bar = tqdm(total=min(limit or len(ordered), len(ordered)), desc="trials", unit="utterance", disable=not progress)
    with bar:
        for spoken in ordered:
            if n_utterances == limit:
                break
            made = [maker.trial(spoken, setting) for setting in protocol.settings]
            trials += [trial for trial in made if isinstance(trial, Trial)]
            rejected += [trial for trial in made if isinstance(trial, Rejected)]
            n_utterances += any(isinstance(trial, Trial) for trial in made)
            bar.update()
    if not trials:
        reasons = "; ".join(sorted({r.reason for r in rejected})[:3]) or "all recordings are for training"
        raise WorkError(f"{corpus.root} has no utterance for protocol {protocol.name}: {reasons}")
    return TrialList(header(corpus, protocol, limit, language), tuple(trials), tuple(rejected))


def header(corpus: Corpus, protocol: Protocol, limit: int | None, language: str) -> dict[str, Any]:
    """What decides the trials: lists of equal headers are equal."""
    needs_cut = any(setting.prompt == "cut" for setting in protocol.settings)
    rule = json.loads(json.dumps(dataclasses.asdict(protocol)))  # tuples as JSON has them
    return {
        "version": LIST_VERSION,
        "protocol": protocol.name,
        "rule": {key: value for key, value in rule.items() if key != "systems"},
        "corpus": corpus.fingerprint,
        "language": language,
        "limit": limit,
        "aligner": WordCutter().name if needs_cut else None,
    }


class _Maker:
    """Chooses prompts."""

    def __init__(self, corpus: Corpus, protocol: Protocol, language: str):
        self._corpus, self._protocol = corpus, protocol
        self.rejected: list[Rejected] = []
        inside = [r for r in corpus.recordings if protocol.subset in pathlib.PurePosixPath(r.audio).parts]
        pool = [r for r in inside or corpus.recordings if r.split != "train"]
        self._pool: list[Spoken] = []
        for recording in pool:
            if recording.language in (None, language):
                self._pool.append(recording)
            else:
                self.rejected.append(Rejected(recording.utterance, f"its language is {recording.language}"))
        self._of_speaker: dict[str, list[Spoken]] = defaultdict(list)
        for recording in self._pool:
            self._of_speaker[recording.speaker].append(recording)
        self._cuts: dict[tuple[str, float], tuple[float, str] | None] = {}
        self._hashes: dict[str, str] = {}
        self._cutter: WordCutter | None = None

    def ordered(self) -> list[Spoken]:
        """Utterances of a length to test on, by hash, the speakers in turn."""
        low, high = self._protocol.seconds
        places = []
        for of_speaker in self._of_speaker.values():
            fitting = []
            for recording in of_speaker:
                if low <= recording.seconds <= high:
                    fitting.append(recording)
                else:
                    reason = f"{recording.seconds:g} s are not in {low:g} to {high:g} s"
                    self.rejected.append(Rejected(recording.utterance, reason))
            fitting.sort(key=lambda r: self._hash(r.utterance))
            places += [(turn, self._hash(recording.utterance), recording) for turn, recording in enumerate(fitting)]
        return [recording for _, _, recording in sorted(places, key=lambda place: place[:2])]

    def trial(self, spoken: Spoken, setting: Setting) -> Trial | Rejected:
        """The trial of an utterance in a setting."""
        prompt = self._prefix(spoken, setting) if setting.prompt == "prefix" else self._other(spoken, setting)
        if isinstance(prompt, str):
            return Rejected(
                spoken.utterance, prompt if len(self._protocol.settings) == 1 else f"{setting.name}: {prompt}"
            )
        recording, seconds, text = prompt
        return Trial(
            id=spoken.utterance if len(self._protocol.settings) == 1 else f"{spoken.utterance} ({setting.name})",
            utterance=spoken.utterance,
            setting=setting.name,
            speaker=spoken.speaker,
            text=spoken.text,
            audio=spoken.audio,
            seconds=spoken.seconds,
            audio_hash=self._file_hash(spoken.audio),
            prompt_audio=recording.audio,
            prompt_seconds=seconds,
            prompt_text=text,
            prompt_hash=self._file_hash(recording.audio),
        )

    def _prefix(self, spoken: Spoken, setting: Setting) -> tuple[Spoken, float, str | None] | str:
        if spoken.seconds < setting.seconds[0] + _CONTINUED_SECONDS:
            return f"{spoken.seconds:g} s leave nothing to say behind a prompt of {setting.seconds[0]:g} s"
        return spoken, setting.seconds[0], None

    def _other(self, spoken: Spoken, setting: Setting) -> tuple[Spoken, float, str | None] | str:
        """Another recording of the speaker, the seconds of it, and what they say; or the reason why there is none."""
        others = [r for r in self._of_speaker[spoken.speaker] if r.utterance != spoken.utterance]
        others.sort(key=lambda r: self._hash(setting.name, spoken.utterance, r.utterance))
        low, high = setting.seconds
        if setting.prompt == "whole":
            fitting = [r for r in others if low <= r.seconds <= high]
            return (
                (fitting[0], fitting[0].seconds, fitting[0].text)
                if fitting
                else (f"no other recording of speaker {spoken.speaker} has {low:g} to {high:g} s")
            )
        for recording in [r for r in others if r.seconds >= low][:_CANDIDATES]:
            cut = self._cut(recording, low)
            if cut is not None:
                return recording, *cut
        return f"no other recording of speaker {spoken.speaker} can be cut at a word near {low:g} s"

    def _cut(self, recording: Spoken, seconds: float) -> tuple[float, str] | None:
        if (recording.audio, seconds) not in self._cuts:
            self._cutter = self._cutter or WordCutter()
            samples = read_audio(self._corpus.root / recording.audio, _ALIGNER_RATE)
            self._cuts[recording.audio, seconds] = self._cutter.cut(samples, _ALIGNER_RATE, recording.text, seconds)
        return self._cuts[recording.audio, seconds]

    def _hash(self, *names: str) -> str:
        return digest(self._protocol.name, self._protocol.version, *names)

    def _file_hash(self, audio: str) -> str:
        if audio not in self._hashes:
            self._hashes[audio] = hashlib.sha256((self._corpus.root / audio).read_bytes()).hexdigest()[:16]
        return self._hashes[audio]


def digest(*parts: Any) -> str:
    """16 hex digits of what `json.dumps` makes of the parts."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]
