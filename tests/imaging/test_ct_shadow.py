"""Head CT ships in shadow: what it would have said is kept and told to nobody; a site that states its validation lets it speak."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.imaging.ct_ellipsoid import head, install, write_ct

from arcuate.house import HouseSettings, open_house
from arcuate.imaging import shadow
from arcuate.imaging.pipelines import named
from arcuate.imaging.settings import ImagingSettings
from arcuate.inference.training import ct_phantom
from arcuate.inference.training.ct_bleeds import Kind
from arcuate.inference.training.ct_phantom import Recipe
from arcuate.kernel.codes import Json
from arcuate.kernel.errors import BadInput
from arcuate.kernel.fhir import bundle, types
from arcuate.kernel.settings import SiteSettings

STATED = "head-ct: Radiology of the test house, 212 studies, 2026-10-01"
ON = {"switched_on": "head-ct", "validations": STATED}


@pytest.fixture
def bleeding(tmp_path: Path, networks: Any) -> Path:
    """A head CT with 40 mL of blood as a DICOM series; the model is installed beside the networks."""
    install(networks.models_dir)
    phantom = ct_phantom.make(head(), Recipe((Kind.INTRAPARENCHYMAL,), (40.0,), 9.0, slice_mm=5.0, mimics=False), 4)
    return write_ct(tmp_path / "ct", phantom.hu, phantom.affine)


async def test_what_is_installed_is_told_before_anything_was_read(desk: Any, networks: Any) -> None:
    assert await _installed(desk) == []
    install(networks.models_dir)
    (model,) = await _installed(desk)
    assert model["name"] == "head-ct" and model["version"] and len(model["weights_sha256"]) == 64


async def _installed(desk: Any) -> list[Json]:
    (pipeline,) = (await desk.http.get("/imaging/shadow")).json()["pipelines"]
    listed: list[Json] = pipeline["installed"]
    return listed


async def test_in_shadow_not_even_a_refusal_leaves_the_room(desk: Any, tmp_path: Path) -> None:
    flat = np.random.default_rng(1).integers(-20, 60, (80, 80, 24)).astype(np.int16)  # no skull
    folder = write_ct(tmp_path / "flat", flat, np.diag([-1.5, -1.5, 5.0, 1.0]))
    assert (await desk.send(folder)).returncode == 0
    assert bundle.of_type(await desk.quantify(await desk.study()), "Observation") == []
    (kept,) = await _readings(desk)
    assert kept["pipeline"] == "head-ct" and kept["refusal"]["what"] and kept["values"] == []
    assert await desk.fhir.search("Observation", {}) == []
    assert (await desk.settled())["studies"][0]["objects"] == {"used": 24}


async def test_in_shadow_nothing_leaves_the_room_and_the_reading_waits_for_an_outcome(
    desk: Any, bleeding: Path
) -> None:
    assert (await desk.send(bleeding)).returncode == 0
    study = await desk.study()
    assert bundle.of_type(await desk.quantify(study), "Observation") == []
    (kept,) = await _readings(desk)
    assert {v["structure"] for v in kept["values"]} >= {"intracranial-haemorrhage", "midline-shift"}
    assert await desk.fhir.search("Observation", {}) == []
    own = (await desk.settled())["studies"][0]
    assert own["objects"] == {"used": len(list(bleeding.iterdir()))}, "no SEG, no SR"
    assert (await desk.http.get(f"/imaging/studies/{study['id']}/qc.png")).status_code == 404
    await _an_outcome_stands_beside(desk, kept["key"])


async def _an_outcome_stands_beside(desk: Any, key: str) -> None:
    said = {"structure": "intracranial-haemorrhage", "present": True, "value": 38.0, "source": "signed report"}
    assert (await desk.http.post(f"/imaging/shadow/{key}/outcome", json=said)).status_code == 204
    (again,) = await _readings(desk)
    assert [(o["present"], o["value"]) for o in again["outcomes"]] == [(True, 38.0)]
    assert (await desk.http.post("/imaging/shadow/none/outcome", json=said)).status_code == 404
    said["structure"] = "hippocampus"
    assert (await desk.http.post(f"/imaging/shadow/{key}/outcome", json=said)).status_code == 400


async def _readings(desk: Any) -> list[Json]:
    for _ in range(300):
        listed: list[Json] = (await desk.http.get("/imaging/shadow")).json()["readings"]
        if listed:
            return listed
        await asyncio.sleep(0.2)
    raise AssertionError("no reading was kept")


@pytest.mark.parametrize("desk", [ON], indirect=True)
async def test_switched_on_it_says_what_it_is_and_asks_to_be_read_sooner(desk: Any, bleeding: Path) -> None:
    assert (await desk.send(bleeding)).returncode == 0
    answer = bundle.of_type(await desk.quantify(await desk.study()), "Observation")
    by_code = {o["code"]["coding"][0]["code"]: o for o in answer}
    blood = by_code["intracranial-haemorrhage"]
    types.validate(blood)
    assert blood["status"] == "preliminary"
    assert float(blood["valueQuantity"]["value"]) > 20
    assert blood["valueQuantity"]["code"] == "mL" and by_code["midline-shift"]["valueQuantity"]["code"] == "mm"
    (urgency,) = blood["interpretation"]
    assert urgency["coding"][0]["code"] == shadow.READ_SOONER
    assert "machine" in urgency["text"] and "not reviewed" in urgency["text"]
    notes = " ".join(n["text"] for n in blood["note"])
    assert "212 studies" in notes and "Research use" in notes
    assert "normal" not in str(answer).lower()


@pytest.mark.parametrize(
    ("on", "stated", "words"),
    [
        ("head-ct", "", "without saying who"),
        ("head-ct", "head-ct: yes", "without saying who"),
        ("head-ct", "head-ct: the radiologists of this house looked", "without saying who"),
        ("brain-volumes", "brain-volumes: Dr A, 10 studies, 2026-01-31", "no pipeline in shadow"),
        ("heart", STATED, "no pipeline in shadow"),
    ],
)
async def test_the_room_does_not_start_on_a_switch_without_a_stated_validation(
    tmp_path: Path, on: str, stated: str, words: str
) -> None:
    settings = ImagingSettings(port=0, switched_on=on, validations=stated)
    with pytest.raises(BadInput, match=words):
        shadow.validations(settings)


async def test_the_house_refuses_to_open_then(tmp_path: Path) -> None:
    settings = ImagingSettings(port=0, switched_on="head-ct")
    house = HouseSettings(data_dir=tmp_path / "data", models_dir=tmp_path)
    with pytest.raises(BadInput, match="who validated"):
        async with open_house(
            house,
            SiteSettings(time_zone="Europe/Zurich", synthetic=True),
            rooms=["access", "record", "imaging"],
            room_settings={"imaging": settings},
        ):
            pass


def _observation(code: str, value: float) -> Json:
    return {
        "code": {"coding": [{"system": "urn:arcuate:cs:structure", "code": code}]}, "valueQuantity": {"value": value},
        "device": {"display": "head-ct 1.0"},
    }  # fmt: skip


@pytest.mark.parametrize(
    ("code", "value", "sooner"),
    [
        ("intracranial-haemorrhage", 4.9, False),
        ("intracranial-haemorrhage", 5.0, True),
        ("midline-shift", 4.0, False),
        ("midline-shift", 6.0, True),
        ("evans-index", 0.9, False),
    ],
)
def test_only_large_values_ask_to_be_read_sooner(code: str, value: float, sooner: bool) -> None:
    (made,) = shadow.spoken([_observation(code, value)], named("head-ct"), ImagingSettings(port=0, **ON))
    assert ("interpretation" in made) is sooner


def test_other_pipelines_are_left_as_they_are() -> None:
    one = _observation("hippocampus", 3.0)
    assert shadow.spoken([one], named("brain-volumes"), ImagingSettings(port=0)) == [one]


def test_phantoms_hold_the_hounsfield_units_that_files_state(bleeding: Path) -> None:
    from pydicom import dcmread

    image = dcmread(sorted(bleeding.iterdir())[15])
    values = image.pixel_array.astype(float) * float(image.RescaleSlope) + float(image.RescaleIntercept)
    assert -1024 <= np.quantile(values, 0.01) < -900
