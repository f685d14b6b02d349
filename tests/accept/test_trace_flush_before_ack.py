"""Seen from the kernel: the journal is flushed to the disk before a positive acknowledgement leaves (row 008).

The gateway runs under strace. For each acknowledgement on a socket there must be, in this order: a write of the message's row to the
journal's write-ahead log, a flush of that log that begins after it and succeeds, and only then the bytes of the acknowledgement.
"""

import asyncio
import re
from collections.abc import Iterable
from pathlib import Path

import pytest
from tests.accept.programs import gateway
from tests.gateway.messages import order

from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import MllpClient

CALLS = "fsync,fdatasync,pwrite64,pwritev,pwritev2,write,writev,sendto,sendmsg"
SENDERS, EACH = 4, 10
_LINE = re.compile(
    r"^(?P<thread>\d+)\s+(?:<\.\.\. (?P<resumed>\w+) resumed>|(?P<call>\w+)\((?P<fd>\d+)<(?P<file>.*?)>(?=[,) ]))(?P<rest>.*)$"
)
_ACK = re.compile(r"MSA\|(?P<code>AA|CA)\|(?P<id>S\d+N\d+)")


def unflushed(trace: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the control ids of all positive acknowledgements in a trace, and of those that left before their row was on the disk."""
    written: dict[str, None] = {}  # in the log, not flushed
    flushing: dict[str, set[str]] = {}  # by thread: what the flush that it began will have on the disk
    flushed: set[str] = set()
    acknowledged: list[str] = []
    early: list[str] = []
    for line in trace:
        found = _LINE.match(line)
        if found is None:
            continue
        call, thread, rest = found["resumed"] or found["call"], found["thread"], found["rest"]
        if call in ("fsync", "fdatasync"):
            if found["call"] and "door.db-wal" in found["file"]:
                flushing[thread] = set(written)
            if thread in flushing and re.search(r"\)\s+= 0\b", rest):
                done = flushing.pop(thread)
                flushed |= done
                for one in done:
                    written.pop(one, None)
        elif found["call"] and "door.db-wal" in found["file"]:
            written |= dict.fromkeys(one for one in re.findall(r"\|(S\d+N\d+)\|", rest) if one not in flushed)
        elif found["call"] and ("TCP" in found["file"] or "socket" in found["file"]):
            for said in _ACK.finditer(rest):
                acknowledged.append(said["id"])
                if said["id"] not in flushed:
                    early.append(said["id"])
    return acknowledged, early


async def _send(sender: int, port: int) -> list[str]:
    acknowledged = []
    async with MllpClient("127.0.0.1", port, 60) as client:
        for number in range(EACH):
            message = order(
                f"ACC{sender}-{number}", f"10{sender}", placer=f"P{sender}-{number}", control_id=f"S{sender}N{number}"
            )
            answer = ack.read(await client.send(message.encode()))
            assert answer is not None and answer.code == "AA"
            acknowledged.append(f"S{sender}N{number}")
    return acknowledged


@pytest.fixture
def lines(tmp_path: Path, strace: str) -> list[str]:
    async def play() -> list[list[str]]:
        tracing = (
            strace, "-f", "-yy", "-qq", "--seccomp-bpf", "-s", "8192", "-e", f"trace={CALLS}", "-e", "signal=none",
            "-o", str(tmp_path / "trace"),
        )  # fmt: skip
        async with gateway(tmp_path / "data", before=tracing) as (_, port):
            return list(await asyncio.gather(*(_send(sender, port) for sender in range(SENDERS))))

    answered = asyncio.run(play())
    assert sum(map(len, answered)) == SENDERS * EACH
    return (tmp_path / "trace").read_text("utf-8", "replace").splitlines()


def test_f008_the_journal_is_flushed_before_each_positive_acknowledgement_leaves(lines: list[str]) -> None:
    acknowledged, early = unflushed(lines)

    assert len(acknowledged) == SENDERS * EACH  # each seen on its socket
    assert early == []

    # The same trace without its flushes, or with flushes that failed, accuses every one of them: the test can fail.
    without = [line for line in lines if not re.search(r"\bf(data)?sync\(|f(data)?sync resumed", line)]
    assert len(unflushed(without)[1]) == SENDERS * EACH
    failed = [re.sub(r"(f(?:data)?sync.*\)\s+)= 0", r"\1= -1 EIO (Input/output error)", line) for line in lines]
    assert len(unflushed(failed)[1]) == SENDERS * EACH
