"""The record's speed: reads, searches and creates over HTTP, with authentication and audit on, beside servers that answer a constant body.

All run in one go and take turns, so that they share the machine and the minute. The servers are the smallest program in C
(`http_limit`), uvicorn on uvloop without and with a web framework (`http_apps.py`), uvicorn as the house runs it, and two rooms of the
house (access, record) as `arcuate` runs them, on SQLite. The load comes from wrk (Debian's package). A script's token is used: its
reads wait until the audit trail is durable; those of the house's own rooms do not.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import uvloop

from arcuate.house import ISSUER
from arcuate.kernel.auth import Principal, Role, tokens

Json = dict[str, Any]

CONNECTIONS = 32
SECONDS = 3
ROUNDS = 3
PATIENTS = 200
RUN = uvloop.run
"""How the `arcuate` command runs the house; the constant body beside it is run the same way."""

SIZE = 1024
"""Bytes of the Patient that is read: the size of the constant body."""

CONSTANT = "uvicorn as the house runs it, constant body, no framework"

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENT = "urn:arcuate:id:patient:BENCH"
_ACCESSION = "urn:arcuate:id:accession"

# Each request takes the next of a list of addresses, or sends a body with a number of its own.
_LUA = """
local tokens, paths, body, n = %(token)s, %(paths)s, %(body)s, 0
local headers = {["Authorization"] = tokens, ["Content-Type"] = "application/fhir+json"}
local threads = 0
function setup(thread) thread:set("id", threads); threads = threads + 1 end
function request()
  n = n + 1
  if body then return wrk.format("POST", paths[1], headers, (body:gsub("NUMBER", %(run)d .. "-" .. id .. "-" .. n))) end
  return wrk.format("GET", paths[n %% #paths + 1], headers)
end
function done(summary, latency)
  io.write(string.format('\\n{"requests":%%d,"us":%%d,"bad":%%d,"p50":%%f,"p99":%%f}\\n', summary.requests, summary.duration,
    summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
    latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


@dataclass(frozen=True)
class Load:
    """One run of wrk: requests a second, latencies in ms, CPU of the server in µs a request."""

    rate: float
    p50: float
    p99: float
    cpu: float


@dataclass(frozen=True)
class Server:
    """A server under load."""

    port: int
    pid: int
    tokens: Mapping[Role, str] = field(default_factory=dict)

    @property
    def base(self) -> str:
        """Return its address."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(frozen=True)
class Question:
    """What is asked of a server, again and again: addresses in turn, or a body to create."""

    name: str
    server: Server
    paths: Sequence[str]
    body: Json | None = None
    role: Role = Role.INTEGRATION
    connections: int = CONNECTIONS


def report(limits: Path, built: Path) -> None:
    """Print how fast the record reads, searches and creates beside a constant body."""
    if shutil.which("wrk") is None:
        print("FHIR is not measured: the load generator wrk is missing (Debian: apt-get install wrk).")
        return
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        servers = [
            ("smallest program in C", stack.enter_context(_program([str(built / "http_limit"), "--port"]))),
            (CONSTANT, stack.enter_context(_program([sys.executable, "-m", "bench.fhir", "constant"]))),
            ("uvicorn on uvloop, constant body, no framework", stack.enter_context(_app(limits, "uvicorn:raw_asgi"))),
            (
                "uvicorn on uvloop, constant body, starlette",
                stack.enter_context(_app(limits, "uvicorn:starlette_bytes")),
            ),
        ]
        house = stack.enter_context(_house(Path(folder)))
        patients = _fill(house)
        questions = [Question(name, server, ["/fhir/Patient/1"]) for name, server in servers]
        questions += _asked(house, patients)
        found: dict[str, list[Load]] = {}
        for turn in range(ROUNDS):
            for question in questions:
                found.setdefault(question.name, []).append(_load(question, turn))
    _print({name: _best(loads) for name, loads in found.items()})


def _asked(house: Server, patients: Sequence[str]) -> list[Question]:
    def search(query: str) -> list[str]:
        return [f"/fhir/ServiceRequest?{query.format(id=one, n=n)}" for n, one in enumerate(patients)]

    reads, room = [f"/fhir/Patient/{one}" for one in patients], Role.ROOM
    bundle = _bundle("NUMBER")
    return [
        Question("read", house, reads),
        Question("read, by a room", house, reads, None, room),
        Question("search by identifier, 1 match", house, search(f"identifier={_ACCESSION}%7CA{{n}}")),
        Question("search by patient and status, 4 matches", house, search("patient=Patient/{id}&status=active")),
        Question("search, page of 200", house, ["/fhir/ServiceRequest?_count=200"]),
        Question("create Patient (19 index rows)", house, ["/fhir/Patient"], _patient("NUMBER")),
        Question("create Patient, by a room", house, ["/fhir/Patient"], _patient("NUMBER"), room),
        Question("create ServiceRequest, by a room", house, ["/fhir/ServiceRequest"], _order("NUMBER", "Patient/1"), room),
        Question("create ServiceRequest, by a room, 128 connections", house, ["/fhir/ServiceRequest"],
                 _order("NUMBER", "Patient/1"), room, 128),
        Question("transaction of 5 entries, by a room", house, ["/fhir"], bundle, room),
    ]  # fmt: skip


def _best(loads: Sequence[Load]) -> Load:
    """Return the quickest round, with the least CPU of all: what other programs add is noise."""
    return replace(max(loads, key=lambda one: one.rate), cpu=min(one.cpu for one in loads))


def _print(best: dict[str, Load]) -> None:
    base = best[CONSTANT]
    print(
        f"| FHIR over HTTP, {CONNECTIONS} connections | requests/s | p50 / p99 ms | server CPU µs | in per cent of {CONSTANT}: rate | CPU |"
    )
    print("|---|---:|---:|---:|---:|---:|")
    for name, one in best.items():
        print(
            f"| {name} | {one.rate:,.0f} | {one.p50:.2f} / {one.p99:.1f} | {one.cpu:.0f} "
            f"| {100 * one.rate / base.rate:.0f} | {100 * base.cpu / one.cpu:.0f} |"
        )
    print(
        f"Best of {ROUNDS} rounds of {SECONDS} s each; every create, and what the trail says of every read, durable before its answer.\n"
    )


def _load(question: Question, turn: int) -> Load:
    said = {
        "token": json.dumps(f"Bearer {question.server.tokens.get(question.role, '')}"),
        "paths": "{" + ",".join(map(json.dumps, question.paths)) + "}",
        "body": json.dumps(json.dumps(question.body)) if question.body else "nil",
        "run": turn * 1000 + question.connections,
    }
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(_LUA % said)
        script.flush()
        before = cpu_of(question.server.pid)
        done = subprocess.run(
            ["wrk", "-t1", f"-c{question.connections}", f"-d{SECONDS}s", "--timeout", "20s", "-s", script.name, question.server.base],
            check=True, capture_output=True, text=True,
        )  # fmt: skip
        used = cpu_of(question.server.pid) - before
    answer = json.loads(done.stdout.strip().splitlines()[-1])
    if answer["bad"]:
        raise SystemExit(f"Wrong answers: {question.name}: {answer}")
    cpu = 1e6 * used / max(1, answer["requests"])
    return Load(1e6 * answer["requests"] / answer["us"], answer["p50"], answer["p99"], cpu)


def cpu_of(pid: int) -> float:
    """Return the seconds of CPU that a process has used, in its own code and in the kernel's."""
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _fill(house: Server) -> list[str]:
    """Store synthetic patients of the measured size with four orders each; returns their ids."""
    with httpx.Client(
        base_url=house.base, headers={"Authorization": f"Bearer {house.tokens[Role.INTEGRATION]}"}, timeout=60
    ) as client:
        ids = []
        for n in range(PATIENTS):
            bundle = _bundle(str(n))
            del bundle["identifier"]  # it would stand in each resource's meta.source
            answer = client.post("/fhir", json=bundle)
            answer.raise_for_status()
            ids.append(answer.json()["entry"][0]["response"]["location"].split("/")[1])
        length = len(client.get(f"/fhir/Patient/{ids[0]}").raise_for_status().content)
    if length != SIZE:
        raise SystemExit(f"The patient that is read has {length} bytes, the constant body {SIZE}")
    return ids


def _bundle(number: str) -> Json:
    """Return a transaction: a new patient of the measured size and four orders, the first with the accession `A` and the number."""
    patient = "urn:uuid:00000000-0000-4000-8000-000000000001"
    orders = [_order(f"A{number}{suffix}", patient) for suffix in ("", "-1", "-2", "-3")]
    entries = [_entry(_patient(number.rjust(6, "0")), patient), *map(_entry, orders)]
    source = {"system": "urn:arcuate:bench", "value": number}
    return {"resourceType": "Bundle", "type": "transaction", "identifier": source, "entry": entries}


def _entry(resource: Json, full_url: str = "") -> Json:
    made: Json = {"resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}}
    return {"fullUrl": full_url, **made} if full_url else made


def _patient(number: str) -> Json:
    made: Json = {
        "resourceType": "Patient", "identifier": [{"system": _PATIENT, "value": number, "use": "usual"}], "active": True,
        "name": [{"use": "official", "family": "Muster", "given": ["Anna", "Q"]}], "gender": "female", "birthDate": "1958-04-12",
        "telecom": [{"system": "phone", "value": "555-0100", "use": "home"}],
        "address": [{"line": ["1 Test Street"], "city": "Testtown", "postalCode": "00001", "country": "XX"}],
    }  # fmt: skip
    stamps = len('"id":"","meta":{"versionId":"1","lastUpdated":""},') + 36 + 24
    div = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'
    made["text"] = {"status": "generated", "div": div.format("")}
    made["text"]["div"] = div.format("x" * (SIZE - stamps - len(json.dumps(made, separators=(",", ":")))))
    return made


def _order(accession: str, subject: str) -> Json:
    return {
        "resourceType": "ServiceRequest", "status": "active", "intent": "order", "subject": {"reference": subject},
        "identifier": [{"system": _ACCESSION, "value": accession}], "authoredOn": "2026-01-05T08:15:00+01:00", "priority": "routine",
        "code": {"coding": [{"system": "http://loinc.org", "code": "24590-2", "display": "MR Brain"}], "text": "MR Brain"},
    }  # fmt: skip


@contextmanager
def _program(command: Sequence[str], **settings: Any) -> Iterator[Server]:
    """Run a program whose last argument is its port, until it is left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    process = subprocess.Popen([*command, str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, **settings)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        yield Server(port, process.pid)
    finally:
        process.terminate()
        process.wait(30)


def _app(limits: Path, name: str) -> Any:
    return _program([sys.executable, "-B", str(limits / "http_apps.py"), "--app", name, "--port"])


@contextmanager
def _house(folder: Path) -> Iterator[Server]:
    environment = {**os.environ, "ARCUATE_TIME_ZONE": "Europe/Zurich"}
    with _program([sys.executable, "-m", "bench.fhir", str(folder)], env=environment) as server:
        key = tokens.load_or_make_key(folder / "keys" / "access-signing.json", "access")
        yield replace(server, tokens={role: _token(key, role) for role in (Role.INTEGRATION, Role.ROOM)})


def _token(key: Any, role: Role) -> str:
    return tokens.issue(key, ISSUER, Principal("bench", frozenset({role}), "bench"), datetime.now(UTC), 3600)


def serve_house(folder: Path, port: int) -> None:
    """Run the rooms access and record."""
    from arcuate.house import HouseSettings
    from arcuate.programs import run_house

    settings = HouseSettings(data_dir=folder, port=port)
    RUN(run_house(settings, rooms=("access", "record"), say=lambda _line: None))


def serve_constant(port: int) -> None:
    """Answer every request with one body of the measured size, by the house's server software with the house's settings."""
    import uvicorn

    body = json.dumps(_patient("0"), separators=(",", ":")).encode().ljust(SIZE)
    headers = [(b"content-type", b"application/fhir+json"), (b"content-length", b"%d" % len(body))]

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    config = uvicorn.Config(app, port=port, lifespan="off", log_level="warning", access_log=False, server_header=False)
    RUN(uvicorn.Server(config).serve())


if __name__ == "__main__":
    if sys.argv[1] == "constant":
        serve_constant(int(sys.argv[2]))
    else:
        serve_house(Path(sys.argv[1]), int(sys.argv[2]))
