"""Everything that the house knows of one case: the ledger's line, the record's resources, the picture of its measurement."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from arcuate.dashboard import facts
from arcuate.dashboard.domain.frame import Fact, Silent
from arcuate.dashboard.merges import merged_into
from arcuate.dashboard.pages.ledger import CaseLine, read_case, read_ledger
from arcuate.dashboard.rooms import Part, Rooms
from arcuate.dashboard.words import Wording
from arcuate.kernel.codes import CS_TASK, SYSTEM_ACCESSION
from arcuate.kernel.errors import Json, NotFound
from arcuate.kernel.fhir.bundle import reference_id

_MOST = "500"
_SIGNED = ("final", "amended", "corrected", "appended")


@dataclass(frozen=True)
class Resources:
    """What the record holds about a case.

    Attributes:
        about: Everything that refers to the order or its bookings.
        loose: Images of this accession that are not joined to the order.
        priors: Signed reports of the patient that answer other orders.
        merged: Patients that were merged into this one.
    """

    order: Json | None = None
    patient: Json | None = None
    about: Sequence[Json] = ()
    loose: Sequence[Json] = ()
    priors: Sequence[Json] = ()
    merged: Sequence[Json] = ()

    def all(self, resource_type: str) -> list[Json]:
        """Return the resources of a type."""
        return facts.of_type(self.about, resource_type)

    @property
    def measurements(self) -> list[Json]:
        """Return measurements of the case's images, refusals among them; forecasts of waits are no measurements."""
        return [o for o in self.all("Observation") if o.get("derivedFrom")]

    @property
    def reading(self) -> Json | None:
        """Return the reading Task: the open one, else the newest."""
        tasks = [t for t in self.all("Task") if facts.has_code(t.get("code"), CS_TASK, "read")]
        tasks.sort(key=lambda t: (t.get("status") in ("completed", "cancelled"), str(t.get("authoredOn"))))
        return tasks[0] if tasks else None

    @property
    def draft(self) -> Json | None:
        """Return the draft report."""
        return next((r for r in self.all("DiagnosticReport") if r.get("status") == "preliminary"), None)

    @property
    def signed(self) -> Json | None:
        """Return the newest signed report."""
        reports = [r for r in self.all("DiagnosticReport") if r.get("status") in _SIGNED]
        return max(reports, key=lambda r: str(r.get("issued") or ""), default=None)

    @property
    def newest_study(self) -> Json | None:
        """Return the study whose measurement is shown."""
        measured = {facts.target(d) for o in self.measurements for d in o.get("derivedFrom") or []}
        studies = self.all("ImagingStudy")
        return next((s for s in studies if f"ImagingStudy/{s['id']}" in measured), studies[0] if studies else None)


@dataclass(frozen=True)
class CaseFile:
    """A case with what each room answered.

    Attributes:
        picture: What imaging says of the slice that shows the structure (`outlines`).
    """

    line: Part[CaseLine]
    record: Part[Resources] = field(default_factory=Part)
    picture: Part[Json] = field(default_factory=Part)

    @property
    def resources(self) -> Resources:
        """Return what the record answered, or nothing."""
        return self.record.or_else(Resources())


@dataclass(frozen=True)
class CaseView:
    """What each page of one case has: the case, and how it is spoken of."""

    words: Wording
    file: CaseFile

    @property
    def line(self) -> CaseLine | None:
        """Return the ledger's line."""
        return self.file.line.value

    @property
    def found(self) -> Resources:
        """Return the record's resources."""
        return self.file.resources

    @property
    def silent(self) -> Silent | None:
        """Return why there is nothing to show, where a room does not answer."""
        return self.file.line.silent or self.file.record.silent

    @property
    def whose(self) -> list[Fact]:
        """Return the facts with which every page of a case begins: person, exam, accession."""
        order = self.found.order
        person = facts.person_line(self.found.patient, self.words.now.astimezone(self.words.zone).date())
        made = [Fact("", text) for text in (person, facts.exam_name(order) if order else "") if text]
        if self.line and self.line.accession:
            made.append(Fact(self.line.accession, "accession", before=True))
        return made


