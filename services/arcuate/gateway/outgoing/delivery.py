"""What became of a delivery, told to the record: Communication for reports, the Task's state for what was asked of the RIS."""

from datetime import datetime

from arcuate.gateway.outgoing import queue
from arcuate.gateway.tables import Outgoing
from arcuate.kernel import codes
from arcuate.kernel.db import Database
from arcuate.kernel.errors import Json, NotFound, PreconditionFailed, Unavailable
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.client import FhirClient, version_of
from arcuate.kernel.work import Job, Later

_STATUS = {queue.WAITING: "in-progress", queue.DELIVERED: "completed", queue.PARKED: "on-hold"}
_TOLD = {"draft": "Draft to dictation", "final": "Signed report", "booking": "Booking", "status": "Order status"}
_SYSTEM = codes.job_system("gateway")


class Delivery:
    """Writes deliveries into the record."""

    def __init__(self, database: Database, fhir: FhirClient) -> None:
        self._database, self._fhir = database, fhir

    async def tell(self, job: Job) -> None:
        """Write one step of one delivery (handler of work).

        Raises:
            Later: The record does not answer.
        """
        number, state = int(job.payload["outgoing"]), str(job.payload["state"])
        row = await self._database.read(lambda s: queue.load(s, number))
        try:
            if row.kind == "ask":
                await self._asked(row, state)
            elif row.kind in _TOLD:
                entry = bundle.update_where(communication(row, state), {"identifier": f"{_SYSTEM}|out-{row.id}"})
                source = codes.identifier(_SYSTEM, f"out-{row.id}-{state}-{row.tries}")
                await self._fhir.transaction(bundle.transaction([entry], source))
        except (Unavailable, PreconditionFailed) as error:
            raise Later(5.0, "the record does not answer") from error

    async def _asked(self, row: Outgoing, state: str) -> None:
        """Acknowledged means that the RIS has the request; done it is when its own message comes."""
        if state != queue.DELIVERED:
            return
        kind, id = row.about.split("/", 1)
        try:
            task = await self._fhir.read(kind, id)
        except NotFound:
            return
        if task.get("status") == "requested":
            await self._fhir.update({**task, "status": "accepted"}, if_match=version_of(task))


def communication(row: Outgoing, state: str) -> Json:
    """Return the Communication of a delivery as it stands in `state`."""
    display = _TOLD[row.kind]
    made: Json = {
        "resourceType": "Communication",
        "identifier": [codes.identifier(_SYSTEM, f"out-{row.id}")],
        "status": _STATUS[state],
        "category": [codes.concept(codes.CS_DELIVERY, row.kind, display)],
        "subject": {"reference": row.subject},
        "about": [{"reference": row.about}],
        "recipient": [{"display": row.receiver}],
    }
    orders = [{"reference": one} for one in row.based_on.split("\n") if one]
    if orders:
        made["basedOn"] = orders
    if row.sent is not None:
        made["sent"] = _instant(row.sent)
    if state == queue.DELIVERED and row.acknowledged is not None:
        made["received"] = _instant(row.acknowledged)
    if state == queue.PARKED:
        made["note"] = [{"text": row.reason or "Waits for a person"}]
    return made


def _instant(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
