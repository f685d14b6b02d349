"""A small seeded history of visits as FHIR NDJSON, models trained on it, and the room itself."""

import json
import math
import random
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from arcuate.house import House, HouseSettings, open_house
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.client import call_operation
from arcuate.kernel.settings import SiteSettings
from arcuate.scheduling import attendance_training, waiting_training
from arcuate.scheduling.settings import SchedulingSettings

Json = dict[str, Any]

FIRST_DAY = datetime(2025, 9, 1, 6, 0, tzinfo=UTC)  # a Monday
NOW = datetime(2026, 3, 17, 9, 0, tzinfo=UTC)
EXAMS = (
    ("MRX0", "MRI brain without contrast", 30, 18),
    ("MRX2", "MRI brain with contrast", 45, 27),
    ("CTX0", "CT head without contrast", 25, 8),
)


def write_history(folder: Path, seed: int = 1, days: int = 130) -> Path:
    """Write a department of two scanners whose misses depend on lead time, past conduct and the telephone entry."""
    source = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    people = [
        {"id": f"p{i}", "birth": source.randint(1935, 2004), "phone": source.random() < 0.85, "u": source.gauss(0, 1.3)}
        for i in range(260)
    ]
    pages: dict[str, list[Json]] = {
        k: [] for k in ("Patient", "ServiceRequest", "Appointment", "Encounter", "Procedure")
    }
    for person in people:
        pages["Patient"].append({
            "resourceType": "Patient", "id": person["id"], "birthDate": f"{person['birth']}-05-01",
            **({"telecom": [{"system": "phone", "value": "0"}]} if person["phone"] else {}),
        })  # fmt: skip
    number = 0
    for day in range(days):
        morning = FIRST_DAY + timedelta(days=day)
        if morning.weekday() >= 5:
            continue
        for scanner in ("MR1", "CT1"):
            at, free = morning + timedelta(minutes=60), morning
            while at < morning + timedelta(hours=10):
                code, words, booked, mean = source.choice(EXAMS[:2] if scanner == "MR1" else EXAMS[2:])
                number += 1
                free = _one_visit(pages, source, people, (number, at, free, scanner, code, words, booked, mean))
                at += timedelta(minutes=booked)
    for name, resources in pages.items():
        (folder / f"{name}.ndjson").write_text("".join(json.dumps(r) + "\n" for r in resources), encoding="utf-8")
    return folder


def _one_visit(
    pages: dict[str, list[Json]], source: random.Random, people: list[Json], slot: tuple[Any, ...]
) -> datetime:
    number, start, free, scanner, code, words, booked, mean = slot
    person = source.choice(people)
    lead = min(120.0, source.lognormvariate(2.2, 1.0))
    x = -3.0 + 0.9 * (lead > 14) + person["u"] + 1.0 * (not person["phone"])
    miss = 1 / (1 + math.exp(-x))
    drawn = source.random()
    status, changed, reason = "fulfilled", start, None
    if drawn < miss:
        status, changed = "noshow", start + timedelta(minutes=30)
    elif drawn < miss + 0.05:
        status, changed, reason = "cancelled", start - timedelta(hours=min(12.0, lead * 12)), "late-cancel"
    elif drawn < miss + 0.12 and lead > 3:
        status, changed, reason = "cancelled", start - timedelta(days=2), "early-cancel"
    appointment = appointment_of(
        f"a{number}",
        person["id"],
        start,
        booked,
        scanner,
        created=start - timedelta(days=lead),
        status=status,
        order=f"o{number}",
    )
    if reason:
        appointment["cancelationReason"] = {"coding": [{"system": "urn:arcuate:cs:forecast", "code": reason}]}
    pages["ServiceRequest"].append(
        order_of(f"o{number}", person["id"], code, words, source.choice(["routine", "routine", "urgent"]))
    )
    if status == "fulfilled":
        arrived = start - timedelta(minutes=max(0, source.gauss(25, 12)))
        began = max(arrived + timedelta(minutes=5), free)
        ended = began + timedelta(minutes=mean * source.lognormvariate(0, 0.25))
        changed, free = ended, ended + timedelta(minutes=6)
        pages["Encounter"].append({
            "resourceType": "Encounter", "id": f"e{number}", "period": {"start": stamp(arrived)},
            "appointment": [{"reference": f"Appointment/a{number}"}],
        })  # fmt: skip
        pages["Procedure"].append({
            "resourceType": "Procedure", "id": f"x{number}", "basedOn": [{"reference": f"ServiceRequest/o{number}"}],
            "encounter": {"reference": f"Encounter/e{number}"}, "performedPeriod": {"start": stamp(began), "end": stamp(ended)},
        })  # fmt: skip
    appointment["meta"] = {"lastUpdated": stamp(changed)}
    pages["Appointment"].append(appointment)
    return free


