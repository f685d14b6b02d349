"""The real head through the real networks: by a folder and by storescu the same volumes; what comes of it is legal."""

import asyncio
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from arcuate.house import House, HouseSettings, open_house
from arcuate.imaging import structures
from arcuate.imaging.oip_client import OipClient
from arcuate.imaging.quantify import quantify
from arcuate.imaging.settings import ImagingSettings
from arcuate.imaging.sr import read_volumes
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.fhir import bundle, strict
from arcuate.kernel.fhir.client import FhirClient, call_operation
from arcuate.kernel.settings import SiteSettings

ROOT = Path(__file__).parents[2]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[tuple[House, int]]:
    if not (ROOT / "models" / "brain-t1" / "model.toml").exists():
        pytest.skip("models/brain-t1 is not there")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    settings, site = HouseSettings(data_dir=tmp_path / "data"), SiteSettings(time_zone="Europe/Berlin")
    own = {"imaging": ImagingSettings(port=port, quiet_s=1)}
    async with open_house(
        settings, site, rooms=["access", "record", "inference", "imaging"], room_settings=own
    ) as house:
        yield house, port


async def by_c_store(house: House, port: int, folder: Path, storescu: str) -> tuple[Any, Any]:
    """Return the ImagingStudy of the record and the answer to $quantify."""
    command = [storescu, "-aec", "ARCUATE", "+sd", "127.0.0.1", str(port), str(folder)]
    assert (await asyncio.to_thread(subprocess.run, command, check=False)).returncode == 0
    http, end = house.contexts["record"].http, time.monotonic() + 300
    while not (found := await FhirClient(http).search("ImagingStudy", {})):
        assert time.monotonic() < end
        await asyncio.sleep(0.5)
    while True:
        try:
            return found[0], await call_operation(http, "/imaging/ImagingStudy/$quantify", bundle.collection(found))
        except Unavailable as error:
            assert error.code == "incomplete" and time.monotonic() < end
            await asyncio.sleep(1)


@pytest.mark.long
async def test_folder_and_storescu_give_the_same_volumes_and_everything_is_legal(
    house: tuple[House, int], shared: Path, tmp_path: Path, storescu: str, dciodvfy: str
) -> None:
    subprocess.run(
        ["tar", "xJf", shared / "data/imaging/dicom_t1_studyforrest/dicom_t1_studyforrest.tar.xz", "-C", tmp_path],
        check=True,
    )
    folder, out = tmp_path / "dicom_t1_studyforrest", tmp_path / "out"
    study, answer = await by_c_store(*house, folder, storescu)
    result = await quantify(folder, out, ROOT / "models", OipClient(house[0].contexts["imaging"].http))
    by_store = {
        (o["code"]["coding"][0]["code"], o["bodySite"]["text"]): o["valueQuantity"]["value"]
        for o in bundle.of_type(answer, "Observation")
    }
    by_folder = {
        (m.structure, structures.part(m.structure, m.side).title): m.value for m in result.measurement.finding.measured
    }
    assert {key: float(value) for key, value in by_store.items()} == by_folder
    assert result.dropped == ("PatientAge breaks the form of a value of type AS",)
    _check_objects(out, by_folder, dciodvfy)
    _check_fhir(shared, tmp_path, study, answer)


def _check_objects(out: Path, by_folder: dict[tuple[str, str], float], dciodvfy: str) -> None:
    from pydicom import dcmread

    for name in ("segmentation.dcm", "measurements.dcm"):
        said = subprocess.run([dciodvfy, out / name], capture_output=True, text=True, check=False).stderr
        assert [line for line in said.splitlines() if line.startswith("Error")] == []
    back = read_volumes(dcmread(out / "measurements.dcm"))
    assert {(m.structure, structures.part(m.structure, m.side).title): m.value for m in back} == by_folder
    assert json.loads((out / "volumes.json").read_text())["left_out_of_objects"]


def _check_fhir(shared: Path, folder: Path, study: Any, answer: Any) -> None:
    """The independent referee, where it is set up."""
    cache = Path(os.environ.get("ARCUATE_REFEREE_CACHE", Path.home() / ".cache/arcuate-referee"))
    if shutil.which("node") is None or not cache.exists():
        return
    (folder / "study.json").write_bytes(strict.dumps(study))
    (folder / "answer.json").write_bytes(strict.dumps(answer))
    referee = shared / "tools/fhir-referee/fhir-referee"
    said = subprocess.run(
        [referee, folder / "study.json", folder / "answer.json"], capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stdout[-2000:]
