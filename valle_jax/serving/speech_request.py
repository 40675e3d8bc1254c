"""The body of `POST /v1/audio/speech`: those of OpenAI's fields that a voice prompt leaves room for, and a seed."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from valle_jax.errors import UserError
from valle_jax.serving.formats import FORMATS, STREAMABLE

MOST_SEED = (1 << 31) - 1
_STREAM_FORMATS = ("audio", "sse")
_FIELDS = ("model", "input", "voice", "response_format", "stream_format", "speed", "seed")


@dataclasses.dataclass(frozen=True)
class SpeechRequest:
    """What a client asks for.

    Attributes:
      text: what to say.
      voice: the name of a stored voice.
      format: of the audio, one of `FORMATS`.
      stream: None: the whole at once; "audio": bytes while they come; "sse": events with the bytes in base64.
      seed: of the random draws; None: any.
    """

    text: str
    voice: str
    format: str = "mp3"
    stream: str | None = None
    seed: int | None = None


def parse(body: bytes, characters: int) -> SpeechRequest:
    """A body of JSON, of at most so many `characters` of text.

    Raises:
      UserError: it is no such request; the message names the field.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise UserError("the body is not JSON") from None
    if not isinstance(value, dict):
        raise UserError("the body is not a JSON object")
    value = {key: field for key, field in value.items() if field is not None}
    unknown = sorted(value.keys() - set(_FIELDS))
    if unknown:
        raise UserError(f"unknown field {unknown[0]!r}; known: {', '.join(_FIELDS)}")
    text, voice = _string(value, "input"), value.get("voice")
    if isinstance(voice, dict):  # as OpenAI names a voice of one's own
        voice = voice.get("id")
    if not isinstance(voice, str):
        raise UserError("voice must be the name of a voice; GET /v1/voices lists them")
    if not text.strip():
        raise UserError("input has no text")
    if len(text) > characters:
        raise UserError(f"input has {len(text)} characters; this server takes {characters}")
    _string(value, "model", "")  # the server has one
    if value.get("speed", 1) != 1:
        raise UserError("speed must be 1: the speaking rate is that of the voice")
    seed = value.get("seed")
    if seed is not None and (not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MOST_SEED):
        raise UserError(f"seed must be an integer from 0 to {MOST_SEED}")
    stream = _choice(value, "stream_format", _STREAM_FORMATS)
    format_ = _choice(value, "response_format", FORMATS) or "mp3"
    if stream and format_ not in STREAMABLE:
        raise UserError(f"response_format {format_} cannot be streamed; these can: {', '.join(STREAMABLE)}")
    return SpeechRequest(text, voice, format_, stream, seed)


def _string(value: dict[str, Any], name: str, default: str | None = None) -> str:
    field = value.get(name, default)
    if not isinstance(field, str):
        raise UserError(f"{name} must be a string")
    return field


def _choice(value: dict[str, Any], name: str, known: tuple[str, ...]) -> str | None:
    if name not in value:
        return None
    field = _string(value, name)
    if field not in known:
        raise UserError(f"{name} {field!r} is not offered; known: {', '.join(known)}")
    return field
