"""Rows of a table of past visits as FHIR resources, by a mapping of columns that a site writes (`columns.toml` is an example)."""

import csv
import io
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import IO, Any
from zoneinfo import ZoneInfo

from arcuate.kernel import codes
from arcuate.kernel.errors import BadInput, Json
from arcuate.kernel.fhir import bundle

_STATUS = {"proposed", "pending", "booked", "arrived", "fulfilled", "cancelled", "noshow", "checked-in", "waitlist"}
_WORDS = frozenset(
    (
        "patient_number", "family", "given", "birth_date", "sex", "mobile", "accession", "exam_code", "exam_text", "priority", "indication",
        "ordered", "booking_number", "booked", "start", "minutes", "place", "status", "changed", "arrived", "began", "ended", "report",
        "reported",
    )
)  # fmt: skip
_DONE = "completed"
AMBULATORY = codes.coding("http://terminology.hl7.org/CodeSystem/v3-ActCode", "AMB")


@dataclass(frozen=True)
class Columns:
    """A site's mapping.

    Attributes:
        maps: By our word (`status`, `sex`, `priority`) the table's words and ours.
    """

    source: str
    encoding: str
    delimiter: str
    time: str
    date: str
    numbers: Mapping[str, str]
    columns: Mapping[str, str]
    maps: Mapping[str, Mapping[str, str]]
    zone: ZoneInfo


def load(path: Path, zone: ZoneInfo) -> Columns:
    """Return the mapping in a file.

    Raises:
        BadInput: It cannot be read, or names words that are not known; says which.
    """
    try:
        data: Mapping[str, Any] = tomllib.loads(path.read_text("utf-8"))
        table, columns = data["table"], dict(data["columns"])
        made = Columns(
            str(table["source"]), table.get("encoding", "utf-8"), table.get("delimiter", ","), table.get("time", "%Y-%m-%d %H:%M"),
            table.get("date", "%Y-%m-%d"), dict(data.get("numbers", {})), columns,
            {name: dict(data.get(name, {})) for name in ("status", "sex", "priority")}, zone,
        )  # fmt: skip
        "".encode(made.encoding)
    except (OSError, UnicodeDecodeError, LookupError, TypeError, tomllib.TOMLDecodeError) as error:
        raise BadInput(f"This mapping of columns cannot be read: {error}", where=str(path)) from error
    if unknown := sorted(set(columns) - _WORDS):
        raise BadInput(
            f"These are no words of a mapping: {', '.join(unknown)}", where=str(path), todo="See columns.toml."
        )
    if "patient_number" not in columns:
        raise BadInput("A row must name its patient", where="columns.patient_number")
    if wrong := sorted(set(made.maps["status"].values()) - _STATUS):
        raise BadInput(f"Not a status of a booking: {', '.join(wrong)}", where="status")
    return made


@dataclass(frozen=True)
class Row:
    """One row: the resources it became, or why it became none; `raw` is the row as it stands in the table, for people."""

    raw: bytes
    made: Json | None
    fault: str = ""
    where: str = ""


def rows(stream: IO[bytes], columns: Columns) -> Iterator[Row]:
    """Yield the rows of a table.

    Raises:
        BadInput: The table lacks a column that the mapping names, or is not in its encoding.
    """
    text = io.TextIOWrapper(stream, columns.encoding, newline="")
    try:
        reader = csv.DictReader(text, delimiter=columns.delimiter)
        names = [name.lstrip("\ufeff") for name in reader.fieldnames or []]
        reader.fieldnames = names
        if missing := sorted(set(columns.columns.values()) - set(names)):
            raise BadInput(f"The table has no column {', '.join(missing)}", where="columns")
        for number, row in enumerate(reader, 2):
            raw = columns.delimiter.join(
                str(value or "") for value in row.values() if not isinstance(value, list)
            ).encode()
            try:
                made = bundle.collection(
                    resources(
                        {ours: str(row.get(theirs) or "").strip() for ours, theirs in columns.columns.items()}, columns
                    )
                )
                yield Row(raw, made)
            except BadInput as error:
                yield Row(raw, None, error.what, f"line {number}, {error.where}")
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadInput(f"The table cannot be read: {error}", where="table") from error


def resources(row: Mapping[str, str], columns: Columns) -> list[Json]:
    """Return what one row says, as resources that refer to each other.

    Raises:
        BadInput: It names no patient, or holds what cannot be read; says which column.
    """
    said = _Said(row, columns)
    number = said.text("patient_number")
    if not number:
        raise BadInput("The row names no patient", where="patient_number")
    patient = _patient(said, number)
    order = _order(said, number)
    booking = _booking(said, number, order)
    made = [one for one in (patient, order, booking) if one]
    if booking and (arrived := said.time("arrived")):
        made.append(
            {**_of("Encounter", booking["id"], number), "status": "finished", "class": AMBULATORY,
             "period": {"start": arrived}, "appointment": [codes.reference("Appointment", booking["id"])]}
        )  # fmt: skip
    began, ended = said.time("began"), said.time("ended")
    if order and (began or ended):
        period = {name: value for name, value in (("start", began), ("end", ended)) if value}
        exam = {
            **_of("Procedure", order["id"], number),
            "status": _DONE,
            "performedPeriod": period,
            "basedOn": [codes.reference("ServiceRequest", order["id"])],
        }
        made.append({**exam, "code": order["code"]} if "code" in order else exam)
    if order and (text := said.text("report")):
        made.append(_report(said, number, order, text))
    return made


