"""The gateway with its record as a program of its own, also under strace or under limits, and what the kernel says of it."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path

PROGRAM = Path(__file__).parents[1] / "gateway" / "program.py"


class Ended(Exception):
    """The program ended before it had opened its door; the text is what it said."""


@asynccontextmanager
async def gateway(
    data: Path, *, before: Sequence[str] = (), code: Path = PROGRAM, more: Sequence[str] = ()
) -> AsyncIterator[tuple[int, int]]:
    """Run the program and all that it starts; yields the process and the HL7 port.

    Args:
        before: A command in front of it, such as strace or prlimit.
        code: The program.
        more: Arguments for it behind the data folder.

    Raises:
        Ended: It ended before its door was open.
    """
    said = data.with_name(f"{data.name}.err")
    with said.open("wb") as errors:
        process = await asyncio.create_subprocess_exec(
            *before, sys.executable, str(code), str(data), *more, stdout=asyncio.subprocess.PIPE, stderr=errors,
            start_new_session=True,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 120)
        if not line:
            raise Ended(said.read_text())
        yield process.pid, int(line)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


def family(pid: int) -> list[int]:
    """Return a process and all that it started, by /proc."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            with suppress(OSError):
                found += [int(child) for child in task.read_text().split()]
    return found


def memory_kib(pid: int) -> int:
    """Return the memory in use of a family, shared pages counted once (PSS), in KiB."""
    total = 0
    for one in family(pid):
        with suppress(OSError):
            lines = Path(f"/proc/{one}/smaps_rollup").read_text().splitlines()
            total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def descriptors(pid: int) -> int:
    """Return how many files and sockets a family holds open."""
    found = 0
    for one in family(pid):
        with suppress(OSError):
            found += len(list(Path(f"/proc/{one}/fd").iterdir()))
    return found
