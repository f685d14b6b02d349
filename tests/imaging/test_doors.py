"""Doors beside C-STORE and STOW: fetching from a PACS by DICOMweb, storage commitment."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from pydicom import Dataset, dcmread
from pynetdicom import AE, evt
from pynetdicom.sop_class import StorageCommitmentPushModel
from starlette.types import ASGIApp, Receive, Scope, Send

from arcuate.house import HouseSettings, open_house
from arcuate.imaging import sending
from arcuate.imaging.settings import ImagingSettings
from arcuate.kernel.errors import Refused, Unavailable
from arcuate.kernel.settings import SiteSettings

from .conftest import ROOT, free_port

STUDY = f"{ROOT}.1"


class WithToken:
    """Another house's DICOMweb as a PACS would stand in a network: this puts its token before every call."""

    def __init__(self, app: ASGIApp, authorization: str) -> None:
        self._app, self._authorization = app, authorization.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", self._authorization)]}
        await self._app(scope, receive, send)


@pytest.fixture
async def pacs(tmp_path: Path, phantom: Path) -> AsyncIterator[str]:
    """A second house that holds the phantom study; the base address of its DICOMweb."""
    settings = ImagingSettings(port=free_port(), quiet_s=0.1, free_gib=0.0)
    home = HouseSettings(data_dir=tmp_path / "pacs", models_dir=tmp_path)
    async with open_house(
        home, SiteSettings(time_zone="UTC"), rooms=["access", "imaging"], room_settings={"imaging": settings}
    ) as house:
        spooled = house.rooms["imaging"].app.state.imaging
        http = house.contexts["imaging"].http
        sent = await http.send(http.build_request("GET", "/imaging/studies"))
        app = WithToken(house.rooms["imaging"].app, sent.request.headers["authorization"])
        server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
        serving = asyncio.create_task(server.serve())
        while not server.started:
            await asyncio.sleep(0.02)
        boundary, body = "b", b""
        for path in sorted(phantom.iterdir()):
            body += b"--b\r\nContent-Type: application/dicom\r\n\r\n" + path.read_bytes() + b"\r\n"
        kind = f'multipart/related; type="application/dicom"; boundary={boundary}'
        stored = await http.post("/dicom-web/studies", content=body + b"--b--\r\n", headers={"Content-Type": kind})
        assert stored.status_code == 200 and spooled.spool.used > 0
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/dicom-web"
        server.should_exit = True
        await serving


async def _jobs(desk: Any, count: int = 1, within_s: float = 60) -> Any:
    end = time.monotonic() + within_s
    while True:
        told = (await desk.http.get("/imaging/jobs")).json()
        if len(told["parked"]) >= count:
            return told
        assert time.monotonic() < end, told
        await asyncio.sleep(0.1)


async def test_a_study_is_fetched_whole_and_what_the_pacs_lacks_is_parked_in_words(
    desk: Any, pacs: str, phantom: Path, tmp_path: Path
) -> None:
    assert (await desk.http.post("/imaging/pull", json={"study": STUDY})).status_code >= 400  # no PACS is set up
    object.__setattr__(desk.imaging.settings, "pacs_web", "http://127.0.0.1:9")  # nobody answers there
    assert (await desk.http.post("/imaging/pull", json={"study": "not a uid"})).status_code == 400
    assert (await desk.http.post("/imaging/pull", json=[])).status_code == 400
    assert (await desk.http.post("/imaging/pull", json={"study": "2.25.1"})).status_code == 202
    await asyncio.sleep(0.5)
    assert (await desk.http.get("/imaging/jobs")).json()["parked"] == []  # away is no reason to give up
    object.__setattr__(desk.imaging.settings, "pacs_web", pacs)
    assert (await desk.http.post("/imaging/pull", json={"study": "2.25.2"})).status_code == 202
    (parked,) = (await _jobs(desk))["parked"]
    assert "no such study" in parked["reason"]
    assert (await desk.http.post("/imaging/pull", json={"study": STUDY})).status_code == 202
    study = await desk.study()
    assert study["numberOfInstances"] == 60
    (listed,) = (await desk.settled())["studies"]
    assert listed["objects"] == {"used": 60}
    assert (listed["whole_by"], listed["missing"]) == ("PACS", "")
    await _results_go_there_by_stow(pacs, phantom, tmp_path)


async def _results_go_there_by_stow(pacs: str, phantom: Path, folder: Path) -> None:
    one, broken = sorted(phantom.iterdir())[0], folder / "broken.dcm"
    await sending.stow([one], pacs, "")
    broken.write_bytes(one.read_bytes()[:2000])
    with pytest.raises(Refused, match="HTTP"):
        await sending.stow([broken], pacs, "")
    with pytest.raises(Unavailable, match="does not answer"):
        await sending.stow([one], "http://127.0.0.1:9/dicom-web", "")


COMMITTED = free_port()


@pytest.mark.parametrize("desk", [{"commitment_to": f"SCANNER=127.0.0.1:{COMMITTED}"}], indirect=True)
async def test_storage_commitment_says_which_objects_lie_here_and_which_do_not(desk: Any, phantom: Path) -> None:
    reports: list[tuple[int, Dataset]] = []

    def report(event: Any) -> tuple[int, None]:
        reports.append((event.event_type, event.event_information))
        return 0x0000, None

    listener = AE(ae_title="SCANNER")
    listener.add_supported_context(StorageCommitmentPushModel, scu_role=False, scp_role=True)
    server = listener.start_server(
        ("127.0.0.1", COMMITTED), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, report)]
    )
    try:
        first = dcmread(sorted(phantom.iterdir())[0])
        await desk.send(sorted(phantom.iterdir())[0])
        held = (str(first.SOPClassUID), str(first.SOPInstanceUID))
        for known, named in enumerate([[held], [held, (held[0], "1.2.3.4")], [("1.2.3", held[1])]]):
            status = await asyncio.to_thread(_commit, desk.port, "SCANNER", named)
            assert status == 0x0000
            end = time.monotonic() + 30
            while len(reports) <= known:
                assert time.monotonic() < end, "no report came"
                await asyncio.sleep(0.05)
        assert [kind for kind, _ in reports] == [1, 2, 2]
        assert [len(r.get("ReferencedSOPSequence", [])) for _, r in reports] == [1, 1, 0]
        assert reports[1][1].FailedSOPSequence[0].ReferencedSOPInstanceUID == "1.2.3.4"
        assert reports[1][1].FailedSOPSequence[0].FailureReason == 0x0112
        assert await asyncio.to_thread(_commit, desk.port, "STRANGER", [held]) == 0x0110
    finally:
        server.shutdown()


def _commit(port: int, ae_title: str, named: list[tuple[str, str]]) -> int:
    ae = AE(ae_title=ae_title)
    ae.add_requested_context(StorageCommitmentPushModel)
    association = ae.associate("127.0.0.1", port, ae_title="ARCUATE")
    assert association.is_established
    asked = Dataset()
    asked.TransactionUID = "2.25.5"
    asked.ReferencedSOPSequence = []
    for sop_class, sop_uid in named:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_uid
        asked.ReferencedSOPSequence.append(item)
    status, _ = association.send_n_action(asked, 1, StorageCommitmentPushModel, "1.2.840.10008.1.20.1.1")
    association.release()
    return int(status.Status)
