"""Other words in a recording: codes of what is kept stay bit for bit, new words go on from what stands before them."""

from __future__ import annotations

import dataclasses
import difflib
import os
from collections.abc import Sequence

import numpy as np

from valle_jax.audio import read_audio
from valle_jax.errors import UserError
from valle_jax.hearing.alignment import align
from valle_jax.hearing.recognition import normalise
from valle_jax.inference.long_text import fits
from valle_jax.inference.synthesizer import Audio, Options, Request, Synthesizer
from valle_jax.inference.voice import Voice

LANGUAGE = "en-us"  # of the aligner
FADE_SECONDS = 0.02  # at both sides of what is new
_CONTEXT_SECONDS = 10.0  # of kept speech are the prompt of what is new, at most
_ENOUGH_SECONDS = 2.0  # of speech before it; where there is less, speech from behind tells the voice
_LEAST_SECONDS = 0.5


@dataclasses.dataclass(frozen=True)
class Change:
    """Words [begin, end) of the transcript, in whose place the words `new` are to be said."""

    begin: int
    end: int
    new: tuple[str, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Unit:
    """A kept word, or new ones: the text, codes [T, Q], and the first frame in the recording, None where it is new."""

    text: str
    codes: np.ndarray
    frame: int | None


def words(text: str) -> list[str]:
    """The words of a text with their marks; marks that stand alone are added to the word before."""
    found: list[str] = []
    for token in text.split():
        if normalise(token):
            found.append(token)
        elif found:
            found[-1] += f" {token}"
    return found


def changes(old: Sequence[str], new: Sequence[str]) -> list[Change]:
    """What makes the new words of the old ones, from left to right; case and marks do not count."""
    before, after = ([" ".join(normalise(word)) for word in side] for side in (old, new))
    matcher = difflib.SequenceMatcher(None, before, after, autojunk=False)
    return [Change(i, j, tuple(new[k:m])) for kind, i, j, k, m in matcher.get_opcodes() if kind != "equal"]


def word_bounds(samples: np.ndarray, sample_rate: int, spoken: Sequence[str]) -> list[float]:
    """Where each of n words begins, in seconds, in the middle of the pause before it; and where the last one ends.

    Raises:
      UserError: the words cannot be what is said, or the aligner is not installed.
    """
    found = align(samples, sample_rate, " ".join(spoken))
    counts = [len(normalise(word)) for word in spoken]
    if found is None or len(found.words) != sum(counts):
        raise UserError("the transcript is not what the recording says: correct it, word by word")
    firsts = np.cumsum([0, *counts[:-1]])
    starts = [found.words[i].start for i in firsts]
    ends = [found.words[i + n - 1].end for i, n in zip(firsts, counts, strict=True)]
    middles = [(end + start) / 2 for end, start in zip(ends, starts[1:], strict=False)]
    return [starts[0], *middles, ends[-1]]


def edit(
    tts: Synthesizer,
    audio: str | os.PathLike[str] | np.ndarray,
    transcript: str,
    new_text: str,
    *,
    seed: int = 0,
    options: Options = Options(),
) -> Audio:
    """Replaces, inserts and deletes words in an English recording.

    Forced alignment finds the words that differ. Those that are new are said as what follows the kept speech before
    them, up to the end of speech. The codes of all that is kept are those of the recording, and so are its samples, but
    for fades of 20 ms at the joints.

    Args:
      tts: a model for English.
      audio: a file, or float32 [samples] at the codec's sample rate.
      transcript: what it says.
      new_text: what it is to say.
      seed, options: as for `Synthesizer.synthesize`; change i draws as utterance i of a batch.

    Returns:
      Audio with the info `frames`, `seconds`, `problems`, `seed`, and `edits`: for each change `old` and `new` words,
      their place in the recording (`old_seconds`) and in the result (`new_seconds`), and `info` of what was said.

    Raises:
      UserError: the texts do not differ or have no words, the transcript does not fit the recording, or too little of
        it is kept to tell the voice.
    """
    rate, per_second = tts.codec.info.sample_rate, tts.codec.info.frames_per_second
    recording = audio.astype(np.float32) if isinstance(audio, np.ndarray) else read_audio(audio, rate)
    old, new = words(transcript), words(new_text)
    todo = changes(old, new)
    if not old or not new or not todo:
        raise UserError("the transcript and the new text must have words, and differ in them")
    bounds = word_bounds(recording, rate, old)
    (codes,), _ = tts.codec.encode([recording])
    frames = [0, *np.clip(np.round(np.array(bounds) * per_second).astype(int), 0, len(codes)).tolist(), len(codes)]
    # Before the first word and behind the last there is a unit without words.
    units = [Unit(text, codes[a:b], a) for text, a, b in zip(("", *old, ""), frames[:-1], frames[1:], strict=True)]
    made: list[Unit] = []
    edits, problems, at = [], set(), 0
    for number, change in enumerate(todo):
        made += units[at : change.begin + 1]
        at = change.end + 1
        text = " ".join(change.new)
        start = sum(len(unit.codes) for unit in made)
        info = None
        if change.new:
            voice = _context(tts, made, units[at:], text)
            (said,) = tts.synthesize_batch([Request(text, voice)], seed=seed, options=options, first=number)
            made.append(Unit(text, said.codes, None))
            info = said.info
            problems |= set(info["problems"])
        end = sum(len(unit.codes) for unit in made)
        edits.append(
            {
                "old": " ".join(old[change.begin : change.end]),
                "new": text,
                "old_seconds": [frames[change.begin + 1] / per_second, frames[change.end + 1] / per_second],
                "new_seconds": [start / per_second, end / per_second],
                "info": info,
            }
        )
    made += units[at:]
    whole = np.concatenate([unit.codes for unit in made]).astype(np.int32)
    samples = paste(tts.codec.decode(whole[None])[0], recording, _runs(made), round(rate / per_second), rate)
    facts = {"frames": len(whole), "seconds": len(samples) / rate, "problems": sorted(problems), "seed": seed}
    return Audio(samples, rate, {**facts, "edits": edits}, whole)


def _context(tts: Synthesizer, before: Sequence[Unit], behind: Sequence[Unit], text: str) -> Voice:
    """The speech that new words go on from, as a prompt: what stands before them, and where that is little, first
    some of what stands behind them."""
    info = tts.codec.info

    def seconds(units: Sequence[Unit]) -> float:
        return sum(len(unit.codes) for unit in units) / info.frames_per_second

    left = [unit for unit in before if len(unit.codes)]
    right: list[Unit] = []
    while seconds(left) > _CONTEXT_SECONDS:
        left = left[1:]
    if seconds(left) < _ENOUGH_SECONDS:
        right = [unit for unit in behind if len(unit.codes)]
        while seconds(right) > _CONTEXT_SECONDS - seconds(left):
            right = right[:-1]
    while True:
        prompt = [*right, *left]
        said = " ".join(unit.text for unit in prompt if unit.text)
        if seconds(prompt) < _LEAST_SECONDS or not said:
            raise UserError(f"too little of the recording is kept, or room for it, to say {text!r} in its voice")
        codes = np.concatenate([unit.codes for unit in prompt])
        voice = Voice(codes.astype(np.uint16), said, tts.phonemize([said])[0], tts.language, info)
        if fits(tts, text, voice):
            return voice
        left, right = (left, right[:-1]) if right else (left[1:], right)


def paste(
    decoded: np.ndarray, recording: np.ndarray, runs: Sequence[tuple[int | None, int]], hop: int, sample_rate: int
) -> np.ndarray:
    """The recording's own samples where it is kept, and decoded ones, float32 [samples], where it is not.

    A joint is faded within the kept speech at its sides, from the recording to what was decoded of the same codes.

    Args:
      decoded: of all codes, those of runs one after the other.
      recording: float32 [samples].
      runs: first frame in the recording, None for what is new, and number of frames.
      hop: samples per frame.
      sample_rate: of both.
    """
    ramp = np.linspace(0, 1, round(FADE_SECONDS * sample_rate), dtype=np.float32)
    samples = decoded.copy()
    place = 0
    for i, (frame, count) in enumerate(runs):
        if frame is not None:
            kept = recording[frame * hop : (frame + count) * hop]
            samples[place + len(kept) : place + count * hop] = 0  # behind a recording's end
            weight = np.ones(len(kept), np.float32)
            fade = min(len(ramp), len(kept) // 2)
            if i > 0:
                weight[:fade] = ramp[:fade]
            if i < len(runs) - 1:
                weight[len(kept) - fade :] = ramp[:fade][::-1]
            here = samples[place : place + len(kept)]
            here[:] = np.where(weight == 1, kept, weight * kept + (1 - weight) * here)
        place += count * hop
    return samples


def _runs(units: Sequence[Unit]) -> list[tuple[int | None, int]]:
    """First frame in the recording and frames of what lies side by side there, or is new."""
    runs: list[tuple[int | None, int]] = []
    for unit in units:
        frame, count = runs[-1] if runs else (None, 0)
        expected = None if frame is None else frame + count
        if runs and unit.frame == expected:
            runs[-1] = frame, count + len(unit.codes)
        elif len(unit.codes):
            runs.append((unit.frame, len(unit.codes)))
    return runs
