"""Connections: is anything down or silent, is anything lost."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard import facts, service
from arcuate.dashboard.desk import Desk, by_script, form_of, see_other
from arcuate.dashboard.domain.frame import Fact, Mark, Silent
from arcuate.dashboard.domain.integration import Connection, Traffic, accounted, quiet
from arcuate.dashboard.render import Frame
from arcuate.dashboard.rooms import Rooms
from arcuate.dashboard.words import Wording, count, span
from arcuate.kernel.errors import ArcuateError, Json

PARTS = ("facts", "rows", "side")
_JOURNAL_ROWS, _JOURNAL_PAGES = 200, 5
_RECOVERED = 5
_KINDS = {"dictation": "drafts out", "report": "signed reports out", "ris": "requests and signed reports out"}


@dataclass(frozen=True)
class Alert:
    """A room or connection that failed: told once, and once more when it worked again.

    Attributes:
        failures: How often it failed in between.
        meanwhile: What goes on without it.
    """

    name: str
    cause: str
    since: datetime
    recovered: datetime | None
    failures: int
    meanwhile: str
    kind_is_room: bool = False


@dataclass(frozen=True)
class Connections:
    """What the page shows.

    Attributes:
        lost: Messages whose end is not known; never to be other than 0.
        halted: Since when nothing is sent, and why; None in the usual case.
    """

    words: Wording
    rows: Sequence[Connection] = ()
    picked: Connection | None = None
    messages: int = 0
    outcomes: Sequence[tuple[str, int]] = ()
    lost: int = 0
    door: Json = field(default_factory=dict)
    transport: Mapping[str, int] = field(default_factory=dict)
    silent: Silent | None = None
    parked: int = 0
    alerts: Sequence[Alert] = ()
    recovered: Sequence[Alert] = ()
    halted: tuple[datetime, str] | None = None

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line: the worst first."""
        if self.silent is not None:
            return []
        down = sum(r.mark is Mark.STOP for r in self.rows)
        still = sum(r.mark is Mark.LOOK and r.incoming for r in self.rows)
        made = [Fact("Halted:", "nothing is sent", "stop")] if self.halted else []
        made += [Fact(str(down), "down", "stop")] if down else []
        away = sum(one.kind_is_room for one in self.alerts)
        made += [Fact(str(away), "rooms do not answer" if away > 1 else "room does not answer", "stop")] if away else []
        made += [Fact(str(still), "quiet, unusual", "look")] if still else []
        words = "message parked" if self.parked == 1 else "messages parked"
        made += [Fact(str(self.parked), words, "look", href="/errors")] if self.parked else []
        sum_words = f"in, {self.messages - self.lost:,} accounted for"
        return [
            *made,
            Fact(str(sum(r.mark is Mark.DONE for r in self.rows)), "open"),
            Fact(f"{self.messages:,}", sum_words),
        ]


async def read_connections(desk: Desk, rooms: Rooms, picked: str) -> Connections:
    """Ask the gateway how its connections stand."""
    words = desk.words
    listed, counted, journal, images, alerts = await asyncio.gather(
        rooms.part(
            "gateway",
            rooms.get("/gateway/connections"),
            "Messages cannot be seen from here; senders notice it at their end.",
        ),
        rooms.part("gateway", rooms.get("/gateway/counts")),
        rooms.part("gateway", _journal(rooms, words.now)),
        rooms.part("imaging", rooms.get("/imaging/studies")),
        rooms.part("journey", rooms.get("/journey/alerts")),
    )
    told = alerts.or_else({})
    failing, recovered = _alerts(told.get("open")), _alerts(told.get("recovered"))[:_RECOVERED]
    if listed.value is None:
        return Connections(words, silent=listed.silent, alerts=failing, recovered=recovered)
    body, traffic = listed.value, _traffic(journal.or_else({}), words.now)
    rows = [_sender(s, traffic.get(str(s["sender"]), Traffic()), words) for s in body["senders"]]
    rows += [_receiver(r, words) for r in body["receivers"]]
    rows += [_images(images.value, words)] if images.value is not None else []
    totals = counted.or_else({"messages": 0, "states": {}})
    outcomes, lost = accounted(int(totals["messages"]), totals["states"])
    chosen = next((r for r in rows if r.id == picked), max(rows, key=lambda r: r.worst, default=None))
    parked = sum(int(totals["states"].get(state, 0)) for state in ("parked", "unmatched")) + sum(
        r.parked for r in rows if not r.incoming
    )
    return Connections(
        words, rows, chosen, int(totals["messages"]), outcomes, lost, body["door"], body["transport"], None, parked,
        failing, recovered, _halted(body.get("halted")),
    )  # fmt: skip


