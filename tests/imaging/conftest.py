"""A phantom head as a DICOM series, a stand-in for the model server, and the room as the rest of the house meets it."""

import asyncio
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from arcuate.house import House, HouseSettings, open_house
from arcuate.imaging.parsing import Parser
from arcuate.imaging.settings import ImagingSettings
from arcuate.kernel.codes import Json
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.fhir import bundle
from arcuate.kernel.fhir.client import FhirClient, call_operation
from arcuate.kernel.settings import SiteSettings

ROOT = "1.2.826.0.1.3680043.10.1234567.77"  # example root, test data only
SLICES, ROWS, COLUMNS, STEP = 60, 64, 56, 3.0


def head(z: float) -> np.ndarray[Any, np.dtype[np.uint16]]:
    """One axial slice of an ellipsoid head: columns run to the patient's left, rows to posterior; a bright ball on the LEFT."""
    x = (np.arange(COLUMNS) - (COLUMNS - 1) / 2) * STEP
    y = (np.arange(ROWS) - (ROWS - 1) / 2) * STEP
    across, down = np.meshgrid(x, y)
    grey = np.zeros((ROWS, COLUMNS), np.float32)
    grey[(across / 75) ** 2 + (down / 90) ** 2 + (z / 85) ** 2 <= 1] = 300
    grey[(across / 66) ** 2 + (down / 80) ** 2 + (z / 75) ** 2 <= 1] = 700
    grey[(across - 40) ** 2 + down**2 + z**2 <= 15**2] = 900
    return grey.astype(np.uint16)


def image(series: int, number: int, z: float) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.TransferSyntaxUID = MRImageStorage, ExplicitVRLittleEndian
    meta.MediaStorageSOPInstanceUID = f"{ROOT}.{series}.{number}"
    made = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
    made.SOPClassUID, made.SOPInstanceUID = MRImageStorage, meta.MediaStorageSOPInstanceUID
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = (
        f"{ROOT}.1",
        f"{ROOT}.{series}",
        f"{ROOT}.{series}.9",
    )
    made.PatientName, made.PatientID, made.PatientBirthDate, made.PatientSex = "Phantom^Test", "PH-1", "19700101", "O"
    made.AccessionNumber, made.StudyID, made.StudyDescription = "ACC-PH-1", "1", "MRI BRAIN"
    made.StudyDate = made.SeriesDate = made.ContentDate = "20260105"
    made.StudyTime = made.SeriesTime = made.ContentTime = "101500"
    made.ReferringPhysicianName, made.PositionReferenceIndicator = "", ""
    made.Modality, made.Manufacturer, made.SeriesNumber, made.InstanceNumber = "MR", "Phantom", series, number
    made.SeriesDescription, made.BodyPartExamined, made.ImageType = "T1 MPRAGE", "BRAIN", ["ORIGINAL", "PRIMARY", "M"]
    made.MRAcquisitionType, made.ScanningSequence, made.SequenceVariant, made.ScanOptions = "3D", "GR", "SP", ""
    made.RepetitionTime, made.EchoTime, made.EchoTrainLength = "2300", "2.98", "1"
    made.SliceThickness, made.PixelSpacing = str(STEP), [str(STEP), str(STEP)]
    made.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    made.ImagePositionPatient = [str(-(COLUMNS - 1) / 2 * STEP), str(-(ROWS - 1) / 2 * STEP), str(z)]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns, made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = (
        ROWS,
        COLUMNS,
        16,
        16,
        15,
        0,
    )
    made.PixelData = head(z).tobytes()
    return made