def _of(kind: str, logical_id: str, patient: str) -> Json:
    return {"resourceType": kind, "id": logical_id, "subject": codes.reference("Patient", patient)}


def _patient(said: "_Said", number: str) -> Json:
    made: Json = {
        "resourceType": "Patient", "id": number, "identifier": [codes.identifier(codes.patient_system(said.owner("patient")), number, "MR")],
    }  # fmt: skip
    name = {"family": said.text("family"), "given": said.text("given").split()}
    if any(name.values()):
        made["name"] = [{key: value for key, value in name.items() if value}]
    if born := said.day("birth_date"):
        made["birthDate"] = born
    if sex := said.mapped("sex"):
        made["gender"] = sex
    if mobile := said.text("mobile"):
        made["telecom"] = [{"system": "phone", "use": "mobile", "value": mobile}]
    return made


def _order(said: "_Said", patient: str) -> Json | None:
    accession = said.text("accession")
    if not accession:
        return None
    done = said.mapped("status") == "fulfilled" or bool(said.text("ended") or said.text("report"))
    status = _DONE if done else "revoked" if said.mapped("status") == "cancelled" else "active"
    made = _of("ServiceRequest", accession, patient) | {
        "identifier": [codes.accession_identifier(accession)],
        "status": status,
        "intent": "order",
    }
    code = _code(said)
    if code:
        made["code"] = code
    for word, name in (("ordered", "authoredOn"),):
        if moment := said.time(word):
            made[name] = moment
    if priority := said.mapped("priority"):
        made["priority"] = priority
    if reason := said.text("indication"):
        made["reasonCode"] = [{"text": reason}]
    return made


def _code(said: "_Said") -> Json:
    code, text = said.text("exam_code"), said.text("exam_text")
    made: Json = {"coding": [{"code": code, **({"display": text} if text else {})}]} if code else {}
    return made | ({"text": text or code} if text or code else {})


def _booking(said: "_Said", patient: str, order: Json | None) -> Json | None:
    start = said.time("start")
    if not start:
        return None
    number = said.text("booking_number") or f"{said.text('accession') or patient}@{start}"
    status = said.mapped("status") or ("fulfilled" if said.text("ended") else "")
    if not status:
        raise BadInput("A visit needs a status", where="status")
    actors = [{"actor": codes.reference("Patient", patient), "status": "accepted"}]
    if place := said.text("place"):
        actors.append({"actor": {"display": place}, "status": "accepted"})
    made: Json = {"resourceType": "Appointment", "id": number, "status": status, "start": start, "participant": actors}
    if said.text("booking_number"):
        made["identifier"] = [codes.identifier(codes.appointment_system(said.owner("booking")), number)]
    if minutes := said.text("minutes"):
        if not (minutes.isdecimal() and 0 < int(minutes) < 1441):
            raise BadInput("This is no duration in minutes", where="minutes")
        made["minutesDuration"] = int(minutes)
        made["end"] = _later(start, int(minutes))
    if booked := said.time("booked"):
        made["created"] = booked
    if order:
        made["basedOn"] = [codes.reference("ServiceRequest", order["id"])]
    if text := said.text("exam_text"):
        made["description"] = text
    if changed := said.time("changed"):
        made["meta"] = {"lastUpdated": changed}
    return made


def _later(start: str, minutes: int) -> str:
    return (datetime.fromisoformat(start) + timedelta(minutes=minutes)).isoformat()


def _report(said: "_Said", patient: str, order: Json, text: str) -> Json:
    made = _of("DiagnosticReport", order["id"], patient) | {
        "identifier": [codes.identifier(codes.report_system(said.owner("order")), order["id"])],
        "status": "final", "code": order.get("code") or {"text": "Imaging report"}, "conclusion": text,
        "basedOn": [codes.reference("ServiceRequest", order["id"])],
    }  # fmt: skip
    if issued := said.time("reported"):
        made["issued"] = issued
    return made


@dataclass(frozen=True)
class _Said:
    """One row by our words."""

    row: Mapping[str, str]
    columns: Columns

    def owner(self, whose: str) -> str:
        return self.columns.numbers.get(whose) or self.columns.source

    def text(self, word: str) -> str:
        return self.row.get(word, "")

    def mapped(self, word: str) -> str:
        """Return our word for the table's, by the mapping; empty stays empty.

        Raises:
            BadInput: The mapping has no such word.
        """
        value = self.text(word)
        if not value:
            return ""
        found = self.columns.maps[word].get(value)
        if found is None:
            raise BadInput(
                f"The mapping says nothing of {word} {value[:20]!r}", where=word, todo=f"Add it under [{word}]."
            )
        return found

    def time(self, word: str) -> str:
        """Return a time of the row with its offset.

        Raises:
            BadInput: It is none.
        """
        value = self.text(word)
        if not value:
            return ""
        for read in (datetime.fromisoformat, lambda text: datetime.strptime(text, self.columns.time)):
            try:
                moment = read(value)
            except ValueError:
                continue
            return (moment if moment.tzinfo else moment.replace(tzinfo=self.columns.zone)).isoformat()
        raise BadInput(f"This is no time of the form {self.columns.time}", where=word)

    def day(self, word: str) -> str:
        """Return a date of the row.

        Raises:
            BadInput: It is none.
        """
        value = self.text(word)
        if not value:
            return ""
        try:
            return datetime.strptime(value, self.columns.date).date().isoformat()
        except ValueError:
            raise BadInput(f"This is no date of the form {self.columns.date}", where=word) from None
