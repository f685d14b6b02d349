"""The Open Inference Protocol v2 over REST: requests and answers, as JSON and with the binary tensor extension.

https://github.com/kserve/open-inference-protocol, specification/protocol/inference_rest.md; the extension as in Triton's
"Binary Tensor Data Extension": a JSON head of Inference-Header-Content-Length bytes, then the tensors' bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from arcuate.inference.domain import DATATYPES, ModelDescription, Tensor, TensorSpec, element_count
from arcuate.kernel.errors import BadInput

HEAD_LENGTH = "Inference-Header-Content-Length"
ELEMENT_LIMIT = 200_000_000
_STATED = ("task", "population", "licence", "trained", "held_out_dice", "exported")


@dataclass(frozen=True)
class InferRequest:
    """What a caller asks. outputs: output name -> wanted in binary form. priority, timeout_s: see queue.py."""

    id: str | None
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, bool]
    priority: int | None = None
    timeout_s: float | None = None


def server(name: str) -> dict[str, Any]:
    """Server metadata."""
    try:
        number = version("arcuate")
    except PackageNotFoundError:
        number = "0"
    return {"name": name, "version": number, "extensions": ["binary_tensor_data"]}


def model(description: ModelDescription, platform: str) -> dict[str, Any]:
    """Model metadata; the parameters say what the model's folder states of it, and which weights answer."""
    told = description.told
    hashes = {f"{role}_sha256": sha256 for role, (_, sha256) in description.files.items()}
    return {
        "name": description.name,
        "versions": [description.version],
        "platform": platform,
        "inputs": [_metadata(spec) for spec in description.inputs],
        "outputs": [_metadata(spec) for spec in description.outputs],
        "parameters": {key: str(told[key]) for key in _STATED if key in told} | hashes,
    }


def _metadata(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}


def parse_request(body: bytes, head_length: str | None, description: ModelDescription) -> InferRequest:
    """Reads a request; BadInput says what is wrong with it."""
    size = _head_size(body, head_length)
    told = _json_object(body[:size])
    rest = memoryview(body)[size:]
    inputs: dict[str, Tensor] = {}
    at = 0
    for entry in _objects(told, "inputs"):
        name, dtype, shape = _name(entry), _dtype(entry), _shape(entry)
        length = _parameters(entry).get("binary_data_size")
        if length is None:
            inputs[name] = _from_json(entry, dtype, shape)
            continue
        inputs[name] = _from_bytes(name, rest[at:], length, dtype, shape)
        at += length
    if at != len(rest):
        raise BadInput(f"{len(rest)} bytes follow the JSON head, its inputs declare {at}")
    rid = told.get("id")
    if rid is not None and not isinstance(rid, str):
        raise BadInput("id is no text")
    parameters = _parameters(told)
    priority, timeout = _count(parameters, "priority"), _count(parameters, "timeout")
    return InferRequest(rid, inputs, _wanted(told, description), priority or None, timeout / 1e6 if timeout else None)


def answer(
    description: ModelDescription, request: InferRequest, found: Mapping[str, Tensor]
) -> tuple[list[bytes | memoryview], int | None]:
    """Body of the answer in parts, the JSON head first, and the head's length when tensors follow in binary form (not copied)."""
    told, blobs, texts = [], [], []
    for spec in description.outputs:
        if spec.name not in request.outputs:
            continue
        tensor = found[spec.name]
        entry: dict[str, Any] = {"name": spec.name, "datatype": spec.datatype, "shape": list(tensor.shape)}
        if request.outputs[spec.name]:
            raw = np.ascontiguousarray(tensor, dtype=spec.dtype.newbyteorder("<"))
            entry["parameters"] = {"binary_data_size": raw.nbytes}
            blobs.append(raw.reshape(-1).view(np.uint8).data)
        else:
            texts.append(_numbers(tensor))
        told.append(entry)
    head: dict[str, Any] = {"model_name": description.name, "model_version": description.version}
    if request.id is not None:
        head["id"] = request.id
    text = _joined(head, told, texts)
    return [text, *blobs], len(text) if blobs else None


def _joined(head: Mapping[str, Any], outputs: Sequence[Mapping[str, Any]], texts: list[bytes]) -> bytes:
    """The JSON head; the numbers of JSON tensors, already text, are put into their places."""
    left = iter(texts)
    parts = []
    for entry in outputs:
        text = json.dumps(entry).encode()
        parts.append(text if "parameters" in entry else text[:-1] + b', "data": [' + next(left) + b"]}")
    return json.dumps(head).encode()[:-1] + b', "outputs": [' + b", ".join(parts) + b"]}"


def _numbers(tensor: Tensor) -> bytes:
    if tensor.dtype == np.uint8:
        # Fixed width with blanks, which JSON allows: millions of bytes become text by one table look-up.
        table = np.array([list(f"{n:3d},".encode()) for n in range(256)], np.uint8)
        return table[tensor.reshape(-1)].tobytes()[:-1]
    if tensor.dtype.kind == "f" and not np.isfinite(tensor).all():
        raise BadInput("The answer holds values that JSON cannot write", todo="Ask for binary outputs.")
    return json.dumps(tensor.reshape(-1).tolist()).encode()[1:-1]


