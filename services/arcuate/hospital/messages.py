"""The hospital's HL7 v2.5.1 messages: RIS, laboratory and dictation. Bytes out; nothing is sent here.

MSH-7 is the time of the event, MSH-11 is `T` (training), every number's assigner is `SYNTH`.
"""

import hashlib
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from zoneinfo import ZoneInfo

from arcuate.hospital.exams import Exam
from arcuate.hospital.morning import Case
from arcuate.hospital.patients import ASSIGNER, Person
from arcuate.kernel.hl7v2 import timestamps
from arcuate.kernel.hl7v2.build import Envelope, Value, message, segment

EXAM_CODES = "99ARCUATE"
"""OBR-4.3: the exam catalogue (`urn:arcuate:cs:exam`) as a local coding scheme of table 0396 (`99zzz`)."""

_SECTION = {"MR": "NMR", "CT": "CT"}
_PRIORITY = {"routine": "R", "urgent": "A", "stat": "S"}
_REFERRER = ("D10", "Synthetic-Referrer", "Robin")
_REASONS = {"S12": "BOOK", "S13": "RESCHEDULE", "S14": "STATUS", "S15": "CANCEL", "S26": "NOSHOW"}
_EGFR = ("98979-8", "eGFR CKD-EPI 2021", "LN")
_NUMBERS = re.compile(r"\d+")


