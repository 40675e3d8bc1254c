"""The service without HTTP: what it says is what the synthesizer says, and what nobody waits for is not drawn."""

import contextlib
import dataclasses
import queue
import time

import numpy as np
import pytest

from valle_jax.errors import UserError
from valle_jax.inference.long_text import stream_long, synthesize_long
from valle_jax.inference.request import Audio, Options
from valle_jax.inference.streaming import Pace
from valle_jax.inference.voice import find_voice
from valle_jax.serving.metrics import Metrics
from valle_jax.serving.service import BrokenError, FullError, Service, Settings, UnknownVoiceError
from valle_jax.serving.speech_request import SpeechRequest

# Random decoders seldom end by themselves: takes are about as long as is allowed, and bad.
OPTIONS = Options(min_rate_ratio=0.5, max_rate_ratio=0.6, tries=1, batch_size=4)
TEXT = "four five six seven"
LONG = "One two three four five six. Seven eight nine ten eleven twelve? Four, five, six, seven, eight, nine, ten."
PACE = Pace(first_frames=10, chunk_frames=20, lookahead_frames=5)
SECONDS = 60


def _settings(voices, **changes) -> Settings:
    return Settings(
        **{"options": OPTIONS, "slots": 4, "voices": str(voices), "warm_up": False, "pace": PACE, **changes}
    )


@contextlib.contextmanager
def _working(service):
    service.start()
    try:
        yield service
    finally:
        service.stop()


def _chunks(events: queue.Queue) -> list:
    """Those of a stream."""
    chunks = [events.get(timeout=SECONDS)]
    while chunks[-1].info is None:
        chunks.append(events.get(timeout=SECONDS))
    return chunks


def test_requests_join_one_batch_and_get_what_the_synthesizer_says(tts, voices):
    """Codes exactly, though the engine's programs are others: see tests/inference/test_continuous_batching.py."""
    service = Service(tts, _settings(voices), Metrics())
    waiting = []
    for seed in range(6):
        events: queue.Queue = queue.Queue()
        service.say(SpeechRequest(TEXT, "anna", seed=seed), events.put)
        waiting.append(events)
    with _working(service):
        audios = [events.get(timeout=SECONDS) for events in waiting]
    assert service.occupancy.share > 0.5  # one after the other, it would be a quarter
    for seed, audio in enumerate(audios):
        alone = tts.synthesize(TEXT, prompt=find_voice("anna", voices), seed=seed, options=OPTIONS)
        np.testing.assert_array_equal(audio.codes, alone.codes)
        assert audio.info.pop("log_probability") == pytest.approx(alone.info.pop("log_probability"), abs=1e-5)
        assert audio.info == alone.info


def test_a_stream_is_the_synthesizers(tts, voices):
    """Chunk by chunk, beside others."""
    service = Service(tts, _settings(voices, steps=7), Metrics())
    waiting = []
    for seed in range(3):
        events: queue.Queue = queue.Queue()
        service.say(SpeechRequest(TEXT, "anna", stream="audio" if seed < 2 else None, seed=seed), events.put)
        waiting.append(events)
    with _working(service):
        streams = [_chunks(events) for events in waiting[:2]]
        assert isinstance(waiting[2].get(timeout=SECONDS), Audio)
    for seed, chunks in enumerate(streams):
        alone = list(tts.stream(TEXT, prompt=find_voice("anna", voices), seed=seed, options=OPTIONS, pace=PACE))
        assert len(chunks) == len(alone) > 2
        for chunk, other in zip(chunks, alone, strict=True):
            np.testing.assert_array_equal(chunk.codes, other.codes)
            np.testing.assert_array_equal(chunk.samples, other.samples)
        assert chunks[-1].info.keys() == alone[-1].info.keys()
        assert chunks[-1].info["problems"] == alone[-1].info["problems"]


