"""The HTTP interface: OpenAI's `POST /v1/audio/speech`, voices, health, metrics."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import hmac
import json
from collections.abc import AsyncIterator, Awaitable, Coroutine
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from valle_jax.errors import UserError
from valle_jax.inference.request import Audio
from valle_jax.inference.streaming import AudioChunk
from valle_jax.serving.formats import Encoder, encode, media_type
from valle_jax.serving.metrics import Metrics
from valle_jax.serving.service import BrokenError, FullError, Service, Ticket, UnknownVoiceError
from valle_jax.serving.speech_request import SpeechRequest, parse

INFO_HEADER = "X-Valle-Info"
T = TypeVar("T")
_CLIENT_GONE = 499  # nobody sees it but the metrics, as nginx has it


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a client may ask for.

    Attributes:
      body_bytes: of a request.
      characters: of its text.
      seconds: that an answer may take; of a stream: each chunk, so that a long text is not cut.
    """

    body_bytes: int = 65_536
    characters: int = 4_096
    seconds: float = 120.0

    def __post_init__(self):
        for field in dataclasses.fields(self):
            if getattr(self, field.name) <= 0:
                raise UserError(f"{field.name} {getattr(self, field.name)} must be above 0")


def create_app(service: Service, metrics: Metrics, limits: Limits, api_key: str | None = None) -> ASGIApp:
    """The application; the service works while it runs. With a key, /v1 is for those who have it."""
    api = _Api(service, limits, api_key)

    async def show_metrics(request: Request) -> Response:
        text, kind = metrics.text()
        return Response(text, headers={"Content-Type": kind})

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        service.start()
        yield
        await run_in_threadpool(service.stop)

    app = Starlette(
        routes=[
            Route("/v1/audio/speech", api.speech, methods=["POST"]),
            Route("/v1/voices", api.voices),
            Route("/healthz", api.health),
            Route("/metrics", show_metrics),
        ],
        exception_handlers={HTTPException: _http_error, UserError: _user_error},
        lifespan=lifespan,
    )
    return _Counted(app, metrics)


