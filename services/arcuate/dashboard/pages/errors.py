"""Parked messages: what is parked and why, and how to mend it. The received bytes never change."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.responses import Response

from arcuate.dashboard import facts, service
from arcuate.dashboard.desk import Desk, by_script, form_of, see_other
from arcuate.dashboard.domain.frame import Fact, Notice, Silent
from arcuate.dashboard.domain.integration import Hl7Words, ParkedGroup, ParkedItem, Segment, grouped, mended
from arcuate.dashboard.render import FOLDER, Frame
from arcuate.dashboard.rooms import Part, Rooms
from arcuate.dashboard.words import Wording, span
from arcuate.kernel.errors import ArcuateError, BadInput, Json, NotFound

PARTS = ("facts", "items")
_ITEM = re.compile(r"(in|out|job)-\d{1,12}\Z")
_FACTS = ("location", "reason", "cause", "orders", "edited", "changed_by", "receiver", "about", "journal", "text")
_SHOWN = 6  # newest of each cause in the whole list
_WORDS = "hl7.toml"
_PLACE = re.compile(r"([A-Z][A-Z0-9]{2})-(\d{1,3})")


@dataclass(frozen=True)
class Opened:
    """One message that somebody has opened."""

    item: Json
    view: str = "segments"

    @classmethod
    def of(cls, body: Json, view: str = "segments") -> "Opened":
        """Return an item as the gateway tells it; what came in, went out or was never built each lack some facts."""
        return cls({**dict.fromkeys(_FACTS, ""), **body}, view)

    @property
    def incoming(self) -> bool:
        """Return whether it came in; an outgoing one is not edited."""
        return str(self.item["id"]).startswith("in-")

    @property
    def segments(self) -> list[Segment]:
        """Return its segments, the faulty field marked."""
        rows = self.item.get("segments") or []
        return [Segment(str(r["id"]), tuple(str(f) for f in r["fields"]), r.get("faulty")) for r in rows]

    @property
    def place(self) -> tuple[str, int] | None:
        """Return segment and number of the faulty field."""
        found = _PLACE.match(str(self.item.get("location") or ""))
        return (found.group(1), int(found.group(2))) if found else None

    @property
    def faulty_value(self) -> str:
        """Return what the faulty field holds."""
        if self.place is None:
            return ""
        name, number = self.place
        segment = next((s for s in self.segments if s.id == name), None)
        return segment.fields[number] if segment and number < len(segment.fields) else ""

    @property
    def lines(self) -> str:
        """Return the message for a field of text, one segment a line."""
        return str(self.item.get("text") or "").replace("\r\n", "\n").replace("\r", "\n")


@dataclass(frozen=True)
class Parked:
    """What the page shows."""

    words: Wording
    items: Sequence[ParkedItem] = ()
    total: int = 0
    opened: Opened | None = None
    opened_id: str = ""
    silent: Silent | None = None
    accounted: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)
    cause: str = ""
    say: Hl7Words = field(default_factory=lambda: Hl7Words({}, {}, {}))

    @property
    def groups(self) -> list[ParkedGroup]:
        """Return the items by cause: a few of each, or all of the chosen one."""
        if self.cause:
            return [g for g in grouped(self.items, self.counts, len(self.items)) if g.cause == self.cause]
        return grouped(self.items, self.counts, _SHOWN)

    @property
    def facts(self) -> list[Fact]:
        """Return the fact line."""
        if not self.items:
            return []
        oldest = min((i.at for i in self.items if i.at), default=None)
        age = [Fact(span((self.words.now - oldest).total_seconds()), "oldest", before=True)] if oldest else []
        return [Fact(str(self.total), "open", "stop"), *age]

    @property
    def received(self) -> str:
        """Return when the opened message came, to the second."""
        at = facts.instant(self.opened.item.get("received")) if self.opened else None
        return f"{self.words.when(at)}:{at.second:02d}" if at else "at a time that is not known"

    @property
    def same(self) -> int:
        """Return how many others are parked for the same cause."""
        cause = str(self.opened.item.get("cause") or "") if self.opened else ""
        return self.counts.get(cause, sum(i.cause == cause for i in self.items)) - 1


def load_words() -> Hl7Words:
    """Read the names of fields and causes."""
    table = tomllib.loads((FOLDER / _WORDS).read_text(encoding="utf-8"))
    causes = table["cause"]
    return Hl7Words(
        table["field"], {c: row["title"] for c, row in causes.items()}, {c: row["todo"] for c, row in causes.items()}
    )


async def read_parked(
    desk: Desk, rooms: Rooms, say: Hl7Words, item: str, view: str, cause: str, *, open_item: bool = True
) -> Parked:
    """Ask the gateway for what is parked; an item's content only when a person opens it."""
    words = desk.words
    query: dict[str, str | int] = {"limit": 200, **({"cause": cause} if cause else {})}
    listed = await rooms.part(
        "gateway", rooms.get("/gateway/errors", query), "Parked messages cannot be seen; they are kept."
    )
    if listed.value is None:
        return Parked(words, silent=listed.silent, say=say)
    items = parked_items(listed.value)
    counts = {str(g["cause"]): int(g["count"]) for g in listed.value["groups"]}
    found = Parked(words, items, sum(counts.values()), opened_id=item, counts=counts, cause=cause, say=say)
    if item and open_item:
        opened: Part[Json] = await rooms.part("gateway", rooms.get(f"/gateway/errors/{item}"))
        if opened.value is None:
            return replace(found, silent=opened.silent)
        return replace(found, opened=Opened.of(opened.value, view))
    counted = await rooms.part("gateway", rooms.get("/gateway/counts")) if not items else Part[Any]()
    return replace(found, accounted=int((counted.value or {}).get("messages", 0)))