def test_bad_takes_are_drawn_again_and_long_texts_are_said_in_pieces(tts, voices):
    options = dataclasses.replace(OPTIONS, tries=2)
    metrics = Metrics()
    with _working(Service(tts, _settings(voices, options=options), metrics)) as service:
        events: queue.Queue = queue.Queue()
        service.say(SpeechRequest(LONG, "anna", seed=5), events.put)
        audio = events.get(timeout=SECONDS)
    alone = synthesize_long(tts, LONG, voice=find_voice("anna", voices), seed=5, options=options)
    assert len(audio.info["pieces"]) == len(alone.info["pieces"]) > 1
    np.testing.assert_array_equal(audio.codes, alone.codes)
    np.testing.assert_array_equal(audio.samples, alone.samples)
    assert audio.info["problems"] == alone.info["problems"] != []
    bad = [piece for piece in audio.info["pieces"] if piece["problems"]]
    assert all(piece["tries"] == 2 for piece in bad)
    drawn_again = sum(piece["tries"] - 1 for piece in audio.info["pieces"])
    assert f"valle_redrawn_takes_total {float(drawn_again)}" in metrics.text()[0].decode()


def test_a_long_text_is_streamed_piece_by_piece(tts, voices):
    """The first while it is drawn, the others as they are said at once, as `stream_long` gives them out."""
    options = dataclasses.replace(OPTIONS, tries=2)
    events: queue.Queue = queue.Queue()
    with _working(Service(tts, _settings(voices, options=options), Metrics())) as service:
        service.say(SpeechRequest(LONG, "anna", stream="audio", seed=5), events.put)
        chunks = _chunks(events)
    alone = list(stream_long(tts, LONG, voice=find_voice("anna", voices), seed=5, options=options, pace=PACE))
    assert len(chunks) == len(alone)
    for chunk, other in zip(chunks, alone, strict=True):
        np.testing.assert_array_equal(chunk.codes, other.codes)
        np.testing.assert_array_equal(chunk.samples, other.samples)
    mine, others = chunks[-1].info, alone[-1].info
    assert mine.keys() == others.keys()
    assert mine["pieces"][0]["tries"] == 1  # what was heard is not drawn again; what follows is
    for piece, other in zip(mine["pieces"], others["pieces"], strict=True):
        assert piece.pop("log_probability") == pytest.approx(other.pop("log_probability"), abs=1e-5)
        assert piece == other


def test_what_is_cancelled_is_not_drawn(tts, voices):
    """Neither what waits nor what is being drawn, whose slot others get."""
    service = Service(tts, _settings(voices, steps=1), Metrics())
    given_up: queue.Queue = queue.Queue()
    last: queue.Queue = queue.Queue()
    tickets = [service.say(SpeechRequest(TEXT, "anna", seed=seed), given_up.put) for seed in range(6)]
    service.say(SpeechRequest(TEXT, "anna", seed=6), last.put)
    with _working(service):
        while len(service._drawing) < 4:  # which is before they are prefilled
            time.sleep(0.001)
        for ticket in tickets:
            service.cancel(ticket)
        audio = last.get(timeout=SECONDS)
    assert given_up.empty()
    assert audio.info["seed"] == 6
    assert service.occupancy.drawn < 4 * len(audio.codes)  # of seven


def test_what_cannot_be_taken_is_refused(tts, voices, tmp_path):
    service = Service(tts, _settings(voices, max_waiting=2), Metrics())
    for name in ("bob", "../voices/anna", str(voices / "anna"), "anna.voice.npz", ""):
        with pytest.raises(UnknownVoiceError, match="no voice"):
            service.say(SpeechRequest(TEXT, name), print)
    with pytest.raises(UserError, match="no phonemes"):
        service.say(SpeechRequest("?!", "anna"), print)
    events: queue.Queue = queue.Queue()
    for _ in range(2):
        service.say(SpeechRequest(TEXT, "anna"), events.put)
    with pytest.raises(FullError):
        service.say(SpeechRequest(TEXT, "anna"), print)
    with pytest.raises(UserError, match="no voices to speak in"):
        Service(tts, _settings(tmp_path), Metrics())
    with _working(service):
        pass
    assert all(isinstance(events.get(timeout=1), Audio | BrokenError) for _ in range(2))


def test_a_failure_is_told_to_all_that_wait(tts, voices):
    """An engine that cannot draw what it is given, here for want of its parameters."""
    failed = queue.Queue()
    service = Service(tts, _settings(voices), Metrics(), lambda: failed.put(True))
    service._engine._params = {}
    events: queue.Queue = queue.Queue()
    service.say(SpeechRequest(TEXT, "anna"), events.put)
    service.start()
    assert isinstance(events.get(timeout=SECONDS), BrokenError)
    assert failed.get(timeout=SECONDS)
    with pytest.raises(BrokenError):
        service.say(SpeechRequest(TEXT, "anna"), print)
    service.stop()
