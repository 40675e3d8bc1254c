"""The server on loopback: formats, limits, streams, clients that go, metrics, and its end."""

import base64
import concurrent.futures
import contextlib
import dataclasses
import io
import json
import re
import signal
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
import soundfile
import uvicorn
from environments import with_devices
from prometheus_client.parser import text_string_to_metric_families

from valle_jax.inference.request import Options
from valle_jax.inference.streaming import Pace
from valle_jax.inference.voice import find_voice
from valle_jax.serving.api import INFO_HEADER, Limits, create_app
from valle_jax.serving.metrics import Metrics
from valle_jax.serving.service import Service, Settings

OPTIONS = Options(min_rate_ratio=0.5, max_rate_ratio=0.6, tries=1, batch_size=4)
PACE = Pace(first_frames=10, chunk_frames=20, lookahead_frames=5)
LIMITS = Limits(body_bytes=2_000, characters=200, seconds=60)
TEXT = "four five six seven"
SPEECH = "/v1/audio/speech"


@contextlib.contextmanager
def _serving(tts, voices, limits=LIMITS, api_key=None, **changes):
    """A client of a server that runs in a thread."""
    metrics = Metrics()
    settings = {"options": OPTIONS, "slots": 4, "pace": PACE, "voices": str(voices), "warm_up": False, **changes}
    service = Service(tts, Settings(**settings), metrics)
    app = create_app(service, metrics, limits, api_key)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def client(tts, voices):
    """Of a server that most tests share."""
    with _serving(tts, voices) as client:
        yield client


def _say(client, **changes) -> httpx.Response:
    fields = {"model": "valle", "input": TEXT, "voice": "anna", "response_format": "wav", "seed": 3, **changes}
    return client.post(SPEECH, json={key: value for key, value in fields.items() if value is not None})


def _message(response) -> str:
    error = response.json()["error"]
    assert error["type"] == ("server_error" if response.status_code >= 500 else "invalid_request_error")
    return error["message"]


def _counts(client) -> dict[str, float]:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return {"".join([s.name, *sorted(s.labels.values())]): s.value for family in families for s in family.samples}


def _samples(pcm: bytes) -> np.ndarray:
    return np.frombuffer(pcm, "<i2") / 32768


@pytest.mark.parametrize("name, kind", [("wav", "wav"), ("flac", "flac"), ("mp3", "mpeg"), ("opus", "ogg")])
def test_every_format_holds_the_same_audio(client, name, kind):
    """That it is the synthesizer's is tested in test_service.py."""
    pcm = _say(client, response_format="pcm")
    assert pcm.headers["Content-Type"] == "audio/pcm"
    expected = _samples(pcm.content)
    response = _say(client, response_format=name)
    assert response.status_code == 200 and response.headers["Content-Type"] == f"audio/{kind}"
    samples, rate = soundfile.read(io.BytesIO(response.content))
    assert rate == 24000 and len(samples) == len(expected)
    if name in ("mp3", "opus"):  # not the samples, but their loudness, in stretches of 1/30 s
        heard, meant = (np.square(x[: len(x) // 800 * 800]).reshape(-1, 800).mean(axis=1) for x in (samples, expected))
        assert np.corrcoef(heard, meant)[0, 1] > 0.9
    else:
        np.testing.assert_allclose(samples, expected, atol=1.5 / 32768)  # FLAC's writer rounds the other way
    info = json.loads(response.headers[INFO_HEADER])
    assert info["seed"] == 3 and info["tries"] == 1 and info["seconds"] == pytest.approx(len(expected) / 24000)


def test_the_seed_decides_and_is_told(client):
    first, again, other = _say(client), _say(client), _say(client, seed=None)
    assert first.content == again.content != other.content
    seed = json.loads(other.headers[INFO_HEADER])["seed"]
    assert _say(client, seed=seed).content == other.content


def test_voices_are_listed_and_may_come_later(client, tts, voices):
    assert client.get("/v1/voices").json() == {"voices": ["anna"]}
    path = voices / "bert.voice.npz"
    find_voice("anna", voices).save(path)
    assert client.get("/v1/voices").json() == {"voices": ["anna", "bert"]}
    assert _say(client, voice={"id": "bert"}).content == _say(client).content
    path.unlink()
    assert _say(client, voice="bert").status_code == 404


@pytest.mark.parametrize("name", ["../voices/anna", "/etc/passwd", "anna.voice.npz", "..", "", "\0", "bob"])
def test_a_voice_is_no_path(client, name):
    response = _say(client, voice=name)
    assert response.status_code == 404 and "no voice" in _message(response)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"input": None}, "input must be a string"),
        ({"input": 7}, "input must be a string"),
        ({"input": " "}, "input has no text"),
        ({"input": "?!"}, "no phonemes"),
        ({"input": "a " * 150}, "input has 300 characters; this server takes 200"),
        ({"voice": None}, "voice must be the name"),
        ({"response_format": "aac"}, "'aac' is not offered; known: mp3"),
        ({"stream_format": "sse", "response_format": "mp3"}, "cannot be streamed"),
        ({"speed": 2}, "speed must be 1"),
        ({"seed": -1}, "seed must be an integer"),
        ({"seed": True}, "seed must be an integer"),
        ({"instructions": "whisper"}, "unknown field 'instructions'"),
    ],
)
def test_what_cannot_be_said_is_named(client, changes, message):
    response = _say(client, **changes)
    assert response.status_code == 400 and message in _message(response)


