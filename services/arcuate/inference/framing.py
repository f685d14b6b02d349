"""Frames between the room and its engine process: a JSON head and raw tensors, nothing that could carry code.

A frame is: 4 bytes length of the head, 8 bytes length of the tensors (both little-endian), the head (JSON, UTF-8), the
tensors one after the other in the order of head["tensors"] (name, datatype, shape), C order, little-endian.

Tensors are large: they travel in a memory file (memfd) whose descriptor goes over a socket beside the pipe, so that one
side reads what the other wrote without a copy; the frame then says length 0 and `shared` in its head.
"""

from __future__ import annotations

import json
import mmap
import os
import socket
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


def shared(head: Mapping[str, Any], tensors: Mapping[str, Tensor], beside: socket.socket) -> bytes:
    """The frame, its tensors left in a memory file that is sent over the socket first."""
    parts = packed({**head, "shared": True}, tensors)
    descriptor = os.memfd_create("arcuate-tensors", os.MFD_CLOEXEC)
    try:
        # Written, not mapped: half the cost, as no page is cleared first.
        for part in parts[1:]:
            rest = memoryview(part)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
        socket.send_fds(beside, [b"a"], [descriptor])
    finally:
        os.close(descriptor)
    length = PREFIX.unpack(bytes(parts[0][: PREFIX.size]))[0]
    return PREFIX.pack(length, 0) + bytes(parts[0][PREFIX.size :])


def taken(beside: socket.socket) -> memoryview:
    """The memory file that came over the socket, read-only; it lives as long as a view of it."""
    _, descriptors, _, _ = socket.recv_fds(beside, 1, 1)
    if len(descriptors) != 1:
        raise BrokenFrame("no memory file came with the frame")
    try:
        size = os.fstat(descriptors[0]).st_size
        if size > BODY_LIMIT:
            raise BrokenFrame(f"a memory file of {size} bytes is over the limit")
        if not size:
            return memoryview(b"")
        # All pages at once: a fault for each would cost more than the copy that is saved.
        flags = mmap.MAP_SHARED | mmap.MAP_POPULATE
        return memoryview(mmap.mmap(descriptors[0], size, flags=flags, prot=mmap.PROT_READ))
    finally:
        os.close(descriptors[0])


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
