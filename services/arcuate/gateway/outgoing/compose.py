"""From a change in the record to messages in the queues: who gets what, and everything that must be read for it."""

import hashlib
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from zoneinfo import ZoneInfo

from sqlmodel import Session

from arcuate.gateway.mapping.report import SIGNED
from arcuate.gateway.outgoing import oru, queue, srm
from arcuate.gateway.outgoing.queue import NewOutgoing
from arcuate.gateway.settings import Receiver
from arcuate.kernel import codes
from arcuate.kernel.clock import Clock
from arcuate.kernel.errors import Json, NotFound, Unavailable
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.kernel.fhir.client import FhirClient, version_of
from arcuate.kernel.fhir.feed import Change
from arcuate.kernel.hl7v2 import build
from arcuate.kernel.work import Apply, Job, Later

_LONGEST_NAME = 20


def wanted(change: Change) -> bool:
    """Say whether a change may mean a message: a report that is a draft of ours or signed, or something asked of the RIS."""
    resource = change.resource
    if resource is None:
        return False
    if change.type == "DiagnosticReport":
        return is_draft(resource) or resource.get("status") in SIGNED
    return change.type == "Task" and resource.get("status") == "requested" and bool(srm.asked(resource))


def _namespace(name: str) -> str:
    """A name as HD.1 holds it: 20 characters (chapter 2.A.36); a site may call itself more than that."""
    return name[:_LONGEST_NAME].strip()


def is_draft(report: Json) -> bool:
    """Say whether a report is an unsigned draft of ours (others' preliminary reports are not sent on)."""
    return report.get("status") == "preliminary" and codes.identifier_value(report, codes.SYSTEM_DRAFT) is not None


@dataclass(frozen=True)
class Composer:
    """Builds messages for the receivers of a site."""

    fhir: FhirClient
    receivers: Sequence[Receiver]
    clock: Clock
    zone: ZoneInfo
    facility: str

    async def compose(self, job: Job) -> Apply | None:
        """Build what a change means for each receiver; a change that a later one has overtaken means nothing (handler of work).

        Raises:
            Later: The record does not answer.
        """
        kind, id = str(job.payload["type"]), str(job.payload["id"])
        try:
            resource = await self.fhir.read(kind, id)
            if version_of(resource) != str(job.payload["version"]):
                return None
            messages = await (self._report(resource) if kind == "DiagnosticReport" else self._asked(resource))
        except NotFound:
            return None
        except Unavailable as error:
            raise Later(5.0, "the record does not answer") from error
        return self._queued(messages)

    def _queued(self, messages: Sequence[NewOutgoing]) -> Callable[[Session], None]:
        now = self.clock.now()

        def write(session: Session) -> None:
            for one in messages:
                queue.add(session, one, now)

        return write

    async def _report(self, report: Json) -> list[NewOutgoing]:
        draft = is_draft(report)
        receivers = [one for one in self.receivers if (one.kind == "dictation") == draft]
        if not receivers or not (draft or report.get("status") in SIGNED):
            return []
        orders = [one for one in [await self._read(ref, "ServiceRequest") for ref in report.get("basedOn", [])] if one]
        patient = await self._read(report.get("subject"), "Patient")
        if not orders or patient is None or (draft and await self._is_late(orders[0])):
            return []
        results = [one for one in [await self._read(ref, "Observation") for ref in report.get("result", [])] if one]
        content = oru.Content(report, patient, orders, results)
        about, kind = f"DiagnosticReport/{report['id']}", "draft" if draft else "final"
        made = []
        for receiver in receivers:
            envelope = self._envelope(receiver, "ORU", "R01", "ORU_R01")
            raw = oru.message(envelope, content)
            build.check(raw)
            made.append(self._outgoing(receiver, kind, about, patient, orders, envelope, raw))
        return made

    async def _is_late(self, order: Json) -> bool:
        """A draft goes out only while the order stands and nobody has signed."""
        if order.get("status") == "revoked":
            return True
        query = {"based-on": f"ServiceRequest/{order['id']}", "status": ",".join(SIGNED), "_count": "1"}
        return bool(await self.fhir.search("DiagnosticReport", query))

    async def _asked(self, task: Json) -> list[NewOutgoing]:
        receivers = [one for one in self.receivers if one.kind == "ris"]
        appointment = await self._read(task.get("focus"), "Appointment")
        if not receivers or appointment is None or task.get("status") != "requested":
            return []
        actors = [participant.get("actor") for participant in appointment.get("participant", [])]
        patient = next((one for one in [await self._read(actor, "Patient") for actor in actors] if one), None)
        if patient is None:
            return []
        made = []
        for receiver in receivers:
            envelope = self._envelope(receiver, "SRM", srm.EVENTS[srm.asked(task)], "SRM_S01")
            raw = srm.message(envelope, task, appointment, patient, self.zone)
            build.check(raw)
            made.append(self._outgoing(receiver, "ask", f"Task/{task['id']}", patient, [], envelope, raw))
        return made

    async def _read(self, reference: Json | None, kind: str) -> Json | None:
        id = reference_id(reference, kind)
        if id is None:
            return None
        try:
            return await self.fhir.read(kind, id)
        except NotFound:
            return None

    def _envelope(self, receiver: Receiver, kind: str, event: str, structure: str) -> build.Envelope:
        return build.Envelope(
            kind, event, structure, secrets.token_hex(10), self.clock.now(), self.zone, facility=_namespace(self.facility),
            to_application=receiver.application or receiver.name, to_facility=receiver.facility or _namespace(self.facility),
        )  # fmt: skip

    def _outgoing(
        self,
        receiver: Receiver,
        kind: str,
        about: str,
        patient: Json,
        orders: Sequence[Json],
        envelope: build.Envelope,
        raw: bytes,
    ) -> NewOutgoing:
        # What the message says, without its own time and number: the same words are not sent twice.
        said = raw.split(b"\r", 1)[1]
        dedupe = hashlib.sha256(
            b"\x00".join((receiver.name.encode(), about.encode(), envelope.event.encode(), said))
        ).hexdigest()
        return NewOutgoing(
            receiver.name, kind, dedupe, f"Patient/{patient['id']}", about, f"Patient/{patient['id']}",
            [f"ServiceRequest/{order['id']}" for order in orders], envelope.control_id, raw,
        )  # fmt: skip