def _head_size(body: bytes, head_length: str | None) -> int:
    if head_length is None:
        return len(body)
    if not (head_length.isascii() and head_length.isdigit()) or int(head_length) > len(body):
        raise BadInput(f"{HEAD_LENGTH} is no length within the body", where=HEAD_LENGTH)
    return int(head_length)


def _json_object(text: bytes) -> Mapping[str, Any]:
    def refused(constant: str) -> float:
        raise BadInput(f"{constant} is no JSON number")

    try:
        told = json.loads(text, parse_constant=refused)
    except (ValueError, RecursionError) as error:
        raise BadInput("The request is not JSON", todo="See the Open Inference Protocol, version 2.") from error
    if not isinstance(told, dict):
        raise BadInput("The request is not a JSON object")
    return told


def _objects(told: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    entries = told.get(key)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise BadInput(f"{key} is no list of tensors", where=key)
    names = [entry.get("name") for entry in entries]
    if any(names.count(name) > 1 for name in names):
        raise BadInput(f"{key} names a tensor twice", where=key)
    return entries


def _name(entry: Mapping[str, Any]) -> str:
    name = entry.get("name")
    if not isinstance(name, str):
        raise BadInput("A tensor has no name")
    return name


def _dtype(entry: Mapping[str, Any]) -> np.dtype[Any]:
    datatype = entry.get("datatype")
    if not isinstance(datatype, str) or datatype not in DATATYPES:
        raise BadInput(f"{_name(entry)}: unknown datatype", todo=f"Known are {', '.join(DATATYPES)}.")
    return np.dtype(DATATYPES[datatype])


def _shape(entry: Mapping[str, Any]) -> tuple[int, ...]:
    shape = entry.get("shape")
    if not isinstance(shape, list) or not all(isinstance(n, int) and not isinstance(n, bool) for n in shape):
        raise BadInput(f"{_name(entry)}: the shape is no list of whole numbers")
    element_count(tuple(shape), ELEMENT_LIMIT)
    return tuple(shape)


def _parameters(entry: Mapping[str, Any]) -> Mapping[str, Any]:
    parameters = entry.get("parameters", {})
    if not isinstance(parameters, dict):
        raise BadInput("parameters is no object")
    return parameters


def _count(parameters: Mapping[str, Any], key: str) -> int | None:
    found = parameters.get(key)
    if found is not None and (not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < 1 << 63):
        raise BadInput(f"The parameter {key} is no whole number", where=f"parameters.{key}")
    return found


def _from_json(entry: Mapping[str, Any], dtype: np.dtype[Any], shape: tuple[int, ...]) -> Tensor:
    name, data = _name(entry), entry.get("data")
    if not isinstance(data, list):
        raise BadInput(f"{name}: data is no list")
    try:
        values = np.asarray(data)
    except (ValueError, OverflowError) as error:
        raise BadInput(f"{name}: data is no rectangular list of numbers") from error
    if values.size == 0:
        values = values.astype(dtype)
    allowed = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}[dtype.kind]
    if values.dtype.kind not in allowed:
        raise BadInput(f"{name}: data does not fit its datatype")
    if dtype.kind in "iu" and values.size:
        limits = np.iinfo(dtype)
        if int(values.min()) < limits.min or int(values.max()) > limits.max:
            raise BadInput(f"{name}: a number is out of the range of its datatype")
    if values.size != element_count(shape, ELEMENT_LIMIT):
        raise BadInput(f"{name}: {values.size} numbers do not fill the shape {list(shape)}")
    with np.errstate(over="ignore"):
        return values.astype(dtype).reshape(shape)


def _from_bytes(name: str, rest: memoryview, length: Any, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Tensor:
    if not isinstance(length, int) or isinstance(length, bool) or length < 0 or length > len(rest):
        raise BadInput(f"{name}: binary_data_size is more than the bytes that follow")
    if length != element_count(shape, ELEMENT_LIMIT) * dtype.itemsize:
        raise BadInput(f"{name}: {length} bytes do not fill the shape {list(shape)}")
    found: Tensor = np.frombuffer(rest[:length], dtype.newbyteorder("<")).astype(dtype, copy=False).reshape(shape)
    return found


def _wanted(told: Mapping[str, Any], description: ModelDescription) -> dict[str, bool]:
    names = [spec.name for spec in description.outputs]
    binary = _parameters(told).get("binary_data_output") is True
    if "outputs" not in told:
        return dict.fromkeys(names, binary)
    wanted = {}
    for entry in _objects(told, "outputs"):
        name = _name(entry)
        if name not in names:
            raise BadInput(f"{description.name} has no output {name!r}", todo=f"It gives: {', '.join(names)}.")
        wanted[name] = _parameters(entry).get("binary_data", binary) is True
    return wanted