def parked_items(body: Json) -> list[ParkedItem]:
    """Return the rows of the gateway's error queue: what came in, what a receiver refused, what could not be built."""
    rows = [(i, str(i["kind"]), _party(str(i["sender"])), i["received"]) for i in body["items"]]
    rows += [
        (i, _kind_out(i), f"to {i['receiver']}" if i["receiver"] else "on its way out", i["created"])
        for i in body["outgoing"]
    ]
    return [
        ParkedItem(str(i["id"]), str(i["cause"]), kind, party, facts.instant(at), str(i["state"])) for i, kind, party, at in rows
    ]  # fmt: skip


def _kind_out(item: Mapping[str, Any]) -> str:
    """Return the kind of an outgoing row; what could not be built has no message yet and is named after what it is about."""
    about = str(item.get("about") or "").split("/", maxsplit=1)[0]
    return about or "work" if str(item["id"]).startswith("job-") else str(item["kind"])


def _party(sender: str) -> str:
    """Return a sender's application as people call it: the name without its identifiers."""
    return sender.split("|", maxsplit=1)[0].split("^", maxsplit=1)[0] or "sender without a name"


def add_routes(app: FastAPI, desk: Desk, guard: Any) -> None:
    """Add the routes of the error queue."""
    signed_in, say = [Depends(guard)], load_words()

    async def seen(request: Request, item: str, *, open_item: bool = True) -> tuple[Frame, Parked]:
        query, rooms = request.query_params, await desk.rooms(request)
        view = await read_parked(
            desk, rooms, say, item, query.get("show", "segments"), query.get("cause", ""), open_item=open_item
        )
        return await desk.frame(request, "errors", "Parked messages", counts={"errors": view.total}), view

    @app.get("/errors", dependencies=signed_in)
    async def page(request: Request) -> Response:
        frame, view = await seen(request, "")
        return desk.renderer.page("errors/page.html", frame, view=view)

    @app.get("/errors/{item}", dependencies=signed_in)
    async def opened(request: Request, item: str) -> Response:
        if item == "parts":  # fetched by the page itself: the list, never a content
            frame, view = await seen(request, request.query_params.get("item", ""), open_item=False)
            names = [n for n in request.query_params.get("names", "").split(",") if n in PARTS]
            return desk.renderer.parts("errors", frame, names, view=view)
        frame, view = await seen(request, _known(item))
        return desk.renderer.page("errors/page.html", frame, view=view)

    @app.post("/errors/{item}/try", dependencies=signed_in)
    async def try_out(request: Request, item: str) -> Response:
        form, rooms = await form_of(request), await desk.rooms(request)
        opened = Opened.of(await rooms.get(f"/gateway/errors/{_known(item)}"))
        line = _line(opened, str(form.get("value") or ""))
        frame = await desk.frame(request, "errors", "Parked messages")
        return desk.renderer.parts("errors", frame, ["difference"], opened=opened, line=line)

    @app.post("/errors/{item}/{act}", dependencies=signed_in)
    async def act(request: Request, item: str, act: str) -> Response:
        form, rooms = await form_of(request), await desk.rooms(request)
        try:
            said = await _act(rooms, _known(item), act, form)
        except ArcuateError as error:
            said = service.refused(error)
        if not by_script(request):
            return see_other("/errors")
        frame, view = await seen(request, item, open_item=False)
        return desk.renderer.parts("errors", frame, ["facts", "items", "said"], view=view, notice=said)


def _known(item: str) -> str:
    if not _ITEM.match(item):
        raise NotFound("There is no such message in the error queue")
    return item


def _line(opened: Opened, value: str) -> Segment | None:
    """Return the segment with the mended field, for the difference."""
    if opened.place is None:
        return None
    name, number = opened.place
    segment = next((s for s in opened.segments if s.id == name), None)
    if segment is None:
        return None
    fields = list(segment.fields) + [""] * (number + 1 - len(segment.fields))
    fields[number] = value
    return Segment(name, tuple(fields), number)


async def _act(rooms: Rooms, item: str, act: str, form: Any) -> Notice:
    match act:
        case "replay":
            return await service.replay(rooms, item)
        case "mend":
            opened = Opened.of(await rooms.get(f"/gateway/errors/{item}"))
            if opened.place is None:
                raise BadInput("No single field is at fault here", todo="Edit the whole message.")
            return await service.replay(
                rooms, item, mended(str(opened.item["text"]), *opened.place, str(form.get("value") or ""))
            )
        case "edit":
            return await service.replay(
                rooms, item, str(form.get("text") or "").replace("\r\n", "\r").replace("\n", "\r")
            )
        case "discard":
            return await service.discard(rooms, item, str(form.get("reason") or ""))
    raise NotFound("There is no such act")