def write_series(
    folder: Path,
    change: Callable[[FileDataset, int], None] | None = None,
    keep: Callable[[int], bool] | None = None,
    series: int = 5,
) -> Path:
    """Write a whole series; `change` alters each image, `keep` says which are written."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(1, SLICES + 1):
        made = image(series, number, round((number - 1 - (SLICES - 1) / 2) * STEP, 3))
        if change:
            change(made, number)
            made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
        if keep is None or keep(number):
            made.save_as(folder / f"s{series}-{number:03d}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def write() -> Callable[..., Path]:
    """Writes phantom series."""
    return write_series


@pytest.fixture(scope="session")
def write_phantom() -> Callable[..., Path]:
    """Writes phantom series; for fixtures that live longer than a test."""
    return write_series


@pytest.fixture
def phantom(tmp_path: Path) -> Path:
    """A folder with one plain phantom series."""
    return write_series(tmp_path / "phantom")


@pytest.fixture
def parser() -> Iterator[Parser]:
    """A reading process."""
    with Parser() as parser:
        yield parser


# ---- a stand-in for the model server: it speaks the Open Inference Protocol over a real socket -----------------------

_FINDER, _SEGMENTER = (56, 64, 72), (80, 96, 96)
_MIDDLE = {"third": 14, "fourth": 15, "stem": 16}
_PAIRS = {
    4: 43, 5: 44, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54, 26: 58, 28: 60, 2: 41, 3: 42,
}  # fmt: skip
_BALLS = {  # label: right side's centre (x, y, z in mm from the middle of the brain) and radius; left is its mirror image
    43: ((14, -5, 15), 13), 44: ((30, -15, -12), 6), 46: ((20, -48, -38), 12), 47: ((30, -45, -40), 18), 49: ((12, -12, 5), 11),
    50: ((14, 20, 8), 9), 51: ((26, 8, 0), 10), 52: ((20, 2, -3), 6), 53: ((27, -18, -18), 9), 54: ((24, 2, -18), 7),
    58: ((10, 14, -8), 5), 60: ((9, -14, -10), 7),
}  # fmt: skip
_CENTRED = {14: ((0, -8, 0), 6), 15: ((0, -42, -30), 6), 16: ((0, -28, -42), 17)}
CLASSES = sorted({0, 24, *_PAIRS, *_PAIRS.values(), *_CENTRED})


def _atlas() -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Probabilities of an invented brain on the segmenter's grid of 2 mm, the same whatever the image: symmetric by making."""
    places = [(np.arange(n) - (n - 1) / 2) * 2.0 for n in _SEGMENTER]
    x, y, z = np.meshgrid(*places, indexing="ij")
    radius = np.sqrt((x / 66) ** 2 + (y / 80) ** 2 + (z / 75) ** 2)
    labels = np.zeros(_SEGMENTER, np.int64)
    labels[radius <= 1.04] = 24
    for limit, (left, right) in ((1.0, (3, 42)), (0.8, (2, 41))):
        labels[(radius <= limit) & (x < 0)], labels[(radius <= limit) & (x > 0)] = left, right
    for right_label, ((cx, cy, cz), r) in _BALLS.items():
        left_label = next(a for a, b in _PAIRS.items() if b == right_label)
        for side, label in ((1, right_label), (-1, left_label)):
            labels[(x - side * cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 <= r * r] = label
    for label, ((cx, cy, cz), r) in _CENTRED.items():
        labels[(x - cx) ** 2 + (y - cy) ** 2 + (z - cz) ** 2 <= r * r] = label
    return np.stack([(labels == c) * np.uint8(255) for c in CLASSES])[None].astype(np.uint8)


def _description(name: str, shape: tuple[int, ...], voxel: float, classes: list[int]) -> str:
    mirror = [[a, b] for a, b in _PAIRS.items()] if len(classes) > 2 else []
    return (
        f'name = "{name}"\nversion = "0-stand-in"\n[[inputs]]\nname = "image"\ndatatype = "FP32"\nshape = {[1, 1, *shape]}\n'
        f'[[outputs]]\nname = "probabilities"\ndatatype = "UINT8"\nshape = {[1, len(classes), *shape]}\n'
        f'[grid]\nvoxel_mm = {voxel}\nclasses = {classes}\nmirror = {mirror}\n[weights]\nsha256 = "{name.encode().hex():0<64}"\n'
    )


@dataclass
class StandIn:
    """Where the stand-in answers, which models folder describes it, and how it behaves.

    Attributes:
        delay_s: How long an answer takes. broken: it answers 503. calls: how often it was asked.
    """

    url: str
    models_dir: Path
    delay_s: float = 0.0
    broken: bool = False
    calls: int = 0


@pytest.fixture
def networks(tmp_path: Path) -> Iterator[StandIn]:
    """A model server that finds the bright ellipsoid and puts an invented brain into it."""
    models = tmp_path / "models"
    for name, shape, voxel, classes in (("brain-finder", _FINDER, 4.0, [0, 1]), ("brain-t1", _SEGMENTER, 2.0, CLASSES)):
        (models / name).mkdir(parents=True)
        (models / name / "model.toml").write_text(_description(name, shape, voxel, classes))
    atlas = _atlas()

    async def infer(request: Request) -> Response:
        stand_in.calls += 1
        if stand_in.broken:
            return Response(json.dumps({"error": "no"}), 503)
        await asyncio.sleep(stand_in.delay_s)
        body, length = await request.body(), int(request.headers["inference-header-content-length"])
        told = json.loads(body[:length])["inputs"][0]
        found = np.frombuffer(body[length:], np.float32).reshape(told["shape"])
        mask = ((found[:, 0] > 0.55) * np.uint8(255)).astype(np.uint8)
        answer = np.stack([255 - mask, mask], 1) if request.path_params["model"] == "brain-finder" else atlas
        blob = answer.tobytes()
        output = {
            "name": "probabilities", "datatype": "UINT8", "shape": list(answer.shape), "parameters": {"binary_data_size": len(blob)},
        }  # fmt: skip
        top = json.dumps({"model_name": request.path_params["model"], "outputs": [output]}).encode()
        return Response(
            top + blob,
            media_type="application/octet-stream",
            headers={"Inference-Header-Content-Length": str(len(top))},
        )

    port = free_port()
    app = Starlette(routes=[Route("/v2/models/{model}/infer", infer, methods=["POST"])])
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    stand_in = StandIn(f"http://127.0.0.1:{port}", models)
    yield stand_in
    server.should_exit = True
    thread.join()


# ---- the room ---------------------------------------------------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Desk:
    """The running room beside a real record, as journey and scanners meet it."""

    house: House
    http: httpx.AsyncClient
    fhir: FhirClient
    port: int
    settings: ImagingSettings

    @property
    def imaging(self) -> Any:
        return self.house.rooms["imaging"].app.state.imaging

    async def send(
        self, *paths: Path, ae_title: str = "ARCUATE", more: tuple[str, ...] = ()
    ) -> subprocess.CompletedProcess[str]:
        """Send files or folders by dcmtk's storescu."""
        command = ["storescu", "-v", "-aec", ae_title, "+sd", *more, "127.0.0.1", str(self.port), *map(str, paths)]
        return await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)

    async def study(self, within_s: float = 60) -> Json:
        """Return the ImagingStudy of all that was sent, once it stands in the record."""
        return (await self.studies(1, within_s))[0]

    async def studies(self, count: int, within_s: float = 60) -> list[Json]:
        await self.settled(within_s)
        end = time.monotonic() + within_s
        while len(found := await self.fhir.search("ImagingStudy", {})) < count:
            assert time.monotonic() < end, "no ImagingStudy came into the record"
            await asyncio.sleep(0.2)
        return found

    async def settled(self, within_s: float = 60) -> Json:
        """Return the room's own list once no study is being received any more."""
        end = time.monotonic() + within_s
        while True:
            listed = (await self.http.get("/imaging/studies")).json()
            if listed["studies"] and all(s["state"] == "settled" for s in listed["studies"]):
                return listed
            assert time.monotonic() < end, "the study does not settle"
            await asyncio.sleep(0.2)

    async def quantify(self, *resources: Json, within_s: float = 120) -> Json:
        """Ask until the answer is there, as journey does."""
        end = time.monotonic() + within_s
        while True:
            try:
                return await call_operation(self.http, "/imaging/ImagingStudy/$quantify", bundle.collection(resources))
            except Unavailable as error:
                assert error.code == "incomplete" and time.monotonic() < end, str(error)
                await asyncio.sleep(0.3)


@pytest.fixture
async def desk(tmp_path: Path, networks: StandIn, request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    """The imaging room with record and access; the networks answer at the address of the stand-in."""
    if shutil.which("storescu") is None:
        request.getfixturevalue("storescu")
    asked = getattr(request, "param", {})
    settings = ImagingSettings(port=free_port(), free_gib=0.0, **({"quiet_s": 0.5} | asked))
    house_settings = HouseSettings(data_dir=tmp_path / "data", models_dir=networks.models_dir, house_url=networks.url)
    site = SiteSettings(time_zone="Europe/Zurich", synthetic=True)
    rooms = ["access", "record", "imaging"]
    async with open_house(house_settings, site, rooms=rooms, room_settings={"imaging": settings}) as house:
        http = house.contexts["record"].http
        yield Desk(house, http, FhirClient(http), settings.port, settings)


@pytest.fixture
def uid() -> Callable[[], str]:
    """Makes fresh UIDs."""
    return lambda: str(generate_uid(prefix=f"{ROOT}."))
