"""`make bench`: the HL7 door against a C program that does nothing but store and acknowledge, then FHIR over HTTP (`fhir.py`), in one run.

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

from bench import fhir, tokenizer

ROOT = Path(__file__).parent.parent
LIMITS = Path(os.environ.get("ARCUATE_SHARED", ROOT.parent / "shared")) / "tools" / "limits"
BUILT = ROOT / "build" / "bench"
CONNECTIONS = (1, 8, 32, 64)
SECONDS = 3
ROUNDS = 3


def main() -> int:
    """Measure and print; 0 unless an answer was wrong or lost."""
    if not LIMITS.is_dir():
        print("The limits to measure against are not beside this checkout (ARCUATE_SHARED names another place).")
        return 0
    BUILT.mkdir(parents=True, exist_ok=True)
    subprocess.run(["make", "-s", "-C", str(LIMITS), f"B={BUILT}"], check=True)
    found: dict[tuple[str, int], list[Load]] = {}
    with _sink() as sink, _gateway() as gateway:
        for _ in range(ROUNDS):  # interleaved, so that both see the same machine
            for name, port in (("limit", sink), ("arcuate", gateway)):
                for connections in CONNECTIONS:
                    found.setdefault((name, connections), []).append(_load(port, connections))
    print(
        "| connections | smallest program, msg/s | p50 / p99 ms | Arcuate, msg/s | p50 / p99 ms | Arcuate in per cent of it |"
    )
    print("|---:|---:|---:|---:|---:|---:|")
    for connections in CONNECTIONS:
        limit, ours = (max(found[name, connections], key=lambda one: one.rate) for name in ("limit", "arcuate"))
        print(f"| {connections} | {limit} | {ours} | {100 * ours.rate / limit.rate:.1f} |")
    print(f"Best of {ROUNDS} rounds of {SECONDS} s each; every message durable before its AA on both sides.\n")
    tokenizer.report(LIMITS / "messages.hl7")
    fhir.report(LIMITS, BUILT)
    return 0


@dataclass(frozen=True)
class Load:
    """One run of the load generator: messages a second, latencies in ms."""

    rate: float
    p50: float
    p99: float

    def __str__(self) -> str:
        return f"{self.rate:,.0f} | {self.p50:.2f} / {self.p99:.1f}"


def _load(port: int, connections: int) -> Load:
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
    return Load(float(answer["msg_per_s"]), float(answer["p50_ms"]), float(answer["p99_ms"]))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def _sink() -> Iterator[int]:
    port = _free_port()
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            [BUILT / "mllp_sink", "--port", str(port), "--mode", "group", "--log", f"{folder}/journal"]
        )
        try:
            _until_open(port)
            yield port
        finally:
            process.terminate()
            process.wait()


@contextmanager
def _gateway() -> Iterator[int]:
    port, web = _free_port(), _free_port()
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "ARCUATE_TIME_ZONE": "Europe/Zurich", "ARCUATE_GATEWAY_PORT": str(port)}
        environment["ARCUATE_GATEWAY_CONNECTIONS_PER_ADDRESS"] = str(max(CONNECTIONS))
        command = [sys.executable, "-m", "arcuate", "serve", "gateway", "--data", folder, "--port", str(web)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            _until_open(port)
            yield port
        finally:
            process.terminate()
            process.wait(30)


def _until_open(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise SystemExit(f"Nothing listens on port {port}")


if __name__ == "__main__":
    raise SystemExit(main())