class _Api:
    """The endpoints."""

    def __init__(self, service: Service, limits: Limits, api_key: str | None):
        self._service, self._limits, self._api_key = service, limits, api_key

    async def health(self, request: Request) -> Response:
        """200 when requests are served at once."""
        status = "broken" if self._service.broken else "ok" if self._service.ready else "warming up"
        return JSONResponse({"status": status}, 200 if status == "ok" else 503)

    async def voices(self, request: Request) -> Response:
        """The names of the voices."""
        self._check_key(request)
        return JSONResponse({"voices": await run_in_threadpool(self._service.voices)})

    async def speech(self, request: Request) -> Response:
        """Says a text: at once, or in chunks while it is being drawn."""
        self._check_key(request)
        wanted = parse(await self._body(request), self._limits.characters)
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[Audio | AudioChunk | Exception] = asyncio.Queue()

        def send(event: Audio | AudioChunk | Exception) -> None:
            loop.call_soon_threadsafe(events.put_nowait, event)

        try:
            ticket = await run_in_threadpool(self._service.say, wanted, send)
        except UnknownVoiceError as error:
            raise HTTPException(404, str(error)) from None
        except FullError as error:
            raise HTTPException(429, str(error), {"Retry-After": str(error.seconds)}) from None
        except BrokenError as error:
            raise HTTPException(503, str(error)) from None
        streamed = False
        try:
            first = await _unless_gone(request, _within(self._limits.seconds, events.get()))
            if isinstance(first, Exception):
                raise HTTPException(503, str(first))
            if isinstance(first, AudioChunk):
                streamed = True
                return self._stream(wanted, ticket, first, events)
            content = await run_in_threadpool(encode, first.samples, first.sample_rate, wanted.format)
            return Response(content, headers={INFO_HEADER: _header(first.info)}, media_type=media_type(wanted.format))
        except TimeoutError:
            message = f"not done within {self._limits.seconds:g} s"
            raise HTTPException(503, message, {"Retry-After": "1"}) from None
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        finally:
            if not streamed:
                self._service.cancel(ticket)

    def _stream(
        self,
        wanted: SpeechRequest,
        ticket: Ticket,
        first: AudioChunk,
        events: asyncio.Queue[Audio | AudioChunk | Exception],
    ) -> Response:
        """The chunks as they come. What fails now ends the connection, so that no client takes it for the whole."""

        async def chunks() -> AsyncIterator[bytes]:
            encoder = Encoder(first.sample_rate, wanted.format)
            chunk: Audio | AudioChunk | Exception = first
            try:
                while True:
                    if not isinstance(chunk, AudioChunk):
                        raise RuntimeError(f"the stream breaks off: {chunk}")
                    audio = encoder.append(chunk.samples, last=chunk.info is not None)
                    if wanted.stream == "sse":
                        yield _event("speech.audio.delta", audio=base64.b64encode(audio).decode())
                    elif audio:
                        yield audio
                    if chunk.info is not None:
                        break
                    chunk = await _within(self._limits.seconds, events.get())
                if wanted.stream == "sse":
                    yield _event("speech.audio.done", info=chunk.info)
            finally:
                self._service.cancel(ticket)

        kind = "text/event-stream" if wanted.stream == "sse" else media_type(wanted.format)
        return StreamingResponse(chunks(), headers={INFO_HEADER: _header({"seed": ticket.seed})}, media_type=kind)

    def _check_key(self, request: Request) -> None:
        if self._api_key is None:
            return
        scheme, _, key = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not hmac.compare_digest(key.strip().encode(), self._api_key.encode()):
            raise HTTPException(401, "wrong or missing API key", {"WWW-Authenticate": "Bearer"})

    async def _body(self, request: Request) -> bytes:
        """What a client sent, no more of it than is allowed."""
        body, most = b"", self._limits.body_bytes
        if int(request.headers.get("Content-Length", 0)) > most:  # the server has checked that it is a number
            raise HTTPException(413, f"the body has more than {most} bytes")
        try:
            async with asyncio.timeout(self._limits.seconds):
                async for part in request.stream():
                    body += part
                    if len(body) > most:
                        raise HTTPException(413, f"the body has more than {most} bytes")
        except TimeoutError:
            raise HTTPException(408, "the body did not come in time") from None
        return body


class _Counted:
    """An application whose responses are counted."""

    def __init__(self, app: Starlette, metrics: Metrics):
        self._app, self._metrics = app, metrics
        self._paths = {route.path for route in app.routes if isinstance(route, Route)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                path = scope["path"] if scope["path"] in self._paths else "other"
                self._metrics.responses.labels(path, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, counted)


async def _within(seconds: float, result: Awaitable[T]) -> T:
    """A result; TimeoutError where it is not there in time."""
    async with asyncio.timeout(seconds):
        return await result


async def _unless_gone(request: Request, result: Coroutine[Any, Any, T]) -> T:
    """A result; ClientDisconnect where the client does not wait for it."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    tasks = asyncio.ensure_future(result), asyncio.ensure_future(gone())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        if not tasks[0].done():
            raise ClientDisconnect
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()


def _http_error(request: Request, error: Exception) -> Response:
    """In OpenAI's form."""
    assert isinstance(error, HTTPException)
    kind = "invalid_request_error" if error.status_code < 500 else "server_error"
    content = {"error": {"message": error.detail, "type": kind, "param": None, "code": None}}
    return JSONResponse(content, error.status_code, error.headers)


def _user_error(request: Request, error: Exception) -> Response:
    return _http_error(request, HTTPException(400, str(error)))


def _event(kind: str, **fields: Any) -> bytes:
    """A server-sent event."""
    return f"data: {json.dumps({'type': kind, **fields})}\n\n".encode()


def _header(info: dict[str, Any]) -> str:
    """Info as the value of a header: without what is long, the pieces."""
    return json.dumps({key: value for key, value in info.items() if key != "pieces"})
