"""The reporting room in process, and resources as the other rooms send them."""

import base64
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from joserfc.jwk import ECKey

from arcuate.kernel.auth import Authenticator, Principal, Role, tokens
from arcuate.kernel.clock import Clock, ManualClock
from arcuate.kernel.codes import CS_SNOMED, CS_STRUCTURE, accession_identifier, coding, quantity
from arcuate.kernel.db import Database
from arcuate.kernel.fhir import strict
from arcuate.kernel.fhir.bundle import collection
from arcuate.kernel.room import RoomContext
from arcuate.kernel.settings import SiteSettings
from arcuate.reporting.app import open_room

Json = dict[str, Any]
ISSUER = "urn:test"
KEY = ECKey.generate_key("P-256", {"kid": "test"})
TEMPLATES = Path(__file__).parents[2] / "templates"
HASH = "ab" * 32
SIDES = {"left": ("7771000", "Left"), "right": ("24028007", "Right")}


def order(exam: str = "MRI brain without contrast", indication: str = "memory loss, ?atrophy", **more: Any) -> Json:
    """An order as the gateway writes it."""
    made: Json = {
        "resourceType": "ServiceRequest",
        "id": "o1",
        "status": "active",
        "intent": "order",
        "identifier": [accession_identifier("A1")],
        "subject": {"reference": "Patient/p1"},
        "code": {"text": exam},
    }
    if indication:
        made["reasonCode"] = [{"text": indication}]
    return made | more


def study(study_id: str = "s1") -> Json:
    """A joined ImagingStudy."""
    series = {
        "uid": "1.2.3.1",
        "number": 3,
        "modality": coding("http://dicom.nema.org/resources/ontology/DCM", "MR"),
        "description": "T1 MPRAGE",
    }
    return {
        "resourceType": "ImagingStudy",
        "id": study_id,
        "status": "available",
        "subject": {"reference": "Patient/p1"},
        "started": "2026-03-17T09:30:00+01:00",
        "series": [{**series, "numberOfInstances": 176}],
    }


def volume(structure: str, side: str, ml: str, **more: Any) -> Json:
    """A measured value in the form of the imaging room."""
    title = f"{side.capitalize()} {structure}" if side else structure.capitalize()
    site: Json = {"coding": [coding(CS_SNOMED, "5366008")], "text": title}
    if side:
        site["coding"].append(coding(CS_SNOMED, *SIDES[side]))
    made: Json = {
        "resourceType": "Observation",
        "id": f"{structure}{side}",
        "meta": {"versionId": "1"},
        "status": "preliminary",
        "code": {
            "coding": [coding(CS_STRUCTURE, structure), coding(CS_SNOMED, "118565006", "Volume")],
            "text": f"{title}, volume",
        },
        "subject": {"reference": "Patient/p1"},
        "basedOn": [{"reference": "ServiceRequest/o1"}],
        "derivedFrom": [{"reference": "ImagingStudy/s1"}],
        "bodySite": site,
        "valueQuantity": quantity(ml, "mL"),
        "issued": "2026-03-17T09:05:00Z",
        "device": {"reference": "#model"},
        "contained": [
            {
                "resourceType": "Device",
                "id": "model",
                "deviceName": [{"name": "brain-t1", "type": "model-name"}],
                "version": [
                    {"type": {"text": "brain-t1 version"}, "value": "1"},
                    {"type": {"text": "brain-t1 weights SHA-256"}, "value": HASH},
                ],
            }
        ],
        "note": [{"text": "Research use only. No diagnosis."}, {"text": "Measured on series 3 (T1 MPRAGE, 1 mm)."}],
    }
    return made | more


def refusal(text: str = "The patient moved.", todo: str = "Repeat the T1 series.") -> Json:
    """A study that could not be measured, in the form of the imaging room."""
    absent = "http://terminology.hl7.org/CodeSystem/data-absent-reason"
    made = volume("brain-volumes", "", "1")
    del made["valueQuantity"], made["contained"], made["device"]
    return made | {
        "dataAbsentReason": {"coding": [coding(absent, "not-performed")], "text": text},
        "note": [{"text": text}, {"text": todo}],
    }


@pytest.fixture
def made() -> SimpleNamespace:
    """Builders of resources."""
    return SimpleNamespace(order=order, study=study, volume=volume, refusal=refusal, hash=HASH, templates=TEMPLATES)


@dataclass
class Door:
    """The room as journey meets it."""

    app: Any
    clock: Clock
    database: Database

    def http(self, *roles: Role) -> httpx.AsyncClient:
        """A client with a token of these roles; without any when none is named."""
        headers = {}
        if roles:
            token = tokens.issue(KEY, ISSUER, Principal("x", frozenset(roles), "x", ""), self.clock.now(), 10**8)
            headers["Authorization"] = f"Bearer {token}"
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        return httpx.AsyncClient(transport=transport, base_url="http://house", headers=headers, timeout=60)

    async def post(self, *resources: Json, roles: tuple[Role, ...] = (Role.ROOM,)) -> httpx.Response:
        """Ask for a draft."""
        async with self.http(*roles) as client:
            return await client.post("/reporting/DiagnosticReport/$draft", content=strict.dumps(collection(resources)))

    async def draft(self, *resources: Json) -> Json:
        """Return the DiagnosticReport of the answer."""
        answer = await self.post(*resources)
        assert answer.status_code == 200, answer.text
        [entry] = strict.loads(answer.content)["entry"]
        return dict(entry["resource"])

    async def text(self, *resources: Json) -> str:
        """Return the plain text of the draft."""
        return form(await self.draft(*resources), "text/plain")

    async def page(self, *resources: Json) -> str:
        """Return the HTML page of the draft."""
        return form(await self.draft(*resources), "text/html")


def form(report: Json, kind: str) -> str:
    """Return one presented form, decoded."""
    return base64.b64decode(
        next(f["data"] for f in report["presentedForm"] if f["contentType"].startswith(kind))
    ).decode()


OpenDoor = Callable[..., Awaitable[Door]]


@pytest.fixture
async def open_door(tmp_path: Path, clock: ManualClock) -> AsyncIterator[OpenDoor]:
    """Open the room over its own folder of templates and models."""

    async def key_set() -> Json:
        return {"keys": [KEY.as_dict(private=False)]}

    async with AsyncExitStack() as stack:

        async def opened(templates: Path = TEMPLATES, url: str = "", synthetic: bool = False) -> Door:
            database = Database(url or f"sqlite:///{tmp_path}/reporting.db", schema="reporting")
            models = tmp_path / "models"
            (models / "brain-t1").mkdir(parents=True, exist_ok=True)
            (models / "brain-t1" / "model.toml").write_text(
                f'name = "brain-t1"\nversion = "1"\npopulation = "Adults, T1"\nheld_out_dice = 0.8312\n[weights]\nsha256 = "{HASH}"\n',
                "utf-8",
            )
            site = SiteSettings(time_zone="Europe/Zurich", synthetic=synthetic)
            context = RoomContext(
                "reporting",
                tmp_path,
                models,
                templates,
                clock,
                site,
                Authenticator(key_set, ISSUER, clock),
                httpx.AsyncClient(),
                database,
            )
            room = await open_room(context)
            stack.callback(database.close)
            await stack.enter_async_context(room.run())
            return Door(room.app, clock, database)

        yield opened


@pytest.fixture
async def door(open_door: OpenDoor) -> Door:
    """The room with the templates that ship."""
    return await open_door()
