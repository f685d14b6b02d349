"""A client of the Open Inference Protocol v2 (REST, binary tensors): the same against our own room, Triton or KServe."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import DTypeLike, NDArray

from arcuate.kernel.errors import ArcuateError, NotFound, Unavailable

HEAD_LENGTH = "Inference-Header-Content-Length"
DATATYPES: Mapping[str, DTypeLike] = {
    "BOOL": np.bool_, "UINT8": np.uint8, "UINT16": np.uint16, "UINT32": np.uint32, "UINT64": np.uint64,
    "INT8": np.int8, "INT16": np.int16, "INT32": np.int32, "INT64": np.int64,
    "FP16": np.float16, "FP32": np.float32, "FP64": np.float64,
}  # fmt: skip


class OipClient:
    """Calls models. `http` reaches the server (in process through an ASGI transport, or by URL), or will; `base` is put before /v2.

    An instance is an `Infer` of pipelines.py: `await client(name, inputs)`.
    """

    def __init__(
        self, http: httpx.AsyncClient | Awaitable[httpx.AsyncClient], base: str = "", limit_s: float = 300.0
    ) -> None:
        self._http, self._base, self._limit_s = http, base.rstrip("/"), limit_s

    async def __call__(self, model: str, inputs: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """All outputs of a model, by name. Unavailable where the server or the model does not answer."""
        head, body = _packed(inputs)
        headers = {"Content-Type": "application/octet-stream", HEAD_LENGTH: str(head)}
        url = f"{self._base}/v2/models/{model}/infer"
        try:
            http = self._http if isinstance(self._http, httpx.AsyncClient) else await self._http
            async with http.stream("POST", url, content=body, headers=headers, timeout=self._limit_s) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _refused(model, response)
                parts = [part async for part in response.aiter_bytes() if len(part)]
        except httpx.HTTPError as error:
            raise Unavailable("The inference service does not answer", where=self._base or "/v2") from error
        try:
            return _unpacked(parts, response.headers.get(HEAD_LENGTH))
        except (ValueError, KeyError, TypeError) as error:
            raise Unavailable("The inference service answered in an unknown form", where=self._base or "/v2") from error


def _packed(inputs: Mapping[str, NDArray[Any]]) -> tuple[int, bytes]:
    told, blobs = [], []
    for name, tensor in inputs.items():
        datatype = next(key for key, dtype in DATATYPES.items() if tensor.dtype == np.dtype(dtype))
        raw = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
        blob = raw.reshape(-1).view(np.uint8).data
        parameters = {"binary_data_size": raw.nbytes}
        told.append({"name": name, "datatype": datatype, "shape": list(tensor.shape), "parameters": parameters})
        blobs.append(blob)
    head = json.dumps({"inputs": told, "parameters": {"binary_data_output": True}}).encode()
    return len(head), b"".join([head, *blobs])


def _unpacked(parts: Sequence[bytes | memoryview], head_length: str | None) -> dict[str, NDArray[Any]]:
    size = sum(len(part) for part in parts) if head_length is None else int(head_length)
    told, tensors = _parted(parts, size)
    found: dict[str, NDArray[Any]] = {}
    at = 0
    for entry in told["outputs"]:
        dtype, shape = np.dtype(DATATYPES[entry["datatype"]]), tuple(int(n) for n in entry["shape"])
        length = entry.get("parameters", {}).get("binary_data_size")
        if length is None:
            found[entry["name"]] = np.asarray(entry["data"], dtype).reshape(shape)
            continue
        raw = np.frombuffer(tensors[at : at + length], dtype.newbyteorder("<"))
        found[entry["name"]] = raw.reshape(shape)
        at += length
    return found


def _parted(parts: Sequence[bytes | memoryview], size: int) -> tuple[Any, memoryview]:
    """The JSON head of `size` bytes and what follows it; no byte is copied where head and one tensor came apart."""
    if len(parts) == 2 and len(parts[0]) == size:
        return json.loads(bytes(parts[0])), memoryview(parts[1])
    whole = np.empty(sum(len(part) for part in parts), np.uint8)
    at = 0
    for part in parts:
        whole[at : at + len(part)] = np.frombuffer(part, np.uint8)
        at += len(part)
    body = whole.data
    return json.loads(bytes(body[:size])), body[size:]


def _refused(model: str, response: httpx.Response) -> ArcuateError:
    try:
        told = response.json()
        reason = str(told.get("error", "")) if isinstance(told, dict) else ""
    except ValueError:
        reason = ""
    if response.status_code == 404:
        return NotFound(reason or f"The inference service has no model {model}")
    return Unavailable(reason or f"The inference service answered {response.status_code} for the model {model}")
