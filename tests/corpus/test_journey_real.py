"""A real order and a real series become one journey: measured, drafted, signed, delivered.

The message is a single-order ORM for a brain MRI of the corpus, the series a real T1-weighted head. One accession number and one patient
identifier are written into copies of both; nothing else is changed.
"""

import tarfile
from pathlib import Path

import pydicom
import pytest
from journey_world import World

from arcuate.kernel.hl7v2.mllp import MllpClient

pytestmark = pytest.mark.timeout(900)  # a network measures a whole head here

ACCESSION, NUMBER = "REAL0001", "PAT002"
ORDER = "pacsbridge/pacsbridge_0067_ORM-O01.hl7"
CHANGES = {"ORC": {3: ACCESSION}, "OBR": {3: ACCESSION}, "PID": {3: NUMBER}}


def with_numbers(raw: bytes, changes: dict[str, dict[int, str]]) -> bytes:
    """Return a copy of a message in which single fields hold other values."""
    ending = b"\r\n" if b"\r\n" in raw else b"\n" if b"\n" in raw else b"\r"
    segments = []
    for segment in raw.split(ending):
        fields = segment.split(b"|")
        for number, value in changes.get(fields[0].decode("latin-1"), {}).items():
            fields += [b""] * (number + 1 - len(fields))
            fields[number] = value.encode()
        segments.append(b"|".join(fields))
    return ending.join(segments)


@pytest.fixture(scope="module")
def series(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The studyforrest head, with the accession and patient number of the order."""
    folder = tmp_path_factory.mktemp("head")
    with tarfile.open(shared / "data/imaging/dicom_t1_studyforrest/dicom_t1_studyforrest.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    for path in folder.rglob("*"):
        if path.is_file():
            dataset = pydicom.dcmread(path)
            dataset.AccessionNumber, dataset.PatientID = ACCESSION, NUMBER
            dataset.save_as(path)
    return folder


async def test_a_real_order_and_real_images_become_a_delivered_report(
    world: World, shared: Path, series: Path, storescu: str
) -> None:
    raw = with_numbers((shared / "data/hl7v2/messages" / ORDER).read_bytes(), CHANGES)
    async with MllpClient("127.0.0.1", world.mllp_port, 20) as ris:
        assert b"MSA|AA" in await ris.send(raw)
    await world.until_case(ACCESSION, lambda case: "checked" in {step["stage"] for step in case["steps"]})

    await world.send_images(storescu, series)
    await world.until_case(ACCESSION, lambda case: any("Measured" in step["note"] for step in case["steps"]), 240)
    draft = await world.dictation.next(lambda m: ACCESSION in m and "|NM|" in m)

    volumes = {
        line.split("|")[3].split("^")[1]: float(line.split("|")[5])
        for line in draft.split("\r")
        if line.startswith("OBX") and "|NM|" in line
    }
    brain = sum(ml for name, ml in volumes.items() if "white matter" in name.lower() and "cerebell" not in name.lower())
    assert 200 < brain < 800, volumes

    final = (
        "MSH|^~\\&|DICT|X|ARCUATE|X|20260317120000+0100||ORU^R01^ORU_R01|R1|P|2.5.1\r"
        f"PID|1||{NUMBER}\r"
        f"OBR|1||{ACCESSION}|MR-BRAIN|||||||||||||||{ACCESSION}||||||MR|F\r"
        "OBX|1|TX|MR-BRAIN^Report||Read and signed.||||||F\r"
    )
    assert await world.send(final) == "AA"
    await world.until(ACCESSION, "delivered")
    assert "Read and signed." in world.reports.received[-1]