def stamp(when: datetime) -> str:
    return when.isoformat(timespec="seconds").replace("+00:00", "Z")


def appointment_of(
    logical_id: str, patient: str, start: datetime, minutes: int = 30, place: str = "MR1", *, created: datetime, status: str = "booked",
    order: str | None = None,
) -> Json:  # fmt: skip
    made: Json = {
        "resourceType": "Appointment", "id": logical_id, "status": status, "start": stamp(start),
        "end": stamp(start + timedelta(minutes=minutes)), "minutesDuration": minutes, "created": stamp(created),
        "participant": [
            {"actor": {"reference": f"Patient/{patient}"}, "status": "accepted"},
            {"actor": {"reference": f"Location/{place.lower()}", "display": place}, "status": "accepted"},
        ],
    }  # fmt: skip
    if order:
        made["basedOn"] = [{"reference": f"ServiceRequest/{order}"}]
    return made


def order_of(
    logical_id: str,
    patient: str,
    code: str = "MRX0",
    words: str = "MRI brain without contrast",
    priority: str = "routine",
) -> Json:
    return {
        "resourceType": "ServiceRequest", "id": logical_id, "status": "active", "intent": "order", "priority": priority,
        "code": {"coding": [{"system": "urn:arcuate:cs:exam", "code": code, "display": words}], "text": words},
        "subject": {"reference": f"Patient/{patient}"},
    }  # fmt: skip


@pytest.fixture(scope="session")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small history on disk."""
    return write_history(tmp_path_factory.mktemp("history"))


@pytest.fixture(scope="session")
def models(history: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with both models trained on the small history."""
    folder = tmp_path_factory.mktemp("models")
    attendance_training.train(history, folder / "attendance", 1, draws=20)
    waiting_training.train(history, folder / "waiting", 1, draws=20)
    return folder


@pytest.fixture
def people() -> SimpleNamespace:
    """Builders of resources."""

    def patient(logical_id: str = "p", phone: bool = True, birth: str | None = "1990-04-02") -> Json:
        made: Json = {"resourceType": "Patient", "id": logical_id}
        if birth:
            made["birthDate"] = birth
        if phone:
            made["telecom"] = [{"system": "phone", "value": "0"}]
        return made

    def past(number: int, status: str = "noshow", patient_id: str = "p", **cancelled: Any) -> Json:
        start = NOW - timedelta(days=30 * number)
        made = appointment_of(f"past{number}", patient_id, start, created=start - timedelta(days=9), status=status)
        return {**made, "meta": {"lastUpdated": stamp(start + timedelta(hours=1))}, **cancelled}

    def booking(start: datetime | None = None, lead_days: float = 40, **more: Any) -> Json:
        begins = start or NOW + timedelta(days=5, hours=1)
        made = appointment_of("asked", "p", begins, created=begins - timedelta(days=lead_days), order="o")
        return {**made, **more}

    return SimpleNamespace(now=NOW, patient=patient, past=past, booking=booking, order=lambda **k: order_of("o", "p", **k), stamp=stamp,
                           appointment=appointment_of)  # fmt: skip


class Desk:
    """The running room as journey and the dashboard meet it."""

    def __init__(self, house: House, clock: ManualClock) -> None:
        self.house, self.clock = house, clock
        self.http: httpx.AsyncClient = house.contexts["scheduling"].http
        self.room = house.rooms["scheduling"].app.state.desk

    async def attendance(self, *resources: Json) -> Json:
        """Return the RiskAssessment."""
        answer = await call_operation(
            self.http, "/scheduling/Appointment/$predict-attendance", bundles.collection(resources)
        )
        return bundles.one_of_type(answer, "RiskAssessment")

    async def wait(self, *resources: Json) -> dict[str, Json]:
        """Return the Observations by code."""
        answer = await call_operation(self.http, "/scheduling/Appointment/$predict-wait", bundles.collection(resources))
        return {o["code"]["coding"][0]["code"]: o for o in bundles.of_type(answer, "Observation")}


@pytest.fixture
async def open_desk(tmp_path: Path) -> AsyncIterator[Callable[..., Any]]:
    """Opens the room in process on a models folder, with the access room that checks its callers."""
    import contextlib

    async with contextlib.AsyncExitStack() as stack:

        async def opened(models_dir: Path, site: SiteSettings | None = None, **settings: Any) -> Desk:
            clock = ManualClock(NOW)
            settings = {"feed": False, "limit_s": 20.0, **settings}
            house = await stack.enter_async_context(
                open_house(
                    HouseSettings(data_dir=tmp_path / "data", models_dir=models_dir), site or SiteSettings(time_zone="Europe/Zurich"),
                    rooms=["access", "scheduling"], clock=clock, room_settings={"scheduling": SchedulingSettings(**settings)},
                )
            )  # fmt: skip
            return Desk(house, clock)

        yield opened
