"""`arcuate demo`: the house, with a synthetic morning played through its real doors."""

import asyncio
import base64
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.table import Table

from arcuate.gateway.settings import GatewaySettings, Receiver
from arcuate.hospital.desks import Desks, open_desks
from arcuate.hospital.morning import Case, Morning, expected_ends, make_morning
from arcuate.hospital.play import IN_A_HURRY, REAL_TIME, Doors, play
from arcuate.house import HouseSettings, locked
from arcuate.imaging.settings import ImagingSettings
from arcuate.journey.settings import JourneySettings
from arcuate.kernel.background import stop
from arcuate.kernel.clock import SystemClock
from arcuate.kernel.errors import ArcuateError, Conflict
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.log import configure_logging
from arcuate.kernel.settings import RoomSettings, SiteSettings
from arcuate.programs import new_link, running, script_token

MARK = "demo.json"
_ENDED = ("delivered", "cancelled", "expired")
_PATIENCE_S = 180.0


@dataclass
class _Watch:
    """What the demo sees of the house from outside, through its web door."""

    http: httpx.AsyncClient
    drafts: Path
    cases: dict[str, dict[str, Any]] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)

    async def look(self) -> None:
        """Read the ledger, and write new drafts to files."""
        ledger = (await self.http.get("/journey/cases")).json()
        self.cases = {c["accession"]: c for c in ledger["cases"] if c["accession"]}
        for report in await FhirClient(self.http).search("DiagnosticReport", {"status": "preliminary"}):
            self._write(report)

    def _write(self, report: dict[str, Any]) -> None:
        accession = next(
            (i["value"] for i in report.get("identifier", ()) if i["system"].endswith("report:draft")), None
        )
        version = report["meta"]["versionId"]
        text = next(
            (f["data"] for f in report.get("presentedForm", ()) if f.get("contentType", "").startswith("text/plain")),
            None,
        )
        if accession is None or text is None or self.written.get(accession) == version:
            return
        # Synthetic accession numbers only: a real house never names a file after one.
        safe = "".join(c for c in accession if c.isalnum() or c in "-_")
        (self.drafts / f"{safe}.txt").write_bytes(base64.b64decode(text))
        self.written[accession] = version


async def run_demo(
    settings: HouseSettings, *, mllp_port: int | None, dicom_port: int | None, seed: int, ends: bool, console: Console
) -> bool:
    """Run the house and play the morning; returns whether every journey ended as scripted (always True without `ends`)."""
    configure_logging(settings.log_level, settings.log_form)
    _prepare(settings.data_dir)
    site = SiteSettings(
        time_zone=SiteSettings().time_zone or "Europe/Zurich", site_name="Synthetic department", synthetic=True
    )
    clock = SystemClock()
    async with open_desks(clock) as desks:
        rooms = _room_settings(desks, mllp_port, dicom_port, ends)
        async with running(settings, site, clock=clock, room_settings=rooms) as (house, server):
            drafts = settings.data_dir / "drafts"
            drafts.mkdir(exist_ok=True)
            console.print(f"The board     {settings.address}")
            console.print(f"Sign in once  {await new_link(house, settings)}")
            console.print(f"Drafts        {drafts.resolve()}")
            console.print("Everything that you see from here on is synthetic.\n")
            morning = make_morning(seed, clock.now(), site.zone)
            doors = Doors(
                ("127.0.0.1", rooms["gateway"].port),  # type: ignore[attr-defined]
                ("127.0.0.1", rooms["imaging"].port),  # type: ignore[attr-defined]
                f"{settings.address}/fhir", script_token(settings, "integration", timedelta(hours=12)), desks,
            )  # fmt: skip
            async with _watching(settings, drafts) as watch:
                if ends:
                    return await _to_the_end(morning, doors, clock, watch, console)
                await _until_stopped(morning, doors, clock, server, console)
    return True


def _prepare(folder: Path) -> None:
    """Make the folder a fresh demo's; a folder that holds anything else is left alone.

    Raises:
        Conflict: It holds something else, or a demo that still runs.
    """
    if folder.exists() and any(folder.iterdir()):
        if not (folder / MARK).is_file():
            raise Conflict(f"{folder} holds something that is no demo", todo="Name an empty folder with --data.")
        with locked(folder, ("house", "demo")):
            pass
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MARK).write_text(
        json.dumps({"synthetic": True, "made": time.strftime("%Y-%m-%dT%H:%M:%S%z")}), encoding="utf-8"
    )