def _halted(body: Mapping[str, Any] | None) -> tuple[datetime, str] | None:
    since = facts.instant(body.get("since")) if body else None
    return (since, str((body or {}).get("reason"))) if since else None


def _alerts(rows: Sequence[Mapping[str, Any]] | None) -> list[Alert]:
    return [
        Alert(
            str(row["name"]), str(row["cause"]), since, facts.instant(row.get("recovered")), int(row.get("failures") or 0),
            str(row.get("meanwhile") or ""), str(row.get("kind")) == "room",
        )
        for row in rows or ()
        if (since := facts.instant(row.get("since")))
    ]  # fmt: skip


async def _journal(rooms: Rooms, now: datetime) -> Json:
    """Return the newest rows of the journal, as far back as an hour, or as many as may be read."""
    items: list[Json] = []
    before: int | None = None
    for _ in range(_JOURNAL_PAGES):
        query = {"limit": _JOURNAL_ROWS, **({"before": before} if before else {})}
        page = await rooms.get("/gateway/journal", query)
        items, before = [*items, *page["items"]], page["before"]
        oldest = facts.instant(items[-1]["received"]) if items else None
        if before is None or (oldest and (now - oldest).total_seconds() > 3600):
            break
    return {"items": items, "before": before}


def _traffic(journal: Mapping[str, Any], now: datetime) -> dict[str, Traffic]:
    items = journal.get("items") or []
    times: dict[str, list[datetime]] = {}
    for item in items:
        if (at := facts.instant(item.get("received"))) is not None:
            times.setdefault(str(item["sender"]), []).append(at)
    oldest = facts.instant(items[-1].get("received")) if items else None
    complete = journal.get("before") is None or (oldest is not None and (now - oldest).total_seconds() > 3600)
    return {sender: Traffic(tuple(found), complete) for sender, found in times.items()}


def _sender(row: Mapping[str, Any], traffic: Traffic, words: Wording) -> Connection:
    last = facts.instant(row.get("last"))
    unusual = quiet(last, traffic, words.now)
    application, facility = (part.split("^")[0] for part in f"{row['sender']}|".split("|")[:2])
    is_open, parked = int(row["open"]) > 0, int(row["parked"]) + int(row["unmatched"])
    mark = Mark.LOOK if unusual else Mark.DONE if is_open else Mark.UNKNOWN
    state = "quiet, unusual" if unusual else "open" if is_open else "not connected"
    usual = traffic.usual_s()
    detail = [
        ("Facility", facility or "none stated"), ("Address", str(row["peer"])), ("Profile", str(row["profile"])),
        ("Last answer", str(row["last_answer"] or "none")), ("Repeated", count(int(row["resent"]), "message")),
        ("Usual gap", span(usual) if usual is not None else "too few messages to say"),
    ]  # fmt: skip
    sentence = f"Last message {words.ago(last)}." if last else "No message yet."
    if not is_open and not unusual:
        sentence += " The sender has no connection open now; many senders connect for each message."
    return Connection(
        f"in:{row['sender']}", application or "sender without a name", "HL7 in", True, mark, state, "look" if unusual else "", last,
        unusual or (words.ago(last) if last else "never"), int(row["waiting"]), parked, f"{int(row['received']):,}",
        60 if unusual else 20 * bool(parked), None if (found := traffic.per_minute(words.now)) is None else tuple(found), tuple(detail),
        sentence,
    )  # fmt: skip


