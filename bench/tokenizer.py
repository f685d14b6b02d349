"""What reading one order and one result costs, beside the libraries; CPU time, best of some rounds."""

import importlib.util
import time
import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from arcuate.gateway import profile
from arcuate.gateway.route import Routes
from arcuate.kernel.hl7v2 import header
from arcuate.kernel.hl7v2.message import Message

_ROUNDS = 7
_ROUTES = Routes(profile.load())


def report(path: Path) -> None:
    """Print the table for the first order and the last result of a file of messages (separated by blank lines)."""
    raws = [raw for raw in path.read_bytes().replace(b"\n", b"\r").split(b"\r\r") if raw.strip()]
    order = next(raw for raw in raws if b"|ORM^" in raw)
    result = next(raw for raw in raws if b"|ORU^" in raw)
    print("| what | ORM, \u00b5s CPU | ORU, \u00b5s CPU |")
    print("|---|---:|---:|")
    for name, read, times in _readers():
        print(f"| {name} | {_cost(read, order, times):,.1f} | {_cost(read, result, times):,.1f} |")


def _readers() -> list[tuple[str, Callable[[bytes], object], int]]:
    found: list[tuple[str, Callable[[bytes], object], int]] = [
        ("before the commit: header, answer, content hash", _acknowledge, 400),
        ("tokenizer: segments", Message.parse, 400),
        ("tokenizer: all fields", _fields, 400),
    ]
    if importlib.util.find_spec("hl7") is not None:
        found.append(("python-hl7, parse", _python_hl7, 50))
    found.append(("hl7apy, parse", _hl7apy, 4))
    return found


def _acknowledge(raw: bytes) -> object:
    found = header.read(raw)
    assert found is not None
    return _ROUTES.of(found).stored(found, "1", datetime.now(UTC)), header.content_hash(raw, found)


def _fields(raw: bytes) -> object:
    return [segment.fields for segment in Message.parse(raw)]


def _python_hl7(raw: bytes) -> object:
    import hl7  # type: ignore[import-untyped]

    return hl7.parse(raw.decode())


def _hl7apy(raw: bytes) -> object:
    from hl7apy.parser import parse_message

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return parse_message(raw.decode())


def _cost(read: Callable[[bytes], object], raw: bytes, times: int) -> float:
    """Microseconds of CPU for one message."""
    best = float("inf")
    for _ in range(_ROUNDS):
        begun = time.process_time()
        for _ in range(times):
            read(raw)
        best = min(best, (time.process_time() - begun) / times)
    return best * 1e6
