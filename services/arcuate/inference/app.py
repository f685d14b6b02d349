"""The web door of the inference room: Open Inference Protocol v2 over REST under /v2."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from arcuate.inference import protocol
from arcuate.inference.domain import ModelState, Tensor, checked_inputs
from arcuate.inference.host import EngineHost, EngineSettings
from arcuate.inference.queue import Metrics, RequestQueue
from arcuate.inference.settings import InferenceSettings
from arcuate.kernel.errors import ArcuateError, NotFound, Unavailable
from arcuate.kernel.log import get_logger
from arcuate.kernel.room import Room, RoomContext
from arcuate.kernel.web import allow, create_app, open_to_all, read_body

MODEL = "/v2/models/{name}"
VERSIONED = MODEL + "/versions/{model_version}"


async def open_room(context: RoomContext, settings: InferenceSettings | None = None) -> Room:
    """Build the room; the engine process starts with `run`, or with the first request."""
    settings = settings or InferenceSettings()
    how = EngineSettings(settings.engine, settings.thread_count(), settings.niceness, settings.limit_s)
    host = EngineHost(context.models_dir, how, get_logger("inference"))

    def ready() -> str | None:
        return None if host.started or not host.states else "the networks are being loaded"

    app = create_app(context, "Arcuate inference", ready)
    app.add_exception_handler(ArcuateError, _told)
    _add_server_routes(app, host)
    _add_model_routes(app, host)
    queue = RequestQueue(host, Metrics(app.state.metrics))
    _add_infer(app, host, queue, settings.body_limit_mib << 20)

    @contextlib.asynccontextmanager
    async def run() -> AsyncIterator[None]:
        starting = asyncio.create_task(host.start())
        try:
            yield
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await queue.stop()
            await host.stop()

    return Room("inference", ("/v2",), app, run, ready)


async def _told(_request: Request, error: Exception) -> Response:
    """Errors in the protocol's form: an object with the member `error`."""
    assert isinstance(error, ArcuateError)
    headers = {"Retry-After": str(max(1, round(error.retry_after_s)))} if isinstance(error, Unavailable) else {}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return JSONResponse({"error": str(error)}, error.status, headers)


def _add_server_routes(app: FastAPI, host: EngineHost) -> None:
    @app.get("/v2/health/live", dependencies=[open_to_all])
    async def live() -> Any:
        return {"live": True}

    @app.get("/v2/health/ready", dependencies=[open_to_all])
    async def ready() -> Response:
        await host.start()
        reasons = {name: state.reason for name, state in host.states.items() if not state.ready}
        return JSONResponse({"ready": not reasons, "disabled": reasons}, 503 if reasons else 200)

    @app.get("/v2", dependencies=[open_to_all])
    async def server() -> Any:
        return protocol.server("arcuate")


def _add_model_routes(app: FastAPI, host: EngineHost) -> None:
    @app.get(MODEL, dependencies=[open_to_all])
    @app.get(VERSIONED, dependencies=[open_to_all])
    async def model(name: str, model_version: str | None = None) -> Any:
        state = await _state(host, name, model_version)
        return protocol.model(state.description, host.platform)

    @app.get(MODEL + "/ready", dependencies=[open_to_all])
    @app.get(VERSIONED + "/ready", dependencies=[open_to_all])
    async def model_ready(name: str, model_version: str | None = None) -> Any:
        state = await _state(host, name, model_version)
        return {"name": state.description.name, "ready": True}


def _add_infer(app: FastAPI, host: EngineHost, queue: RequestQueue, body_limit: int) -> None:
    @app.post(MODEL + "/infer", dependencies=[allow()])
    @app.post(VERSIONED + "/infer", dependencies=[allow()])
    async def infer(request: Request, name: str, model_version: str | None = None) -> Response:
        state = await _state(host, name, model_version)
        body = await read_body(request, body_limit)
        length = request.headers.get(protocol.HEAD_LENGTH)
        description = state.description
        asked = await asyncio.to_thread(protocol.parse_request, body, length, description)
        inputs = await asyncio.to_thread(checked_inputs, description, asked.inputs)
        asking = queue.infer(description, inputs, list(asked.outputs), asked.priority, asked.timeout_s)
        found = await _unless_gone(request, asking)
        parts, head = await asyncio.to_thread(protocol.answer, description, asked, found)
        if head is None:
            return Response(parts[0], media_type="application/json")
        return TensorResponse(parts, {protocol.HEAD_LENGTH: str(head)})


class TensorResponse(Response):
    """A JSON head and tensors, sent part by part: nothing of many MB is put together first."""

    media_type = "application/octet-stream"

    def __init__(self, parts: Sequence[bytes | memoryview], headers: Mapping[str, str]) -> None:
        super().__init__(None, headers={**headers, "Content-Length": str(sum(len(part) for part in parts))})
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for part in self._parts:
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _unless_gone(request: Request, asking: Coroutine[Any, Any, dict[str, Tensor]]) -> dict[str, Tensor]:
    """What was asked for; a caller that hangs up takes its request out of the queue."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    answering, leaving = asyncio.create_task(asking), asyncio.create_task(gone())
    try:
        await asyncio.wait({answering, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done():
            raise Unavailable("The caller has gone")
        return answering.result()
    finally:
        for task in (answering, leaving):
            task.cancel()
        await asyncio.gather(answering, leaving, return_exceptions=True)


async def _state(host: EngineHost, name: str, model_version: str | None) -> ModelState:
    """A model that answers. NotFound for an unknown name or version, Unavailable with the reason for a disabled one."""
    host.state(name)
    await host.start()
    state = host.state(name)
    if not state.ready:
        raise Unavailable(f"The model {name} is disabled: {state.reason}", retry_after_s=60)
    if model_version not in (None, state.description.version):
        raise NotFound(f"There is no version {model_version!r} of {name}", todo=f"It is {state.description.version}.")
    return state
