"""DICOMweb: what is stored comes back byte for byte; nothing about a patient stands in an address."""

from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydicom import dcmread

BOUNDARY = "part-of-a-test"


def multipart(files: list[bytes]) -> dict[str, Any]:
    parts = b"".join(
        b"--" + BOUNDARY.encode() + b"\r\nContent-Type: application/dicom\r\n\r\n" + f + b"\r\n" for f in files
    )
    kind = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    return {"content": parts + f"--{BOUNDARY}--\r\n".encode(), "headers": {"Content-Type": kind}}


def parts_of(response: httpx.Response) -> list[bytes]:
    boundary = response.headers["content-type"].split("boundary=")[1]
    pieces = response.content.split(f"--{boundary}".encode())[1:-1]
    return [piece.split(b"\r\n\r\n", 1)[1][:-2] for piece in pieces]


@pytest.fixture
def files(phantom: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(phantom.iterdir())[28:31]]


async def test_f050_a_damaged_part_fails_alone_with_its_reason(desk: Any, files: list[bytes]) -> None:
    answer = await desk.http.post("/dicom-web/studies", **multipart([files[0], files[1][:-500], b"hello"]))
    assert answer.status_code == 202
    assert [i["00081197"]["Value"] for i in answer.json()["00081198"]["Value"]] == [[0xC000], [0xC000]]
    assert len(answer.json()["00081199"]["Value"]) == 1
    assert (await desk.http.post("/dicom-web/studies", **multipart([files[1][:-500]]))).status_code == 409


async def test_a_part_of_another_study_is_refused(desk: Any, files: list[bytes]) -> None:
    answer = await desk.http.post("/dicom-web/studies/1.2.3", **multipart(files[:1]))
    assert answer.status_code == 409
    assert answer.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xA900]


@pytest.mark.parametrize(
    "kind", ["application/json", "multipart/form-data; boundary=x", 'multipart/related; type="text/xml"; boundary=x']
)
async def test_another_form_is_refused(desk: Any, kind: str) -> None:
    answer = await desk.http.post("/dicom-web/studies", content=b"--x--", headers={"Content-Type": kind})
    assert answer.status_code == 415


async def test_a_broken_multipart_is_refused_and_leaves_nothing(desk: Any, tmp_path: Path) -> None:
    broken = {**multipart([]), "content": b"no boundary at all"}
    assert (await desk.http.post("/dicom-web/studies", **broken)).status_code == 400
    assert list((tmp_path / "data" / "imaging" / "spool" / "incoming").iterdir()) == []


async def test_f082_a_search_by_patient_is_not_offered(desk: Any) -> None:
    answer = await desk.http.get("/dicom-web/studies", params={"PatientID": "PH-1"})
    assert answer.status_code == 400
    assert "PH-1" not in answer.text


async def test_without_a_token_nothing_is_told(desk: Any) -> None:
    async with httpx.AsyncClient(transport=httpx.ASGITransport(desk.house.app), base_url="http://house") as stranger:
        assert (await stranger.get("/dicom-web/studies")).status_code == 401
        assert (await stranger.post("/dicom-web/studies")).status_code == 401


async def test_what_is_stored_is_found_and_comes_back_byte_for_byte(desk: Any, files: list[bytes]) -> None:
    stored = await desk.http.post("/dicom-web/studies", **multipart(files))
    assert stored.status_code == 200
    first = dcmread(BytesIO(files[0]))
    study, series = first.StudyInstanceUID, first.SeriesInstanceUID
    found = (await desk.http.get("/dicom-web/studies", params={"AccessionNumber": "ACC-PH-1"})).json()
    assert [item["0020000D"]["Value"] for item in found] == [[study]]
    assert found[0]["00201208"]["Value"] == [3]
    assert (await desk.http.get("/dicom-web/studies", params={"AccessionNumber": "none"})).json() == []
    listed = (await desk.http.get(f"/dicom-web/studies/{study}/series")).json()
    assert [item["0020000E"]["Value"][0] for item in listed] == [series]
    instances = (await desk.http.get(f"/dicom-web/studies/{study}/series/{series}/instances")).json()
    assert len(instances) == 3
    back = await desk.http.get(f"/dicom-web/studies/{study}")
    assert sorted(parts_of(back)) == sorted(files)
    one = await desk.http.get(f"/dicom-web/studies/{study}/series/{series}/instances/{first.SOPInstanceUID}")
    assert parts_of(one) == [files[0]]
    metadata = (await desk.http.get(f"/dicom-web/studies/{study}/metadata")).json()
    assert {item["00080018"]["Value"][0] for item in metadata} == {dcmread(BytesIO(f)).SOPInstanceUID for f in files}


async def test_the_fields_own_client_understands_us(desk: Any, files: list[bytes]) -> None:
    """dicomweb-client against the same app, through a real HTTP server."""
    import asyncio
    import threading
    import time

    import requests
    import uvicorn
    from dicomweb_client.api import DICOMwebClient

    stored = await desk.http.post("/dicom-web/studies", **multipart(files))
    assert stored.status_code == 200
    server = uvicorn.Server(uvicorn.Config(_as_room(desk), port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]

    def ask() -> list[Any]:
        client = DICOMwebClient(f"http://127.0.0.1:{port}/dicom-web", session=requests.Session())
        study = client.search_for_studies()[0]["0020000D"]["Value"][0]
        return list(client.retrieve_study(study))

    try:
        back = await asyncio.to_thread(ask)
    finally:
        server.should_exit = True
        await asyncio.to_thread(thread.join)
    assert {d.SOPInstanceUID for d in back} == {dcmread(BytesIO(f)).SOPInstanceUID for f in files}


def _as_room(desk: Any) -> Any:
    """The house's app behind a server in another thread: requests are handed to the test's own loop with a room's token."""
    import asyncio

    loop = asyncio.get_running_loop()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def call() -> httpx.Response:
            path = scope["path"] + (f"?{scope['query_string'].decode()}" if scope["query_string"] else "")
            return await desk.http.request(scope["method"], path)

        response = await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(call(), loop))
        kind = response.headers["content-type"].encode()
        await send(
            {"type": "http.response.start", "status": response.status_code, "headers": [(b"content-type", kind)]}
        )
        await send({"type": "http.response.body", "body": response.content})

    return app
