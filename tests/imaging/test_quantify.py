"""From a study to volumes: the same by every way in, refused with a reason, kept and sent."""

import asyncio
import json
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import nibabel
import numpy as np
import pytest
from PIL import Image
from pydicom import dcmread
from rich.console import Console

from arcuate.imaging import interval, segmentation, structures
from arcuate.imaging.domain import NotMeasurable, RefusalCode
from arcuate.imaging.oip_client import OipClient
from arcuate.imaging.quantify import quantify
from arcuate.imaging.sr import read_volumes
from arcuate.kernel.codes import Json
from arcuate.kernel.errors import BadInput, Unavailable
from arcuate.kernel.fhir import bundle, types
from arcuate.kernel.fhir.client import call_operation

Write = Callable[..., Path]


def values(answer: Json) -> dict[tuple[str, str], str]:
    """Structure and side in words to the value as it is written."""
    return {
        (o["code"]["coding"][0]["code"], o["bodySite"]["text"]): str(o["valueQuantity"]["value"])
        for o in bundle.of_type(answer, "Observation")
        if "valueQuantity" in o
    }


async def from_folder(path: Path, networks: Any, out: Path | None = None) -> Any:
    async with httpx.AsyncClient(base_url=networks.url) as http:
        return await quantify(path, out, networks.models_dir, OipClient(http))


def parked(desk: Any) -> Any:
    return desk.http.get("/imaging/jobs")


# ---- refused ---------------------------------------------------------------------------------------------------------


async def test_a_bundle_without_a_study_is_bad_input(desk: Any) -> None:
    with pytest.raises(BadInput):
        await call_operation(desk.http, "/imaging/ImagingStudy/$quantify", bundle.collection([]))


async def test_images_that_are_not_here_are_a_refusal_with_what_to_do(desk: Any) -> None:
    study = {
        "resourceType": "ImagingStudy", "id": "s1", "status": "available", "subject": {"reference": "Patient/p1"},
        "identifier": [{"system": "urn:dicom:uid", "value": "urn:oid:1.2.3"}],
    }  # fmt: skip
    (refusal,) = bundle.of_type(await desk.quantify(study), "Observation")
    types.validate(refusal)
    assert [c["code"] for c in refusal["dataAbsentReason"]["coding"]] == ["not-performed", RefusalCode.GONE]
    assert "PACS" in refusal["note"][1]["text"]


async def test_f053_a_study_with_a_hole_is_refused_in_words_and_measured_once_it_is_whole(
    desk: Any, write: Write, tmp_path: Path
) -> None:
    whole = write(tmp_path / "whole")
    held_back = sorted(whole.iterdir())[20:22]
    await desk.send(*[p for p in sorted(whole.iterdir()) if p not in held_back])
    study = await desk.study()
    (refusal,) = bundle.of_type(await desk.quantify(study), "Observation")
    assert "Slices are missing" in refusal["note"][0]["text"]
    assert refusal["dataAbsentReason"]["coding"][1]["code"] == RefusalCode.INCOMPLETE
    await desk.send(*held_back)
    await desk.settled()
    answer = await desk.quantify(await desk.fhir.read("ImagingStudy", study["id"]))
    assert len(values(answer)) > 20
    taken_back = [o for o in bundle.of_type(answer, "Observation") if o["status"] == "cancelled"]
    assert [o["identifier"] for o in taken_back] == [refusal["identifier"]]


async def test_f051_a_study_of_two_patients_is_refused(desk: Any, phantom: Path) -> None:
    files = sorted(phantom.iterdir())
    await desk.send(*files)
    study = await desk.study()
    made = dcmread(files[-1])
    made.PatientID, made.SOPInstanceUID = "PH-2", "1.2.3.4"
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    made.save_as(files[-1])
    await desk.send(files[-1])
    await desk.settled()
    (refusal,) = bundle.of_type(await desk.quantify(study), "Observation")
    assert refusal["dataAbsentReason"]["coding"][1]["code"] == RefusalCode.IDENTITY
    assert "PH-2" not in json.dumps(refusal, default=str)


async def test_f061_networks_that_do_not_answer_keep_the_question_open(desk: Any, networks: Any, phantom: Path) -> None:
    networks.broken = True
    await desk.send(phantom)
    study = await desk.study()
    for _ in range(3):
        with pytest.raises(Unavailable) as caught:
            await call_operation(desk.http, "/imaging/ImagingStudy/$quantify", bundle.collection([study]))
        assert caught.value.code == "incomplete"
        await asyncio.sleep(0.2)
    assert (await parked(desk)).json()["parked"] == []


async def test_without_a_model_the_refusal_says_so(networks: Any, phantom: Path) -> None:
    (networks.models_dir / "brain-t1" / "model.toml").unlink()
    with pytest.raises(NotMeasurable) as caught:
        await from_folder(phantom, networks)
    assert caught.value.refusal.code == RefusalCode.NO_MODEL