async def read_record(rooms: Rooms, case_id: str) -> CaseFile:
    """Read what ledger and record hold of a case.

    Args:
        case_id: Of the ledger, or of the order.

    Raises:
        NotFound: The ledger knows neither.
    """
    line = await rooms.part("journey", _line(rooms, case_id), "The case's way cannot be shown.")
    if line.value is None:
        if line.silent is not None and line.silent.since is None:
            raise NotFound("There is no such case, or you may not see it")
        return CaseFile(line, Part(silent=line.silent))  # without the ledger it is not known which order to read
    record = await rooms.part("record", _resources(rooms, line.value), "Order, measurements and draft cannot be shown.")
    return CaseFile(line, record)


async def read_casefile(rooms: Rooms, case_id: str, structure: str = "") -> CaseFile:
    """Read a case with the picture of a structure.

    Args:
        structure: Which structure the picture shows; empty for imaging's own choice.

    Raises:
        NotFound: The ledger knows no such case.
    """
    file = await read_record(rooms, case_id)
    return replace(file, picture=await read_picture(rooms, file, structure))


async def read_picture(rooms: Rooms, file: CaseFile, structure: str = "") -> Part[Json]:
    """Return what imaging says of the slice that shows a structure."""
    study = file.resources.newest_study
    if study is None or not any("valueQuantity" in o for o in file.resources.measurements):
        return Part()
    query = {"structure": structure} if structure else None
    return await rooms.part("imaging", rooms.get(f"/imaging/studies/{study['id']}/outlines", query), "No picture now.")


async def _line(rooms: Rooms, case_id: str) -> CaseLine:
    try:
        return await read_case(rooms, case_id)
    except NotFound:
        ledger = await read_ledger(rooms)
        found = next((c for c in ledger.cases if c.order == f"ServiceRequest/{case_id}"), None)
        if found is None:
            raise
        return found


async def _resources(rooms: Rooms, line: CaseLine) -> Resources:
    loose = _loose(rooms, line.accession)
    order_id = reference_id({"reference": line.order}, "ServiceRequest") if line.order else None
    if order_id is None:
        return Resources(loose=await loose)
    fhir, of_order = rooms.fhir, {"based-on": line.order, "_count": _MOST}
    kinds = ("Procedure", "Observation", "DiagnosticReport", "ImagingStudy", "Communication")
    booked = {
        **of_order, "_include": "Appointment:location",
        "_revinclude": ["Encounter:appointment", "Task:focus", "RiskAssessment:basis", "Observation:focus"],
    }  # fmt: skip
    answers: list[Any] = await asyncio.gather(
        loose, fhir.read("ServiceRequest", order_id), _patient(rooms, line.patient), _priors(rooms, line.patient),
        fhir.search("Appointment", booked), fhir.search("DetectedIssue", {"implicated": line.order}),
        fhir.search("Task", {"focus": line.order}), _visits(rooms, line.patient), *(fhir.search(kind, of_order) for kind in kinds),
    )  # fmt: skip
    about = list(facts.by_reference(r for answer in answers[4:] for r in answer).values())
    joined = {r["id"] for r in facts.of_type(about, "ImagingStudy")}
    here = {r["id"] for r in facts.of_type(about, "DiagnosticReport")}
    return Resources(
        answers[1],
        answers[2],
        about,
        [s for s in answers[0] if s["id"] not in joined],
        [r for r in answers[3] if r["id"] not in here],
        await merged_into(rooms, answers[2]),
    )


async def _loose(rooms: Rooms, accession: str) -> list[Json]:
    return (
        await rooms.fhir.search("ImagingStudy", {"identifier": f"{SYSTEM_ACCESSION}|{accession}"}) if accession else []
    )


async def _patient(rooms: Rooms, reference: str) -> Json | None:
    patient_id = reference_id({"reference": reference}, "Patient") if reference else None
    try:
        return await rooms.fhir.read("Patient", patient_id) if patient_id else None
    except NotFound:
        return None


async def _visits(rooms: Rooms, reference: str) -> list[Json]:
    return await rooms.fhir.search("Encounter", {"patient": reference, "_count": "50"}) if reference else []


async def _priors(rooms: Rooms, reference: str) -> list[Json]:
    if not reference:
        return []
    return await rooms.fhir.search(
        "DiagnosticReport", {"patient": reference, "status": ",".join(_SIGNED), "_count": "50"}
    )
