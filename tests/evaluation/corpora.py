"""Small corpora of tones, with transcripts."""

import json
import pathlib

import numpy as np

from valle_jax.audio import write_audio

RATE = 8_000


def tone(seconds: float, hertz: float) -> np.ndarray:
    """Float32 [samples]."""
    return (0.3 * np.sin(np.arange(round(seconds * RATE)) * 2 * np.pi * hertz / RATE)).astype(np.float32)


def write_corpus(folder: pathlib.Path, utterances: list[dict], *, reverse: bool = False) -> pathlib.Path:
    """A JSONL corpus; an utterance has `audio`, `speaker`, `text`, `seconds`, and perhaps `split`, `language`."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, utterance in enumerate(utterances):
        entry = {key: value for key, value in utterance.items() if key != "seconds"}
        path = folder / entry["audio"]
        path.parent.mkdir(parents=True, exist_ok=True)
        if utterance.get("seconds"):
            write_audio(path, tone(utterance["seconds"], 100 + 20 * number), RATE)
        lines.append(json.dumps(entry) + "\n")
    (folder / "manifest.jsonl").write_text("".join(reversed(lines) if reverse else lines))
    return folder


def utterances(speakers: int, each: int, seconds: float = 5.0) -> list[dict]:
    """`each` utterances of every speaker, 0.1 s longer one after the other."""
    return [
        {"audio": f"s{s}/u{u}.wav", "speaker": f"s{s}", "text": f"text {s} {u}", "seconds": seconds + 0.1 * u}
        for s in range(speakers)
        for u in range(each)
    ]