# ---- right -----------------------------------------------------------------------------------------------------------


async def test_folder_and_c_store_give_the_same_volumes(
    desk: Any, networks: Any, phantom: Path, tmp_path: Path
) -> None:
    result = await from_folder(phantom, networks, tmp_path / "out")
    await desk.send(phantom)
    answer = await desk.quantify(await desk.study())
    told = json.loads((tmp_path / "out" / "volumes.json").read_text())
    assert values(answer) == {
        (v["structure"], structures.part(v["structure"], v["side"]).title): str(v["ml"]) for v in told["volumes"]
    }
    report = dcmread(tmp_path / "out" / "measurements.dcm")
    assert [(m.structure, m.side, m.value) for m in read_volumes(report)] == [
        (m.structure, m.side, m.value) for m in result.measurement.finding.measured
    ]


async def test_volumes_are_what_the_phantom_holds(networks: Any, phantom: Path) -> None:
    ml = {(m.structure, m.side): m.value for m in (await from_folder(phantom, networks)).measurement.finding.measured}
    assert ml["hippocampus", "left"] == pytest.approx(4 / 3 * np.pi * 0.9**3, rel=0.15)
    # Alike to a voxel or two: the mirror image is asked on a grid of its own.
    assert ml["hippocampus", "left"] == pytest.approx(ml["hippocampus", "right"], rel=0.002)
    assert ml["hippocampus", "bilateral"] == pytest.approx(2 * ml["hippocampus", "left"], abs=0.002)
    assert ml["brainstem", None] == pytest.approx(4 / 3 * np.pi * 1.7**3, rel=0.15)


async def test_the_answer_is_legal_fhir_and_says_what_it_is(desk: Any, phantom: Path) -> None:
    await desk.send(phantom)
    study = await desk.study()
    types.validate(study)
    person = {"reference": f"Patient/{(await desk.fhir.create({'resourceType': 'Patient'}))['id']}"}
    order = {"resourceType": "ServiceRequest", "id": "o1", "status": "active", "intent": "order", "subject": person}
    joined = {k: v for k, v in study.items() if k != "contained"} | {"subject": person}
    answer = await desk.quantify(joined, order)
    observations = bundle.of_type(answer, "Observation")
    for observation in observations:
        types.validate(observation)
        assert observation["status"] == "preliminary"
        assert observation["subject"] == person
        assert observation["basedOn"] == [{"reference": "ServiceRequest/o1"}]
        assert observation["derivedFrom"] == [{"reference": f"ImagingStudy/{study['id']}"}]
        assert observation["valueQuantity"]["code"] == "mL"
        assert "Research use only" in observation["note"][0]["text"]
        model = observation["contained"][0]
        assert {v["type"]["text"] for v in model["version"]} >= {"brain-t1 version", "brain-t1 weights SHA-256"}
    sides = {
        o["bodySite"]["coding"][1]["code"]
        for o in observations
        if o["bodySite"]["text"] in ("Left hippocampus", "Right hippocampus")
    }
    assert sides == {"7771000", "24028007"}
    assert len({o["identifier"][0]["value"] for o in observations}) == len(observations)

    # Twice as large a year ago, says the record: told once the limit of measurement error is passed.
    then = next(o for o in observations if o["bodySite"]["text"] == "Left hippocampus")
    value = then["valueQuantity"] | {"value": 2 * then["valueQuantity"]["value"]}
    old = {k: v for k, v in then.items() if k not in ("basedOn", "derivedFrom", "identifier")}
    await desk.fhir.create(old | {"effectiveDateTime": "2025-01-05", "valueQuantity": value})
    again = bundle.of_type(await desk.quantify(joined, order), "Observation")
    told = {(o["bodySite"]["text"], c["code"]["coding"][0]["code"]): c for o in again for c in o.get("component", [])}
    assert [key for key in told if key[1] == "change"] == [("Left hippocampus", "change")]
    assert float(told["Left hippocampus", "change"]["valueQuantity"]["value"]) == -50
    assert told["Left hippocampus", "change"]["interpretation"][0]["text"] == "beyond measurement error"
    assert told["Both sides, hippocampus", "asymmetry"]["interpretation"][0]["text"] == "within measurement error"


