"""`$find`, `$hold` and `$book` over HTTP, and the look at what has ended."""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import tzinfo

from fastapi import FastAPI, Request
from starlette.responses import Response

from arcuate.kernel.auth import Principal, Role
from arcuate.kernel.background import Loops
from arcuate.kernel.errors import ArcuateError, Json, issue, outcome_of
from arcuate.kernel.fhir import types
from arcuate.kernel.log import get_logger
from arcuate.kernel.web import allow, fhir_response, principal_of
from arcuate.record import http as door
from arcuate.record import service, store
from arcuate.record.booking import proposals, state, wanted
from arcuate.record.booking.holds import Desk
from arcuate.record.booking.slots import Finder, Found
from arcuate.record.driver import Driver
from arcuate.record.indexing import micros_of
from arcuate.record.limits import limited
from arcuate.record.policy import PEOPLE_WRITE, READERS
from arcuate.record.requests import Outcome, Terms
from arcuate.record.service import Record
from arcuate.record.store import Unit

_ITSELF = Principal("record", frozenset({Role.ROOM}), "record", "")
_LOADERS = (Role.INTEGRATION, Role.ADMIN)


@dataclass(frozen=True)
class Bookings:
    """The operations of one record."""

    record: Record
    zone: tzinfo

    async def find(self, principal: Principal, asked: wanted.Wanted, base: str) -> Json:
        """Return a searchset of proposed Appointments; what they were asked for is kept until they end."""
        record, settings = self.record, self.record.settings
        await self.tidy()
        now = micros_of(record.clock.now())

        def look(driver: Driver) -> Found:
            with limited(driver, settings.search_limit_s):
                return self._finder(driver).find(asked, now)

        found = await record.readers.read(look)
        offer = state.Offer(secrets.token_hex(11), now + settings.proposal_s * 1_000_000, found.asked)
        if found.slots:
            await record.writes.run(lambda unit: state.keep_offer(unit.driver, offer, now))
        shown = found.slots[: asked.count]
        made = [
            proposals.appointment(one, found.asked, proposals.proposal_id(offer.id, str(one.slot["id"])), "proposed")
            for one in shown
        ]
        touched = [("Slot", str(one.slot["id"]), None) for one in shown]
        await service.noted(record, principal, "operation", [*found.touched, *touched], "$find", written=True)
        return _searchset(base, made, len(found.slots), _remarks(asked, found, len(shown)))

    async def hold(self, principal: Principal, reference: Json) -> tuple[Json, str]:
        """Hold a proposal."""
        return await self._run(principal, "$hold", lambda desk: desk.hold(reference))

    async def book(self, principal: Principal, asked: wanted.Booking) -> tuple[Json, str]:
        """Ask the RIS for a proposal or for a change of a booking."""
        return await self._run(principal, "$book", lambda desk: desk.book(asked))

    async def tidy(self) -> None:
        """Free what was held too long, cancelled or moved."""
        now = micros_of(self.record.clock.now())
        if await self.record.readers.by_key(lambda driver: bool(state.due(driver, now, 1))):
            await self._run(_ITSELF, "the end of holds", _settled)

    @contextlib.asynccontextmanager
    async def run(self) -> AsyncIterator[None]:
        """Look for what has ended, until the context is left."""
        async with Loops("record").run("ends of holds", self._look):
            yield

    async def _look(self) -> None:
        log = get_logger("record")
        while True:
            await asyncio.sleep(self.record.settings.hold_look_s)  # what has ended is judged by the clock, not by this
            try:
                await self.tidy()
            except ArcuateError as error:
                log.warning("cannot look for holds that have ended", reason=error.what)

    async def _run(self, principal: Principal, name: str, act: Callable[[Desk], tuple[Json, str]]) -> tuple[Json, str]:
        record = self.record
        if principal is not _ITSELF:
            await self.tidy()

        def write(unit: Unit) -> tuple[tuple[Json, str], list[Outcome]]:
            store.lock(unit.driver)
            now = record.clock.now()
            terms = Terms(now, None, must_match=False)
            desk = Desk(
                service.writer_of(record, unit, terms),
                self._finder(unit.driver),
                principal,
                now,
                record.settings.hold_s,
            )
            return act(desk), desk.outcomes

        result, outcomes = await service.written(record, principal, "operation", "Appointment", write)
        touched = [(one.resource_type, one.id, one.patient) for one in outcomes]
        await service.noted(record, principal, "operation", touched, name, written=True)
        return result

    def _finder(self, driver: Driver) -> Finder:
        return Finder(driver, self.record.indexer, self.record.reader, self.zone)


def add_booking_routes(app: FastAPI, bookings: Bookings) -> None:
    """Add the routes of the operations."""
    record = bookings.record
    bookers = allow(*PEOPLE_WRITE["Appointment"], *_LOADERS)

    async def body_of(request: Request) -> Json:
        body = await door.resource_body(request)
        types.validate(body, by_package=not principal_of(request).is_room)
        return body

    def answer(request: Request, result: tuple[Json, str]) -> Response:
        made, said = result
        note = issue("informational", said, severity="information")
        return fhir_response(_searchset(door.base_of(request, record.settings), [made], 1, [note]))

    @app.post("/fhir/Appointment/$find", dependencies=[allow(*READERS)])
    async def find(request: Request) -> Response:
        asked = wanted.find(await body_of(request), bookings.zone, request.query_params.get("_count"))
        base = door.base_of(request, record.settings)
        return fhir_response(await bookings.find(principal_of(request), asked, base))

    @app.post("/fhir/Appointment/$hold", dependencies=[bookers])
    async def hold(request: Request) -> Response:
        reference = wanted.hold(await body_of(request))
        return answer(request, await bookings.hold(principal_of(request), reference))

    @app.post("/fhir/Appointment/$book", dependencies=[bookers])
    async def book(request: Request) -> Response:
        return answer(request, await bookings.book(principal_of(request), wanted.book(await body_of(request))))


def _settled(desk: Desk) -> tuple[Json, str]:
    desk.settle()
    return {}, ""


def _remarks(asked: wanted.Wanted, found: Found, shown: int) -> list[Json]:
    said = [issue("not-supported", f"Left out: {one}", severity="warning") for one in asked.unused]
    if shown < len(found.slots):
        words = (
            f"The first {shown} of {len(found.slots)} proposals are listed; ask for less time, or with a larger _count."
        )
        said.append(issue("informational", words, severity="information"))
    if found.cut:
        words = "More slots are free in that time than are looked at; ask for less time."
        said.append(issue("too-costly", words, severity="warning"))
    return said


def _searchset(base: str, appointments: list[Json], total: int, issues: list[Json]) -> Json:
    entries: list[Json] = [
        {"fullUrl": f"{base}/Appointment/{one['id']}", "resource": one, "search": {"mode": "match"}}
        for one in appointments
    ]
    if issues:
        entries.append({"resource": outcome_of(issues), "search": {"mode": "outcome"}})
    made: Json = {"resourceType": "Bundle", "type": "searchset", "total": total}
    if entries:
        made["entry"] = entries
    return made