def _room_settings(desks: Desks, mllp_port: int | None, dicom_port: int | None, ends: bool) -> dict[str, RoomSettings]:
    """Return the settings in which a demo differs: its receivers, its ports, and shorter waits."""
    receivers = tuple(Receiver.model_validate(receiver) for receiver in desks.receivers())
    ports: dict[str, Any] = {} if mllp_port is None else {"port": mllp_port}
    dicom: dict[str, Any] = {} if dicom_port is None else {"port": dicom_port}
    images_wait, expiry = (45.0, 10.0) if ends else (90.0, 90.0)
    return {
        "gateway": GatewaySettings(receivers=receivers, **ports),
        "imaging": ImagingSettings(quiet_s=2.0, **dicom),
        "journey": JourneySettings(images_wait_s=images_wait, no_show_expiry_s=expiry),
    }


@contextlib.asynccontextmanager
async def _watching(settings: HouseSettings, drafts: Path) -> AsyncIterator[_Watch]:
    token = script_token(settings, "lead", timedelta(hours=12))
    async with httpx.AsyncClient(
        base_url=settings.address, headers={"Authorization": f"Bearer {token}"}, timeout=30
    ) as http:
        watch = _Watch(http, drafts)
        task = asyncio.create_task(_look_on(watch))
        try:
            yield watch
        finally:
            await stop(task)


async def _look_on(watch: _Watch) -> None:
    while True:
        with contextlib.suppress(httpx.HTTPError, ArcuateError):
            await watch.look()
        await asyncio.sleep(1.5)


async def _to_the_end(morning: Morning, doors: Doors, clock: SystemClock, watch: _Watch, console: Console) -> bool:
    began = time.monotonic()
    ends = await expected_ends(morning)
    told = await play(morning, doors, clock, console.print, pace=IN_A_HURRY)
    until = time.monotonic() + _PATIENCE_S
    while time.monotonic() < until and any(_stage(watch, accession) != end for accession, end in ends.items()):
        await asyncio.sleep(0.5)
    await watch.look()
    console.print(_summary(morning, watch, ends))
    wrong = [accession for accession, end in ends.items() if _stage(watch, accession) != end]
    spent = time.monotonic() - began
    console.print(
        f"{told.messages} HL7 messages, {told.images} images of {len(told.true_volumes)} invented heads, {len(watch.written)} drafts, "
        f"{len(told.signed)} signed reports in {spent:.0f} s"
    )
    console.print("Every scripted journey ended as scripted." if not wrong else f"Not as scripted: {', '.join(wrong)}")
    return not wrong


def _stage(watch: _Watch, accession: str) -> str:
    return str(watch.cases.get(accession, {}).get("stage", "not there"))


def _summary(morning: Morning, watch: _Watch, ends: Mapping[str, str]) -> Table:
    table = Table(
        "accession", "exam", "script", "stands at", "stages (minutes and seconds from the first)", "draft", box=None
    )
    for case in sorted(morning.cases, key=lambda c: c.accession):
        found = watch.cases.get(case.accession, {})
        stage = _stage(watch, case.accession)
        mark = "" if ends.get(case.accession, stage) == stage else "  <- not as scripted"
        table.add_row(
            case.accession, _exam(case), ends.get(case.accession, "(goes on)"), stage + mark, _times(found),
            f"v{watch.written[case.accession]}" if case.accession in watch.written else "",
        )  # fmt: skip
    return table


def _exam(case: Case) -> str:
    return str(getattr(case.exam_done, "name", None) or getattr(case.exam_done, "display", None) or case.exam_done.code)


def _times(found: Mapping[str, Any]) -> str:
    reached = [(s["stage"], datetime.fromisoformat(s["at"])) for s in found.get("steps", ()) if s["kind"] == "stage"]
    if not reached:
        return ""
    first = min(at for _, at in reached)
    return " ".join(f"{stage} {_clock_time((at - first).total_seconds())}" for stage, at in reached)


def _clock_time(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


async def _until_stopped(
    morning: Morning, doors: Doors, clock: SystemClock, server: "asyncio.Task[None]", console: Console
) -> None:
    playing = asyncio.create_task(play(morning, doors, clock, console.print, pace=REAL_TIME))
    console.print("The morning so far is told in under a minute; then it goes on in real time. Ctrl-C ends it.\n")
    await asyncio.wait({playing, server}, return_when=asyncio.FIRST_COMPLETED)
    if playing.done() and not playing.cancelled() and (error := playing.exception()) is not None:
        console.print(
            f"The synthetic hospital stopped: {error if isinstance(error, ArcuateError) else type(error).__name__}"
        )
        await server
    playing.cancel()
    with contextlib.suppress(asyncio.CancelledError, Exception):
        await playing