async def test_a_value_states_the_interval_of_heads_of_known_volumes_in_place_of_what_the_network_is_sure_of(
    desk: Any, networks: Any, phantom: Path
) -> None:
    revision = tomllib.loads(segmentation.RULES.read_text(encoding="utf-8"))["revision"]
    model = tomllib.loads((networks.models_dir / "brain-t1" / "model.toml").read_text(encoding="utf-8"))
    known = interval.Intervals({f"{kind}-whole": {"hippocampus": (0.9, 1.2)} for kind in ("fine", "thick")})
    text = interval.written({"version": f"{model['version']} r{revision}"}, known)
    (networks.models_dir / "brain-t1" / interval.FILE).write_text(text)
    await desk.send(phantom)
    observations = bundle.of_type(await desk.quantify(await desk.study()), "Observation")
    [both] = [o for o in observations if o["bodySite"]["text"] == "Both sides, hippocampus"]
    ends = {c["code"]["coding"][0]["code"]: c["valueQuantity"] for c in both["component"]}
    value = float(both["valueQuantity"]["value"])
    assert {k: float(v["value"]) for k, v in ends.items() if k.startswith("p")} == pytest.approx(
        {"p10": 0.9 * value, "p90": 1.2 * value}, rel=0.005
    )
    assert {v["code"] for k, v in ends.items() if k.startswith("p")} == {"mL"}
    assert not {"sure", "possible"} & set(ends)
    types.validate(both)


async def test_asking_twice_measures_once(desk: Any, networks: Any, phantom: Path) -> None:
    await desk.send(phantom)
    study = await desk.study()
    first = await desk.quantify(study)
    calls = networks.calls
    assert values(await desk.quantify(study)) == values(first)
    assert networks.calls == calls


async def test_while_it_measures_it_says_when_to_ask_again_and_the_doors_stay_open(
    desk: Any, networks: Any, phantom: Path
) -> None:
    networks.delay_s = 1.0
    await desk.send(phantom)
    study = await desk.study()
    body = bundle.collection([study])
    from arcuate.kernel.fhir import strict

    headers = {"Content-Type": "application/fhir+json"}
    answer = await desk.http.post("/imaging/ImagingStudy/$quantify", content=strict.dumps(body), headers=headers)
    assert answer.status_code == 202
    assert int(answer.headers["Retry-After"]) >= 1
    said = await asyncio.to_thread(
        subprocess.run, ["echoscu", "-aec", "ARCUATE", "127.0.0.1", str(desk.port)], capture_output=True, check=False
    )
    assert said.returncode == 0
    assert values(await desk.quantify(study))


async def test_the_pictures_of_a_measured_study(desk: Any, phantom: Path) -> None:
    await desk.send(phantom)
    study = await desk.study()
    assert (await desk.http.get(f"/imaging/studies/{study['id']}/picture.png")).status_code == 404
    await desk.quantify(study)
    for path in ("picture.png", "picture.png?structure=brainstem&outline=false", "qc.png"):
        answer = await desk.http.get(f"/imaging/studies/{study['id']}/{path}")
        assert Image.open(BytesIO(answer.content)).format == "PNG"
    outlines = (await desk.http.get(f"/imaging/studies/{study['id']}/outlines?structure=hippocampus")).json()
    assert [p["title"] for p in outlines["paths"]] == ["Left hippocampus", "Right hippocampus"]
    told = (await desk.http.get(f"/imaging/studies/{study['id']}/measurement")).json()
    assert told["result"]["series"]["reason"].startswith("Series 5 (T1 MPRAGE): 3D acquisition")
    assert (await desk.http.get(f"/imaging/studies/{study['id']}/picture.png?structure=toe")).status_code == 404


async def test_segmentation_and_report_are_served_with_the_study(desk: Any, phantom: Path) -> None:
    await desk.send(phantom)
    study = await desk.study()
    await desk.quantify(study)
    uid = study["identifier"][0]["value"].removeprefix("urn:oid:")
    listed = (await desk.http.get(f"/dicom-web/studies/{uid}/series")).json()
    assert sorted(item["00080060"]["Value"][0] for item in listed) == ["MR", "OT", "SEG", "SR"]


async def test_a_nifti_gets_a_label_map_on_its_own_grid(networks: Any, phantom: Path, tmp_path: Path) -> None:
    """The phantom as a left-handed NIfTI: the same volumes, labels on its own voxels, left on the left."""
    by_folder = await from_folder(phantom, networks)
    volume = by_folder.measurement.volume
    flipped = volume.affine @ np.diag([-1.0, 1, 1, 1])
    flipped[:3, 3] = volume.affine[:3, 3] + volume.affine[:3, 0] * (volume.data.shape[0] - 1)
    image = nibabel.Nifti1Image(np.zeros(1), None)
    with tmp_path.joinpath("head.nii.gz").open("wb"):
        pass
    data = np.stack([_slice(k) for k in range(60)], axis=2)
    image = nibabel.Nifti1Image(data[::-1], flipped)
    image.set_sform(flipped, code=1)
    image.to_filename(tmp_path / "head.nii.gz")
    result = await from_folder(tmp_path / "head.nii.gz", networks, tmp_path / "out")
    assert result.measurement.finding.measured == by_folder.measurement.finding.measured
    assert set(result.files) == {"volumes", "picture", "labels"}
    labels = nibabel.load(tmp_path / "out" / "labels.nii.gz")
    assert labels.shape == data.shape
    np.testing.assert_allclose(labels.affine, flipped, atol=1e-4)
    found = np.argwhere(np.asarray(labels.dataobj) == 17)
    assert (labels.affine @ np.append(found.mean(axis=0), 1))[0] < 0