def test_bodies_and_paths(client):
    assert client.post(SPEECH, content=b"{").status_code == 400
    assert client.post(SPEECH, content=b"[" * 1_500).status_code == 400
    assert client.post(SPEECH, content=b"[]").status_code == 400
    assert client.post(SPEECH, content=b" " * 3_000).status_code == 413
    chunks = (b" " * 1_000 for _ in range(3))  # a body that does not say how long it is
    assert client.post(SPEECH, content=chunks).status_code == 413
    assert client.get(SPEECH).status_code == 405
    assert client.get("/v1/nothing").status_code == 404
    assert "Not Found" in _message(client.get("/v1/nothing"))


def test_a_stream_comes_in_chunks_that_are_a_file(client):
    fields = {"input": TEXT, "voice": "anna", "response_format": "pcm", "seed": 3, "stream_format": "audio"}
    with client.stream("POST", SPEECH, json=fields) as response:
        parts = list(response.iter_raw())
    assert "Content-Length" not in response.headers
    assert json.loads(response.headers[INFO_HEADER]) == {"seed": 3}
    assert len(parts) > 2
    samples = _samples(b"".join(parts))
    wav = _say(client, stream_format="audio").content
    assert wav[:4] == b"RIFF" and wav[36:40] == b"data"
    np.testing.assert_array_equal(_samples(wav[44:]), samples)
    heard, rate = soundfile.read(io.BytesIO(_say(client, response_format="opus", stream_format="audio").content))
    assert (len(heard), rate) == (len(samples), 24000)
    flac = _say(client, response_format="flac", stream_format="audio")
    assert flac.headers["Content-Type"] == "audio/flac" and flac.content[:4] == b"fLaC"


def test_events_hold_the_chunks_and_at_the_end_the_info(client):
    pcm = _say(client, response_format="pcm", stream_format="audio").content
    response = _say(client, response_format="pcm", stream_format="sse")
    assert response.headers["Content-Type"].startswith("text/event-stream")
    events = [json.loads(event.removeprefix("data: ")) for event in response.text.split("\n\n") if event]
    assert [event["type"] for event in events] == ["speech.audio.delta"] * (len(events) - 1) + ["speech.audio.done"]
    assert len(events) > 3
    assert b"".join(base64.b64decode(event["audio"]) for event in events[:-1]) == pcm
    assert events[-1]["info"]["seed"] == 3 and "problems" in events[-1]["info"]


def test_metrics(client):
    before = _counts(client)
    seconds = json.loads(_say(client).headers[INFO_HEADER])["seconds"]
    _say(client, stream_format="audio")
    _say(client, voice="bob")
    after = _counts(client)

    def more(name: str) -> float:
        return after[name] - before.get(name, 0)

    assert more(f"valle_responses_total{SPEECH}200") == 2 and more(f"valle_responses_total{SPEECH}404") == 1
    assert more("valle_speech_seconds_count") == more("valle_first_audio_seconds_count") == 1
    assert more("valle_audio_seconds_total") >= seconds
    assert after["valle_waiting_utterances"] == after["valle_drawing_utterances"] == 0
    assert after["valle_slots"] == 4 and 0 < after["valle_occupancy"] <= 1
    assert client.get("/healthz").json() == {"status": "ok"}