class Writer:
    """Writes one hospital's messages; control ids are made from what is said, so the same event is the same message.

    Args:
        zone: The site's zone; times go out with its offset.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone

    def register(self, case: Case, at: datetime) -> bytes:
        """ADT^A08: what is known of the person; no visit yet."""
        lines = [self._evn("A08", at), self._pid(case.person), segment("PV1", {1: "1", 2: case.setting})]
        return self._message("ADT", "A08", "ADT_A01", at, lines, case.accession)

    def arrive(self, case: Case, at: datetime) -> bytes:
        """ADT^A04: the patient stands at the desk."""
        lines = [self._evn("A04", at), self._pid(case.person), self._visit(case, at)]
        return self._message("ADT", "A04", "ADT_A01", at, lines, case.accession)

    def order(
        self, case: Case, at: datetime, *, control: str = "NW", state: str = "", exam: Exam | None = None
    ) -> bytes:
        """ORM^O01.

        Args:
            control: ORC-1: `NW` new, `XO` changed, `CA` cancelled, `SC` status.
            state: ORC-5: `IP` the exam has begun, `CM` it is done, `CA` cancelled.
            exam: What is ordered, when it is not `case.exam`.
        """
        orc: dict[int, Value] = {
            1: control, 2: (case.placer, ASSIGNER), 3: (case.accession, ASSIGNER), 5: state, 9: self._time(at), 12: _REFERRER,
        }  # fmt: skip
        visit = self._visit(case, None) if state else segment("PV1", {1: "1", 2: case.setting})
        lines = [self._pid(case.person), visit, segment("ORC", orc), self._obr(case, exam or case.exam)]
        if case.egfr is not None and case.egfr_at is None and control == "NW":
            lines.append(self._egfr(case.egfr, at - timedelta(days=3)))
        return self._message("ORM", "O01", "ORM_O01", at, lines, f"{case.accession}{control}{state}")

    def booking(
        self, event: str, case: Case, at: datetime, slot: datetime, *, status: str = "Booked", asked_as: Sequence[str] = ()
    ) -> bytes:  # fmt: skip
        """SIU: S12 booked, S13 moved, S14 status changed, S15 cancelled, S26 missed; SCH-26 and SCH-27 carry the order's numbers.

        Args:
            asked_as: Number and assigner under which another system has asked for the booking (ARQ-1), which is then its placer.
        """
        end = slot + timedelta(minutes=case.minutes)
        number = f"{case.appointment}N" if asked_as else case.appointment  # beside the date that the case has
        sch: dict[int, Value] = {
            1: tuple(asked_as) or (f"P{case.appointment}", ASSIGNER), 2: (number, ASSIGNER), 6: (_REASONS[event],), 9: str(case.minutes), 10: "min",
            11: ("", "", f"M{case.minutes}", self._time(slot), self._time(end)), 16: ("S1", "Synthetic-Scheduler", "Sam"),
            20: ("S1", "Synthetic-Scheduler", "Sam"), 25: (status,), 26: (case.placer, ASSIGNER), 27: (case.accession, ASSIGNER),
        }  # fmt: skip
        ais: dict[int, Value] = {
            1: "1", 3: _exam(case.exam_done if event != "S12" else case.exam), 4: self._time(slot), 7: str(case.minutes), 8: "min",
        }  # fmt: skip
        ail: dict[int, Value] = {1: "1", 3: (case.scanner, "", "", ASSIGNER)}
        lines = [
            segment("SCH", sch), self._pid(case.person), segment("PV1", {1: "1", 2: case.setting}), segment("RGS", {1: "1"}),
            segment("AIS", ais), segment("AIL", ail),
        ]  # fmt: skip
        return self._message("SIU", event, "SIU_S12", at, lines, f"{case.appointment}{status}")

    def laboratory(self, case: Case, at: datetime, egfr: float) -> bytes:
        """ORU^R01 of the laboratory: one eGFR, drawn 40 minutes before, with numbers of its own."""
        number = (f"L{case.accession}", "SYNTH-LAB")
        obr: dict[int, Value] = {
            1: "1", 2: number, 3: number, 4: _EGFR, 7: self._time(at), 22: self._time(at), 24: "CH", 25: "F",
        }  # fmt: skip
        lines = [self._pid(case.person), segment("OBR", obr), self._egfr(egfr, at - timedelta(minutes=40))]
        return self._message("ORU", "R01", "ORU_R01", at, lines, f"{case.accession}LAB", application="SYNTH-LAB")

    def final_report(self, case: Case, at: datetime, lines: Sequence[str], impression: str, reader: str) -> bytes:
        """ORU^R01 of dictation: the signed report, one OBX a line, the impression by itself."""
        orc: dict[int, Value] = {
            1: "RE",
            2: (case.placer, ASSIGNER),
            3: (case.accession, ASSIGNER),
            5: "CM",
            9: self._time(at),
        }
        obr = self._obr_fields(case, case.exam_done) | {
            7: self._time(case.slot),
            22: self._time(at),
            25: "F",
            32: ((f"{reader}", reader),),
        }
        texts = [("18782-3", "Study observation", line or " ") for line in lines] + [
            ("19005-8", "Impression", impression)
        ]
        values = [
            segment("OBX", {1: str(n), 2: "TX", 3: (code, name, "LN"), 4: "1", 5: text, 11: "F", 14: self._time(at)})
            for n, (code, name, text) in enumerate(texts, 1)
        ]
        body = [
            self._pid(case.person),
            segment("PV1", {1: "1", 2: case.setting}),
            segment("ORC", orc),
            segment("OBR", obr),
            *values,
        ]
        return self._message("ORU", "R01", "ORU_R01", at, body, f"{case.accession}F", application="SYNTH-DICTATION")

    def _message(
        self, kind: str, event: str, structure: str, at: datetime, lines: Sequence[str], about: str, *, application: str = "SYNTH-RIS"
    ) -> bytes:  # fmt: skip
        said = "|".join((kind, event, about, at.isoformat(), *lines))
        control_id = f"SY{hashlib.sha256(said.encode()).hexdigest()[:16].upper()}"
        envelope = Envelope(
            kind, event, structure, control_id, at, self.zone, application, ASSIGNER, "ARCUATE", "", processing_id="T"
        )
        return message(envelope, lines)

    def _time(self, moment: datetime) -> str:
        return timestamps.write(moment, self.zone)

    def _evn(self, event: str, at: datetime) -> str:
        return segment("EVN", {1: event, 2: self._time(at)})

    def _pid(self, person: Person) -> str:
        fields: dict[int, Value] = {
            1: "1",
            3: (person.number, "", "", ASSIGNER, "MR"),
            5: (person.family, person.given, "", "", "", "", "L"),
            7: person.birth.strftime("%Y%m%d"),
            8: person.sex,
            11: ("", "", "", "", person.postal_code, "", "H"),
            16: ("S" if person.single else "M",),
        }
        if person.mobile:
            fields[13] = (person.mobile, "PRN", "CP")
        return segment("PID", fields)

    def _visit(self, case: Case, admitted: datetime | None) -> str:
        fields: dict[int, Value] = {
            1: "1",
            2: case.setting,
            3: ("NEURO-IMAGING", "", "", ASSIGNER),
            19: (case.visit, "", "", ASSIGNER),
        }
        if admitted is not None:
            fields[44] = self._time(admitted)
        return segment("PV1", fields)

    def _obr(self, case: Case, exam: Exam) -> str:
        return segment("OBR", self._obr_fields(case, exam))

    def _obr_fields(self, case: Case, exam: Exam) -> dict[int, Value]:
        return {
            1: "1", 2: (case.placer, ASSIGNER), 3: (case.accession, ASSIGNER), 4: _exam(exam), 16: _REFERRER, 18: case.accession,
            19: f"RP{_digits(case.accession)}", 20: f"SPS{_digits(case.accession)}", 24: _SECTION[exam.modality],
            27: ("", "", "", self._time(case.slot), "", _PRIORITY[case.priority]), 31: ("", case.indication),
        }  # fmt: skip

    def _egfr(self, value: float, drawn: datetime) -> str:
        fields: dict[int, Value] = {
            1: "1", 2: "NM", 3: _EGFR, 5: f"{value:g}", 6: ("mL/min/{1.73_m2}", "", "UCUM"), 11: "F",
            14: self._time(drawn),
        }  # fmt: skip
        return segment("OBX", fields)


def _exam(exam: Exam) -> tuple[str, str, str]:
    return (exam.code, exam.display, EXAM_CODES)


def _digits(accession: str) -> str:
    return "".join(_NUMBERS.findall(accession))
