"""Frames between the room and its engine process: a JSON head and raw tensors, nothing that could carry code.

A frame is: 4 bytes length of the head, 8 bytes length of the tensors (both little-endian), the head (JSON, UTF-8), the
tensors one after the other in the order of head["tensors"] (name, datatype, shape), C order, little-endian.

Tensors are large: between the processes they lie in a memory file (memory_files.py) instead, whose descriptor goes over a socket
before the frame goes through the pipe, so that one side reads what the other wrote without a copy. With a request a second one may come:
of a file that the answer may be written into.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from arcuate.inference.domain import DATATYPES, Tensor
from arcuate.inference.memory_files import MemoryFile

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


def shared(
    head: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    beside: socket.socket,
    file: MemoryFile,
    offered: MemoryFile | None = None,
) -> bytes:
    """The frame without its tensors: they are written into `file`, which is sent over the socket first, and after it what is offered."""
    told, *bodies = packed(head, tensors)
    if bodies:
        file.write(bodies)
        files = [file] if offered is None else [file, offered]
        socket.send_fds(beside, [b"a"], [each.descriptor for each in files])
    return bytes(told)


def taken(beside: socket.socket, body: int) -> list[MemoryFile]:
    """The memory files that came over the socket before a frame with so many bytes of tensors: one or two, none where there are no bytes."""
    if not body:
        return []
    _, descriptors, _, _ = socket.recv_fds(beside, 1, 2)
    files = [MemoryFile(descriptor) for descriptor in descriptors]
    if not files or files[0].size < body:
        raise BrokenFrame(f"no memory file of {body} bytes came with the frame")
    return files


def sizes(prefix: bytes) -> tuple[int, int]:
    """Lengths of head and tensors; BrokenFrame over the limits."""
    head, body = PREFIX.unpack(prefix)
    if head > HEAD_LIMIT or body > BODY_LIMIT:
        raise BrokenFrame(f"a frame of {head} + {body} bytes is over the limit")
    return head, body


def unpacked(head: bytes, body: bytes | memoryview) -> tuple[dict[str, Any], dict[str, Tensor]]:
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
