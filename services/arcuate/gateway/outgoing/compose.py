"""From a change in the record to messages in the queues: who gets what, and everything that must be read for it."""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from zoneinfo import ZoneInfo

from sqlmodel import Session

from arcuate.gateway.mapping.report import SIGNED
from arcuate.gateway.outgoing import mdm, oru, queue, siu, srm, status
from arcuate.gateway.outgoing.queue import NewOutgoing
from arcuate.gateway.settings import Receiver
from arcuate.kernel import codes
from arcuate.kernel.clock import Clock
from arcuate.kernel.errors import Gone, Json, NotFound, Unavailable
from arcuate.kernel.fhir.bundle import reference_id
from arcuate.kernel.fhir.client import FhirClient, version_of
from arcuate.kernel.fhir.feed import Change
from arcuate.kernel.hl7v2 import build
from arcuate.kernel.work import Apply, Job, Later

_LONGEST_NAME = 20
_FROM_HL7 = f"{codes.SYSTEM_JOURNAL}#"
# What a receiver may ask for beside what its kind gets, and the resources that it is made of.
_MADE_OF: Mapping[str, tuple[str, ...]] = {
    "SIU": ("Appointment",), "ORM": ("ServiceRequest", "Procedure"), "OMG": ("ServiceRequest", "Procedure"),
    "ORU": ("ServiceRequest", "Procedure"), "MDM": (),
}  # fmt: skip


def types(receivers: Sequence[Receiver]) -> tuple[str, ...]:
    """Return the types of resources whose changes may mean a message to one of these receivers."""
    more = {kind for one in receivers for asked in one.also for kind in _MADE_OF[asked]}
    return ("DiagnosticReport", "Task", *sorted(more))


def wanted(change: Change) -> bool:
    """Say whether a change may mean a message: a report that is a draft of ours or signed, something asked of the RIS, or a
    booking, an order or an exam (which are read only where a receiver asks for them). What was taken over from the past is told to nobody.
    """
    resource = change.resource
    if resource is None or codes.is_history(resource):
        return False
    if change.type in ("Appointment", "ServiceRequest", "Procedure"):
        return True
    if change.type == "DiagnosticReport":
        return is_draft(resource) or resource.get("status") in SIGNED
    return change.type == "Task" and resource.get("status") == "requested" and bool(srm.asked(resource))


def _about(resource: Json) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


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
        kind, id, version = (str(job.payload[name]) for name in ("type", "id", "version"))
        try:
            if kind in ("Appointment", "ServiceRequest", "Procedure"):
                return self._queued(await self._changed(kind, id, int(version)))
            resource = await self.fhir.read(kind, id)
            if version_of(resource) != version:
                return None
            messages = await (self._report(resource) if kind == "DiagnosticReport" else self._asked(resource))
        except (NotFound, Gone):
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
            if "MDM" in receiver.also and not draft:
                made.append(self._document(receiver, content, about))
        return made

    def _document(self, receiver: Receiver, content: oru.Content, about: str) -> NewOutgoing:
        envelope = self._envelope(receiver, "MDM", mdm.event(content.report), "MDM_T02")
        raw = mdm.message(envelope, content)
        build.check(raw)
        return self._outgoing(receiver, "final", about, content.patient, content.orders, envelope, raw)

    async def _changed(self, kind: str, id: str, version: int) -> list[NewOutgoing]:
        """Return what one version of a booking, an order or an exam means for those who ask.

        Each version is compared with the one before it, so that two quick changes are two messages. What came by HL7 is not sent: who
        said it knows it, and between the systems of a hospital its interface engine carries messages.
        """
        asking = [one for one in self.receivers if any(kind in _MADE_OF[asked] for asked in one.also)]
        if not asking:
            return []
        now = await self.fhir.read(kind, id, str(version))
        before = await self._version(kind, id, version - 1)
        source, stood = ((one or {}).get("meta", {}).get("source", "") for one in (now, before))
        if (
            source.startswith(_FROM_HL7) and source != stood
        ):  # an update at our doors may keep the source of what it changes
            return []
        return await (
            self._booking(now, before, asking) if kind == "Appointment" else self._progress(now, before, asking)
        )

    async def _version(self, kind: str, id: str, version: int) -> Json | None:
        try:
            return await self.fhir.read(kind, id, str(version)) if version > 0 else None
        except (NotFound, Gone):
            return None

    async def _booking(self, now: Json, before: Json | None, asking: Sequence[Receiver]) -> list[NewOutgoing]:
        event = siu.event(before, now)
        actors = [participant.get("actor") for participant in now.get("participant", [])]
        patient = await self._first(actors, "Patient") if event else None
        if patient is None:
            return []
        places = [one for one in [await self._read(actor, "Location") for actor in actors] if one]
        content = siu.Content(now, patient, await self._first(now.get("basedOn", []), "ServiceRequest"), places)
        orders = [content.order] if content.order else []
        made = []
        for receiver in asking:
            envelope = self._envelope(receiver, "SIU", event, "SIU_S12")
            raw = siu.message(envelope, replace(content, own_number=receiver.own_number))
            build.check(raw)
            made.append(
                self._outgoing(receiver, "booking", _about(now), patient, orders, envelope, raw, version_of(now))
            )
        return made

    async def _progress(self, now: Json, before: Json | None, asking: Sequence[Receiver]) -> list[NewOutgoing]:
        code = status.code(before, now)
        order = (
            now
            if now["resourceType"] == "ServiceRequest"
            else await self._first(now.get("basedOn", []), "ServiceRequest")
        )
        patient = await self._read((order or {}).get("subject"), "Patient") if code else None
        if order is None or patient is None:
            return []
        changed = datetime.fromisoformat(str(now["meta"]["lastUpdated"]))
        made = []
        for receiver, kind in ((one, kind) for one in asking for kind in status.STRUCTURES if kind in one.also):
            event, structure = status.STRUCTURES[kind]
            envelope = self._envelope(receiver, kind, event, structure)
            raw = status.message(envelope, code, order, patient, changed, self.zone)
            build.check(raw)
            made.append(
                self._outgoing(receiver, "status", _about(now), patient, [order], envelope, raw, version_of(now))
            )
        return made

    async def _first(self, references: Sequence[Json | None], kind: str) -> Json | None:
        return next((one for one in [await self._read(reference, kind) for reference in references] if one), None)

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
        patient = await self._first(actors, "Patient")
        if patient is None:
            return []
        order = await self._first(appointment.get("basedOn", []), "ServiceRequest")
        places = [one for one in [await self._read(actor, "Location") for actor in actors] if one]
        made = []
        for receiver in receivers:
            envelope = self._envelope(receiver, "SRM", srm.EVENTS[srm.asked(task)], "SRM_S01")
            raw = srm.message(envelope, task, appointment, patient, self.zone, order, places)
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
        version: str = "",
    ) -> NewOutgoing:
        # What the message says, without its own time and number: the same words are not sent twice. A state that comes back (held,
        # released, held) is said again: there the version tells.
        said = version.encode() or raw.split(b"\r", 1)[1]
        dedupe = hashlib.sha256(
            b"\x00".join((receiver.name.encode(), about.encode(), envelope.event.encode(), said))
        ).hexdigest()
        return NewOutgoing(
            receiver.name, kind, dedupe, f"Patient/{patient['id']}", about, f"Patient/{patient['id']}",
            [f"ServiceRequest/{order['id']}" for order in orders], envelope.control_id, raw,
        )  # fmt: skip