def _receiver(row: Mapping[str, Any], words: Wording) -> Connection:
    down, last = facts.instant(row.get("down_since")), facts.instant(row.get("last_acknowledged"))
    waiting, parked = int(row["waiting"]), int(row["parked"])
    mark = Mark.STOP if down else Mark.LOOK if parked else Mark.DONE
    oldest = facts.instant(row.get("oldest"))
    sentence = f"No connection since {words.when(down)} ({span((words.now - down).total_seconds())}). " if down else ""
    sentence += (
        f"{count(waiting, 'message')} {'waits' if waiting == 1 else 'wait'} in order; nothing is lost. "
        if waiting
        else ""
    )
    sentence += f"{count(parked, 'message')} refused by the receiver: see parked messages." if parked else ""
    detail = [
        ("Gets", _KINDS.get(str(row["kind"]), str(row["kind"]))), ("Address", str(row["address"])),
        ("Oldest waiting", words.when(oldest) if oldest else "none"), ("Others held up", "none"),
    ]  # fmt: skip
    state = "down" if down else "refuses some" if parked else "open"
    last_words = f"{words.when(down)}, no connection" if down else words.ago(last) if last else "nothing sent yet"
    tone, worst = ("stop", 100) if down else ("look", 40) if parked else ("", 0)
    sentence = sentence or "Everything sent is acknowledged."
    return Connection(
        f"out:{row['receiver']}", str(row["receiver"]), f"HL7 out, {row['kind']}", False, mark, state, tone, last, last_words, waiting,
        parked, "", worst, None, tuple(detail), sentence,
    )  # fmt: skip


def _images(body: Mapping[str, Any], words: Wording) -> Connection:
    studies = body.get("studies") or []
    last = max((at for s in studies if (at := facts.instant(s.get("last_received")))), default=None)
    held = sum(bool(s.get("conflict")) for s in studies)
    refused = sum(bool((s.get("measurement") or {}).get("refusal")) for s in studies)
    measured = sum(bool((s.get("measurement") or {}).get("result")) for s in studies)
    detail = [
        ("Measured", f"{measured} of {len(studies)}"), ("Refused", str(refused)), ("Conflicts", str(held)),
        ("Spool", f"{int(body.get('used_bytes') or 0) / 2**20:,.0f} MiB"),
    ]  # fmt: skip
    return Connection(
        "images", "Images", "C-STORE, STOW-RS in", False, Mark.LOOK if held else Mark.DONE, "open", "look" if held else "", last,
        words.ago(last) if last else "no image yet", 0, held, f"{len(studies):,}", 30 * bool(held), None, tuple(detail),
        "Studies of an unknown accession wait here and join by themselves." if studies else "No image has come yet.",
    )  # fmt: skip


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the routes of the connections page."""
    signed_in = [Depends(guard)]

    async def seen(request: Request) -> tuple[Frame, Connections]:
        view = await read_connections(desk, await desk.rooms(request), request.query_params.get("at", ""))
        return await desk.frame(request, "connections", "Connections", counts={"errors": view.parked}), view

    @app.get("/connections", dependencies=signed_in)
    async def page(request: Request) -> Response:
        frame, view = await seen(request)
        return desk.renderer.page("connections/page.html", frame, view=view)

    @app.post("/connections/release", dependencies=signed_in)
    async def release(request: Request) -> Response:
        await form_of(request)
        try:
            said = await service.release_sending(await desk.rooms(request))
        except ArcuateError as error:
            said = service.refused(error)
        if not by_script(request):
            return see_other("/connections")
        frame, view = await seen(request)
        return desk.renderer.parts("connections", frame, ["facts", "rows", "said"], view=view, notice=said)

    @app.get("/connections/parts", dependencies=signed_in)
    async def parts(request: Request, names: str = "") -> Response:
        frame, view = await seen(request)
        return desk.renderer.parts("connections", frame, [n for n in names.split(",") if n in PARTS], view=view)
