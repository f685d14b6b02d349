"""Reading the record's feed: arrivals, begins, ends and outcomes for the live line and for the forecasts that were made."""

from datetime import datetime

from arcuate.kernel.clock import Clock
from arcuate.kernel.codes import Json, is_history
from arcuate.kernel.db import Database
from arcuate.kernel.errors import BadInput
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.fhir.feed import Change, FeedReader
from arcuate.kernel.log import Logger
from arcuate.scheduling import store
from arcuate.scheduling.store import Times
from arcuate.scheduling.visits import instant, visit

TYPES = ("Appointment", "Encounter", "Procedure")


class Feed:
    """Keeps the live line up to date; every change may come twice."""

    def __init__(self, fhir: FhirClient, database: Database, clock: Clock, log: Logger) -> None:
        self._database, self._clock, self._log = database, clock, log
        self._reader = FeedReader(fhir, self._load, self._save, types=TYPES, clock=clock)

    async def follow(self) -> None:
        """Read for ever."""
        async for change in self._reader:
            await self.take(change)

    async def catch_up(self) -> None:
        """Read what is there now."""
        async for change in self._reader.available():
            await self.take(change)

    async def take(self, change: Change) -> None:
        """Take one change; what cannot be read is noted and passed over, so that it holds up nothing."""
        resource = change.resource
        if resource is None or is_history(resource):  # the past is no part of the live line
            return
        try:
            if change.type == "Appointment" and resource.get("start"):
                await self._take_appointment(resource)
            elif change.type == "Encounter":
                await self._take_encounter(resource)
            elif change.type == "Procedure":
                await self._take_procedure(resource)
        except BadInput as error:
            self._log.warning(
                "change passed over", type=change.type, id=change.id, version=change.version, where=error.where
            )

    async def _take_appointment(self, resource: Json) -> None:
        read, status, changed = visit(resource, None, None), str(resource.get("status")), self._changed(resource)
        await self._database.write(lambda session: store.note_visit(session, read, status, changed))

    async def _take_encounter(self, resource: Json) -> None:
        begin = (resource.get("period") or {}).get("start")
        if begin is None or resource.get("status") not in ("arrived", "triaged", "in-progress", "finished"):
            return
        times = Times(arrived=instant(begin, "Encounter.period.start"))
        appointment = next((i for r in resource.get("appointment", []) if (i := reference_id(r, "Appointment"))), None)
        order = next((i for r in resource.get("basedOn", []) if (i := reference_id(r, "ServiceRequest"))), None)
        await self._note(
            f"Appointment/{appointment}" if appointment else f"ServiceRequest/{order}" if order else "", times, resource
        )

    async def _take_procedure(self, resource: Json) -> None:
        order = next((i for r in resource.get("basedOn", []) if (i := reference_id(r, "ServiceRequest"))), None)
        status, period = resource.get("status"), resource.get("performedPeriod") or {}
        if status not in ("in-progress", "completed", "stopped"):
            return
        began = instant(period["start"], "Procedure.performedPeriod.start") if period.get("start") else None
        ended = instant(period["end"], "Procedure.performedPeriod.end") if period.get("end") else None
        if began is None and status == "in-progress":
            began = self._changed(resource)
        await self._note(f"ServiceRequest/{order}" if order else "", Times(began=began, ended=ended), resource)

    async def _note(self, key: str, times: Times, resource: Json) -> None:
        if key:
            changed = self._changed(resource)
            await self._database.write(lambda session: store.note_times(session, key, times, changed))

    def _changed(self, resource: Json) -> datetime:
        text = (resource.get("meta") or {}).get("lastUpdated")
        return instant(text, "meta.lastUpdated") if text else self._clock.now()

    async def _load(self) -> int | None:
        return await self._database.read(store.load_cursor)

    async def _save(self, position: int) -> None:
        await self._database.write(lambda session: store.save_cursor(session, position))
