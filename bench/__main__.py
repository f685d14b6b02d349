"""`make bench`: the HL7 door, beside the house at work, against a C program that does nothing but store and acknowledge; then how long answers
take (`answers.py`), FHIR over HTTP (`fhir.py`), and what handing a head over costs (`handover.py`), in one run.

Only the ratio means something: both sides share the machine, the disc and the minute. The tools of the limits folder (a load
generator and the smallest sink) are compiled into `build/bench`; the folder is named by ARCUATE_SHARED, or lies beside the checkout.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import answers, fhir, handover, tokenizer

ROOT = Path(__file__).parent.parent
LIMITS = Path(os.environ.get("ARCUATE_SHARED", ROOT.parent / "shared")) / "tools" / "limits"
BUILT = ROOT / "build" / "bench"
CONNECTIONS = (1, 8, 32, 64)
SECONDS = 3
ROUNDS = 3


def main() -> int:
    """Measure and print; 0 unless an answer was wrong or lost. The argument `answers` measures only those."""
    if not LIMITS.is_dir():
        print("The limits to measure against are not beside this checkout (ARCUATE_SHARED names another place).")
        return 0
    BUILT.mkdir(parents=True, exist_ok=True)
    subprocess.run(["make", "-s", "-C", str(LIMITS), f"B={BUILT}"], check=True)
    if "answers" not in sys.argv[1:]:
        _doors()
        tokenizer.report(LIMITS / "messages.hl7")
    answers.report()
    if "answers" in sys.argv[1:]:
        return 0
    fhir.report(LIMITS, BUILT)
    handover.report()
    return 0


def _doors() -> None:
    found: dict[tuple[str, int], list[Load]] = {}
    with _sink() as (sink, writer), tempfile.TemporaryDirectory() as folder, answers.house(Path(folder)) as house:
        sides = (("limit", sink, writer), ("arcuate", house.hl7_port, house.door))
        for _ in range(ROUNDS):  # interleaved, so that both see the same machine
            for connections in CONNECTIONS:
                for name, port, pid in sides:
                    found.setdefault((name, connections), []).append(_load(port, connections, pid))
    print(
        "| connections | smallest program, msg/s | p50 / p99 ms | CPU \u00b5s | Arcuate, msg/s | p50 / p99 ms | CPU \u00b5s of the door | "
        "Arcuate in per cent of it |"
    )
    print("|---:|---:|---:|---:|---:|---:|---:|---:|")
    for connections in CONNECTIONS:
        limit, ours = (max(found[name, connections], key=lambda one: one.rate) for name in ("limit", "arcuate"))
        print(f"| {connections} | {limit} | {ours} | {100 * ours.rate / limit.rate:.1f} |")
    print(f"Best of {ROUNDS} rounds of {SECONDS} s each; every message durable before its AA on both sides.\n")


@dataclass(frozen=True)
class Load:
    """One run of the load generator: messages a second, latencies in ms, CPU of the process that answers in \u00b5s a message."""

    rate: float
    p50: float
    p99: float
    cpu: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f} | {self.p50:.2f} / {self.p99:.1f} | {self.cpu:.0f}"


def _load(port: int, connections: int, pid: int) -> Load:
    before = fhir.cpu_of(pid)
    command = [str(BUILT / "mllp_load"), "--file", str(LIMITS / "messages.hl7"), "--port", str(port)]
    done = subprocess.run(
        [*command, "--conns", str(connections), "--seconds", str(SECONDS), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if answer["nak"] or answer["wrong"]:
        raise SystemExit(f"Negative or wrong answers: {answer}")
    rate = float(answer["msg_per_s"])
    cpu = 1e6 * (fhir.cpu_of(pid) - before) / max(1.0, rate * SECONDS)
    return Load(rate, float(answer["p50_ms"]), float(answer["p99_ms"]), cpu)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _sink() -> Iterator[tuple[int, int]]:
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [BUILT / "mllp_sink", "--port", str(port), "--mode", "group", "--log", f"{folder}/journal"]
        )
        try:
            _until_open(port)
            yield port, process.pid
        finally:
            process.terminate()
            process.wait()


def _until_open(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"Nothing listens on port {port}")


if __name__ == "__main__":
    raise SystemExit(main())