def _slice(k: int) -> np.ndarray:
    x, y = (np.arange(56) - 27.5) * 3.0, (np.arange(64) - 31.5) * 3.0
    across, down = np.meshgrid(x, y)
    z = (k - 29.5) * 3.0
    grey = np.zeros((64, 56), np.float32)
    grey[(across / 75) ** 2 + (down / 90) ** 2 + (z / 85) ** 2 <= 1] = 300
    grey[(across / 66) ** 2 + (down / 80) ** 2 + (z / 75) ** 2 <= 1] = 700
    grey[(across - 40) ** 2 + down**2 + z**2 <= 15**2] = 900
    return grey.T


async def test_the_table_names_every_structure(networks: Any, phantom: Path) -> None:
    console = Console(record=True, width=120)
    console.print((await from_folder(phantom, networks)).measurement.table())
    text = console.export_text()
    assert all(name in text for name in ("Hippocampus", "Lateral ventricle", "Research use only", "Left", "Right"))


# ---- the PACS --------------------------------------------------------------------------------------------------------


@pytest.fixture
def pacs(orthanc: str, tmp_path: Path) -> Iterator[tuple[int, str]]:
    """A real Orthanc; its DICOM port and REST address."""
    import socket

    ports = []
    for _ in range(2):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
    folder = tmp_path / "orthanc"
    folder.mkdir()
    configuration = {
        "StorageDirectory": str(folder), "IndexDirectory": str(folder), "DicomPort": ports[0], "HttpPort": ports[1],
        "DicomAet": "PACS", "DicomCheckCalledAet": True, "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "Plugins": [],
    }  # fmt: skip
    (tmp_path / "orthanc.json").write_text(json.dumps(configuration))
    process = subprocess.Popen(
        [orthanc, str(tmp_path / "orthanc.json")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    address = f"http://127.0.0.1:{ports[1]}"
    try:
        for _ in range(300):
            try:
                httpx.get(f"{address}/system")
                break
            except httpx.HTTPError:
                time.sleep(0.1)
        yield ports[0], address
    finally:
        process.terminate()
        process.wait()


async def test_the_pacs_lists_segmentation_and_report_under_the_study(
    pacs: tuple[int, str], desk: Any, phantom: Path
) -> None:
    port, address = pacs
    for name, value in (("pacs_host", "127.0.0.1"), ("pacs_port", port)):
        object.__setattr__(desk.settings, name, value)
    await desk.send(phantom)
    study = await desk.study()
    await desk.quantify(study)
    async with httpx.AsyncClient(base_url=address) as http:
        for _ in range(200):
            series = [(await http.get(f"/series/{s}")).json() for s in (await http.get("/series")).json()]
            if len(series) == 3:
                break
            await asyncio.sleep(0.1)
        assert sorted(s["MainDicomTags"]["Modality"] for s in series) == ["OT", "SEG", "SR"]
        pictures = next(s for s in series if s["MainDicomTags"]["Modality"] == "OT")
        assert len(pictures["Instances"]) == 7  # quality, and three structures each outlined and with the map of doubt
        shown = (await http.get(f"/instances/{pictures['Instances'][0]}/preview")).content
        assert shown.startswith(b"\x89PNG")
        (parent,) = {s["ParentStudy"] for s in series}
        told = (await http.get(f"/studies/{parent}")).json()
        assert told["MainDicomTags"]["AccessionNumber"] == "ACC-PH-1"
        assert told["PatientMainDicomTags"]["PatientID"] == "PH-1"
        report = next(s for s in series if s["MainDicomTags"]["Modality"] == "SR")
        content = (await http.get(f"/instances/{report['Instances'][0]}/file")).content
    uid = study["identifier"][0]["value"].removeprefix("urn:oid:")
    kept = (await desk.http.get(f"/imaging/studies/{study['id']}/measurement")).json()["result"]["volumes"]
    assert [m.value for m in read_volumes(dcmread(BytesIO(content)))] == [v["ml"] for v in kept]
    assert dcmread(BytesIO(content)).StudyInstanceUID == uid


async def test_f056_a_pacs_that_is_away_holds_nothing_up(desk: Any, phantom: Path) -> None:
    for name, value in (("pacs_host", "127.0.0.1"), ("pacs_port", 1)):
        object.__setattr__(desk.settings, name, value)
    await desk.send(phantom)
    assert values(await desk.quantify(await desk.study()))
    assert (await parked(desk)).json()["parked"] == []
