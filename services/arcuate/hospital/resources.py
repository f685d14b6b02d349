"""A past as FHIR R4 resources, as a record would hold them: no chance, no hidden trait."""

import random
from collections.abc import Callable, Iterator
from zoneinfo import ZoneInfo

import numpy as np

from arcuate.hospital.attendance import FULFILLED, LATE_CANCEL, NO_SHOW
from arcuate.hospital.exams import SCANNERS, booked_minutes, load_exams
from arcuate.hospital.orders import Wording, load_wording, write_indication
from arcuate.hospital.past import EARLY_CANCEL, Past, priority_of
from arcuate.hospital.patients import ASSIGNER, TEST_DATA, load_given_names, patient_resource, person_at
from arcuate.hospital.settings import HospitalSettings
from arcuate.hospital.timeline import Stamper
from arcuate.kernel.codes import (
    CS_EXAM,
    CS_FORECAST,
    Json,
    accession_identifier,
    appointment_system,
    coding,
    concept,
    identifier,
    placer_system,
    visit_system,
)  # fmt: skip

_REASONS = "http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason"
_ACT = "http://terminology.hl7.org/CodeSystem/v3-ActCode"


class PastResources:
    """Turns a past into FHIR resources, one type after the other."""

    def __init__(self, past: Past, settings: HospitalSettings, seed: int) -> None:
        self._past = past
        self._settings = settings
        self._rng = np.random.default_rng([seed, 2])
        self._source = random.Random(seed)  # noqa: S311 - a simulation wants a seeded source
        self._exams = load_exams()
        self._codes = [concept(CS_EXAM, e.code, e.display, e.display) for e in self._exams]
        self._stamp = Stamper(ZoneInfo(settings.history_zone))
        self._given = load_given_names()
        self._who = sorted({b.person for b in past.bookings})
        self._patients = dict(zip(self._who, self._ids(len(self._who)), strict=True))
        orders = sorted({b.order for b in past.bookings})
        self._orders = dict(zip(orders, self._ids(len(orders)), strict=True))
        self._places = self._ids(len(SCANNERS))
        self._appointments = self._ids(len(past.bookings))
        self._encounters = self._ids(len(past.bookings))

    def _ids(self, count: int) -> list[str]:
        raw = self._rng.bytes(16 * count).hex()
        return [f"{raw[i : i + 8]}-{raw[i + 8 : i + 12]}-{raw[i + 12 : i + 16]}-{raw[i + 16 : i + 20]}-{raw[i + 20 : i + 32]}"
                for i in range(0, 32 * count, 32)]  # fmt: skip

    def by_type(self) -> Iterator[tuple[str, Iterator[Json]]]:
        """Yield each resource type with its resources."""
        writers: tuple[tuple[str, Callable[[], Iterator[Json]]], ...] = (
            ("Location", self._locations), ("Patient", self._people), ("ServiceRequest", self._requests),
            ("Appointment", self._bookings), ("Encounter", self._visits), ("Procedure", self._exams_done),
        )  # fmt: skip
        for name, write in writers:
            yield name, write()

    def _locations(self) -> Iterator[Json]:
        for scanner, logical_id in zip(SCANNERS, self._places, strict=True):
            kind = f"{scanner.modality} scanner" + (f", {scanner.tesla:g} T" if scanner.tesla else "")
            yield {
                "resourceType": "Location", "id": logical_id, "meta": TEST_DATA, "status": "active", "name": scanner.name,
                "description": f"{kind} of the synthetic department", "mode": "instance",
            }  # fmt: skip

    def _people(self) -> Iterator[Json]:
        for index in self._who:
            yield patient_resource(person_at(self._past.people, index, self._given), self._patients[index])

    def _requests(self) -> Iterator[Json]:
        wording: Wording = load_wording()
        last = {b.order: b for b in self._past.bookings}  # the order's last date decides its state
        for order, logical_id in self._orders.items():
            booking = last[order]
            exam, sex = self._exams[booking.exam], "M" if self._past.people.male[booking.person] else "F"
            status = {FULFILLED: "completed", NO_SHOW: "active"}.get(booking.outcome, "revoked")
            yield {
                "resourceType": "ServiceRequest", "id": logical_id, "meta": TEST_DATA,
                "identifier": [
                    accession_identifier(f"SY{order:07d}"), identifier(placer_system(ASSIGNER), f"PL{order:07d}", "PLAC"),
                ],
                "status": status, "intent": "order", "priority": priority_of(booking), "code": self._codes[booking.exam],
                "subject": {"reference": f"Patient/{self._patients[booking.person]}"},
                "authoredOn": self._stamp(booking.authored),
                "reasonCode": [{"text": write_indication(exam, wording, self._settings, self._source, sex)}],
            }  # fmt: skip

    def _bookings(self) -> Iterator[Json]:
        status = {FULFILLED: "fulfilled", NO_SHOW: "noshow", LATE_CANCEL: "cancelled", EARLY_CANCEL: "cancelled"}
        for number, booking in enumerate(self._past.bookings):
            exam = self._exams[booking.exam]
            minutes = booked_minutes(exam, SCANNERS[booking.scanner])
            resource: Json = {
                "resourceType": "Appointment", "id": self._appointments[number],
                "meta": {**TEST_DATA, "lastUpdated": self._stamp(booking.changed)},
                "identifier": [identifier(appointment_system(ASSIGNER), f"AP{number:07d}")],
                "status": status[booking.outcome], "description": exam.display,
                "start": self._stamp(booking.start), "end": self._stamp(booking.start + minutes), "minutesDuration": minutes,
                "created": self._stamp(booking.created),
                "basedOn": [{"reference": f"ServiceRequest/{self._orders[booking.order]}"}],
                "participant": [
                    {"actor": {"reference": f"Patient/{self._patients[booking.person]}"}, "status": "accepted"},
                    {
                        "actor": {"reference": f"Location/{self._places[booking.scanner]}", "display": SCANNERS[booking.scanner].name},
                        "status": "accepted",
                    },
                ],
            }  # fmt: skip
            if booking.outcome in (LATE_CANCEL, EARLY_CANCEL):
                resource["cancelationReason"] = self._reason(
                    "late-cancel" if booking.outcome == LATE_CANCEL else "early-cancel"
                )
            yield resource

    def _reason(self, when: str) -> Json:
        drawn = self._source.random()
        by_patient, by_provider = self._settings.cancel_by_patient, self._settings.cancel_by_provider
        who, text = ("pat", "Patient") if drawn < by_patient else ("prov", "Provider")
        if drawn >= by_patient + by_provider:
            who, text = "maint", "Equipment Maintenance/Repair"
        return {"coding": [coding(CS_FORECAST, when), coding(_REASONS, who, text)]}

    def _visits(self) -> Iterator[Json]:
        for number, booking in enumerate(self._past.bookings):
            if booking.outcome != FULFILLED:
                continue
            yield {
                "resourceType": "Encounter", "id": self._encounters[number], "meta": TEST_DATA,
                "identifier": [identifier(visit_system(ASSIGNER), f"VN{number:07d}")],
                "status": "finished", "class": coding(_ACT, booking.setting),
                "subject": {"reference": f"Patient/{self._patients[booking.person]}"},
                "basedOn": [{"reference": f"ServiceRequest/{self._orders[booking.order]}"}],
                "appointment": [{"reference": f"Appointment/{self._appointments[number]}"}],
                "period": {"start": self._stamp(booking.arrival), "end": self._stamp(booking.ended + 5)},
                "location": [{"location": {"reference": f"Location/{self._places[booking.scanner]}"}}],
            }  # fmt: skip

    def _exams_done(self) -> Iterator[Json]:
        done = [(i, b) for i, b in enumerate(self._past.bookings) if b.outcome == FULFILLED]
        for (number, booking), logical_id in zip(done, self._ids(len(done)), strict=True):
            yield {
                "resourceType": "Procedure", "id": logical_id, "meta": TEST_DATA,
                "identifier": [accession_identifier(f"SY{booking.order:07d}")],
                "basedOn": [{"reference": f"ServiceRequest/{self._orders[booking.order]}"}],
                "status": "stopped" if booking.stopped else "completed", "code": self._codes[booking.exam],
                "subject": {"reference": f"Patient/{self._patients[booking.person]}"},
                "encounter": {"reference": f"Encounter/{self._encounters[number]}"},
                "performedPeriod": {"start": self._stamp(booking.began), "end": self._stamp(booking.ended)},
                "location": {"reference": f"Location/{self._places[booking.scanner]}"},
            }  # fmt: skip
