"""The same networks behind the same protocol on Ray Serve, where one machine is not enough (extra `ray`).

    serve run arcuate.inference.ray_serve:built models_dir=models threads=2 replicas=1

A replica reads models from its own disk, by hash, and runs them by ONNX Runtime, as the engine process of the room does: no model is pickled or
sent. The door has no authentication of its own: it belongs behind a proxy or into a network that only the house reaches.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from arcuate.inference import protocol, store
from arcuate.inference.domain import ModelState, checked_inputs
from arcuate.inference.engine_onnx import PLATFORM, OnnxEngine
from arcuate.kernel.errors import ArcuateError, NotFound, Unavailable
from arcuate.kernel.web import read_body

BODY_LIMIT = 256 << 20


class Networks:
    """One replica: every model of a folder."""

    def __init__(self, models_dir: str, threads: int) -> None:
        self._states: dict[str, ModelState] = store.models_in(Path(models_dir))
        self._engines: dict[str, OnnxEngine] = {}
        for name, state in self._states.items():
            reason = state.reason or store.hash_fault(Path(models_dir) / name, state.description)
            self._states[name] = ModelState(state.description, reason)
            if not reason:
                self._engines[name] = OnnxEngine(Path(models_dir) / name, state.description, threads)

    async def __call__(self, request: Request) -> Response:
        """Answer one request of the protocol."""
        try:
            return await self._answer(request)
        except ArcuateError as error:
            return JSONResponse({"error": str(error)}, error.status)

    async def _answer(self, request: Request) -> Response:
        # The proxy cuts the route prefix off or leaves it on, by version of Ray: what counts begins at v2.
        parts = [part for part in request.url.path.split("/") if part]
        match (request.method, parts[parts.index("v2") :] if "v2" in parts else parts):
            case ("GET", ["v2"]):
                return JSONResponse(protocol.server("arcuate on ray serve"))
            case ("GET", ["v2", "health", "live"]):
                return JSONResponse({"live": True})
            case ("GET", ["v2", "health", "ready"]):
                reasons = {name: state.reason for name, state in self._states.items() if not state.ready}
                return JSONResponse({"ready": not reasons, "disabled": reasons}, 503 if reasons else 200)
            case ("GET", ["v2", "models", name, *rest]) if rest[-1:] == ["ready"]:
                return JSONResponse({"name": self._state(name, rest[:-1]).description.name, "ready": True})
            case ("GET", ["v2", "models", name, *rest]):
                return JSONResponse(protocol.model(self._state(name, rest).description, PLATFORM))
            case ("POST", ["v2", "models", name, *rest]) if rest[-1:] == ["infer"]:
                return await self._infer(request, self._state(name, rest[:-1]))
        raise NotFound("There is nothing here", todo="See the Open Inference Protocol, version 2.")

    async def _infer(self, request: Request, state: ModelState) -> Response:
        description = state.description
        body = await read_body(request, BODY_LIMIT)
        length = request.headers.get(protocol.HEAD_LENGTH)
        asked = await asyncio.to_thread(protocol.parse_request, body, length, description)
        inputs = checked_inputs(description, asked.inputs)
        try:
            found = await asyncio.to_thread(self._engines[description.name].infer, inputs, list(asked.outputs))
        except Exception as error:  # the engine's own errors have no common base
            raise Unavailable(f"The model {description.name} could not answer: {type(error).__name__}") from error
        parts, head = await asyncio.to_thread(protocol.answer, description, asked, found)
        answer = b"".join(parts)
        if head is None:
            return Response(answer, media_type="application/json")
        return Response(answer, media_type="application/octet-stream", headers={protocol.HEAD_LENGTH: str(head)})

    def _state(self, name: str, rest: list[str]) -> ModelState:
        if name not in self._states:
            raise NotFound(f"There is no model {name!r}", todo=f"Models here: {', '.join(self._states) or 'none'}.")
        state = self._states[name]
        if not state.ready:
            raise Unavailable(f"The model {name} is disabled: {state.reason}")
        if rest not in ([], ["versions", state.description.version]):
            raise NotFound(f"There is no such version of {name}", todo=f"It is {state.description.version}.")
        return state


def built(args: Mapping[str, Any]) -> serve.Application:
    """Return the application: `models_dir` (on every node), `threads` of a replica, `replicas`, `waiting` requests at most."""
    deployment = serve.deployment(
        name="networks",
        num_replicas=int(args.get("replicas", 1)),
        max_ongoing_requests=1,  # one network at a time in a replica, as in the room
        max_queued_requests=int(args.get("waiting", 64)),
        ray_actor_options={"num_cpus": float(args.get("threads", 2))},
    )(Networks)
    return deployment.bind(str(Path(str(args.get("models_dir", "models"))).resolve()), int(args.get("threads", 2)))