def test_too_many_requests_are_sent_away_and_the_others_served(tts, voices):
    with _serving(tts, voices, max_waiting=1, steps=1) as client:
        with concurrent.futures.ThreadPoolExecutor(24) as pool:
            responses = list(pool.map(lambda seed: _say(client, seed=seed), range(24)))
        codes = [response.status_code for response in responses]
        assert set(codes) == {200, 429}
        refused = responses[codes.index(429)]
        assert int(refused.headers["Retry-After"]) >= 1 and "too many" in _message(refused)
        assert _say(client).status_code == 200


def test_a_request_that_takes_too_long_is_given_up(tts, voices):
    slow = dataclasses.replace(OPTIONS, min_rate_ratio=1.5, max_rate_ratio=1.6)
    with _serving(tts, voices, dataclasses.replace(LIMITS, seconds=0.1), options=slow, steps=1) as client:
        response = _say(client)
        assert response.status_code == 503 and "0.1 s" in _message(response) and "Retry-After" in response.headers
        assert _counts(client)["valle_cancelled_total"] == 1
        _until_idle(client)


@pytest.mark.parametrize("stream_format", [None, "audio"])
def test_what_a_client_does_not_wait_for_is_not_drawn(tts, voices, stream_format):
    slow = dataclasses.replace(OPTIONS, min_rate_ratio=1.5, max_rate_ratio=1.6)
    fields = {"input": TEXT, "voice": "anna", "response_format": "pcm", "stream_format": stream_format}
    with _serving(tts, voices, options=slow, steps=1) as client:
        if stream_format:
            with client.stream("POST", SPEECH, json=fields) as response:
                next(response.iter_raw())
        else:
            with pytest.raises(httpx.ReadTimeout):
                client.post(SPEECH, json=fields, timeout=0.1)
        _until_idle(client)
        assert _counts(client)["valle_cancelled_total"] == 1


def _until_idle(client) -> None:
    for _ in range(500):
        counts = _counts(client)
        if counts["valle_cancelled_total"] and not counts["valle_drawing_utterances"]:
            return
        time.sleep(0.01)
    raise AssertionError("something is still being drawn")


def test_a_key_opens_what_speaks(tts, voices):
    with _serving(tts, voices, api_key="secret") as client:
        for key in (None, "Bearer wrong", "Basic secret", "Bearer sécret".encode()):
            headers = {} if key is None else {"Authorization": key}
            assert client.post(SPEECH, json={}, headers=headers).status_code == 401
            assert client.get("/v1/voices", headers=headers).status_code == 401
        client.headers["Authorization"] = "Bearer secret"
        assert _say(client).status_code == 200
        assert client.get("/v1/voices").status_code == 200
        # Machines that watch the server have no key.
        del client.headers["Authorization"]
        assert client.get("/healthz").status_code == client.get("/metrics").status_code == 200


def test_the_command_serves_until_it_is_told_to_stop_and_finishes_what_it_began(model_dir, voices, tmp_path):
    arguments = ["--voices", str(voices), "--port", "0", "--max-tokens", "256", "--batch-size", "1", "--tries", "1"]
    arguments += ["--min-rate-ratio", "1.0", "--max-rate-ratio", "1.1", "--steps", "1"]
    command = [sys.executable, "-m", "valle_jax.cli", "serve", "--model", str(model_dir), *arguments]
    log = tmp_path / "log"
    with open(log, "w") as file:
        process = subprocess.Popen(command, stderr=file, env=with_devices(1))
    try:
        while not (address := re.search(r"http://\S+:[1-9]\d*", log.read_text())):
            assert process.poll() is None
            time.sleep(0.1)
        with httpx.Client(base_url=address[0], timeout=60) as client:
            while (health := client.get("/healthz")).status_code != 200:
                assert health.json() == {"status": "warming up"}
                time.sleep(0.1)
            fields = {"input": TEXT, "voice": "anna", "response_format": "pcm", "stream_format": "sse"}
            with client.stream("POST", SPEECH, json=fields) as response:
                events = response.iter_lines()
                assert "speech.audio.delta" in next(events)
                process.send_signal(signal.SIGTERM)
                assert "speech.audio.done" in [line for line in events if line][-1]
        assert process.wait(timeout=60) == 0
    finally:
        process.kill()
    assert "Traceback" not in log.read_text()
