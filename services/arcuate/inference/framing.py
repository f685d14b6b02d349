"""Frames between the room and its engine process: a JSON head and raw tensors, nothing that could carry code.

A frame is: 4 bytes length of the head, 8 bytes length of the tensors (both little-endian), the head (JSON, UTF-8), the
tensors one after the other in the order of head["tensors"] (name, datatype, shape), C order, little-endian.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from arcuate.inference.domain import DATATYPES, Tensor

PREFIX = struct.Struct("<IQ")
HEAD_LIMIT = 1 << 20
BODY_LIMIT = 1 << 31


class BrokenFrame(Exception):
    """The other side of the pipe does not speak this form."""


def datatype_of(tensor: Tensor) -> str:
    """The protocol's name of a tensor's type."""
    for name, dtype in DATATYPES.items():
        if tensor.dtype == np.dtype(dtype):
            return name
    raise BrokenFrame(f"no datatype of the protocol for {tensor.dtype}")


def packed(head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> list[bytes | memoryview]:
    """The frame as parts to be written one after the other."""
    told = [{"name": n, "datatype": datatype_of(t), "shape": list(t.shape)} for n, t in tensors.items()]
    text = json.dumps({**head, "tensors": told}).encode()
    bodies = [np.ascontiguousarray(t) for t in tensors.values()]
    size = sum(body.nbytes for body in bodies)
    return [
        PREFIX.pack(len(text), size) + text,
        *(body.reshape(-1).data.cast("B") for body in bodies if body.size),
    ]


def sizes(prefix: bytes) -> tuple[int, int]:
    """Lengths of head and tensors; BrokenFrame over the limits."""
    head, body = PREFIX.unpack(prefix)
    if head > HEAD_LIMIT or body > BODY_LIMIT:
        raise BrokenFrame(f"a frame of {head} + {body} bytes is over the limit")
    return head, body


def unpacked(head: bytes, body: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Head and tensors (read-only views of `body`)."""
    try:
        told = json.loads(head)
        tensors, at = {}, 0
        for entry in told.pop("tensors"):
            dtype = np.dtype(DATATYPES[entry["datatype"]]).newbyteorder("<")
            shape = tuple(int(n) for n in entry["shape"])
            count = int(np.prod(shape, dtype=np.int64))
            tensors[str(entry["name"])] = np.frombuffer(body, dtype, count, at).reshape(shape)
            at += count * dtype.itemsize
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenFrame(str(error)) from error
    if at != len(body):
        raise BrokenFrame(f"{len(body)} bytes of tensors, {at} declared")
    return told, tensors
