"""A person pauses a pipeline: it measures nothing new and says so; what it said stays; it goes on when a person lets it."""

from pathlib import Path
from typing import Any

from arcuate.kernel.fhir import bundle


async def test_a_paused_pipeline_says_so_and_measures_again_when_a_person_lets_it(desk: Any, phantom: Path) -> None:
    assert (await desk.http.post("/imaging/pipelines/brain-volumes/pause", json={})).status_code == 400
    assert (await desk.http.post("/imaging/pipelines/heart/pause", json={"reason": "x"})).status_code == 404
    assert (await desk.http.post("/imaging/pipelines/brain-volumes/resume", json={"reason": "x"})).status_code == 409
    reason = {"reason": "thalamus too large since the scanner's update"}
    assert (await desk.http.post("/imaging/pipelines/brain-volumes/pause", json=reason)).status_code == 204
    assert (await desk.http.post("/imaging/pipelines/brain-volumes/pause", json=reason)).status_code == 409
    told = (await desk.http.get("/imaging/pipelines")).json()["paused"]["brain-volumes"]
    assert told["reason"] == reason["reason"] and told["by"]

    await desk.send(*sorted(phantom.iterdir())[:3])
    study = await desk.study()
    (said,) = bundle.of_type(await desk.quantify(study), "Observation")
    assert said["dataAbsentReason"]["coding"][1]["code"] == "paused"
    assert "thalamus too large" in said["dataAbsentReason"]["text"]
    assert told["by"] not in str(said)

    assert (
        await desk.http.post("/imaging/pipelines/brain-volumes/resume", json={"reason": "mended"})
    ).status_code == 204
    assert (await desk.http.get("/imaging/pipelines")).json()["paused"] == {}
    (said,) = bundle.of_type(await desk.quantify(study), "Observation")  # too few slices, which is another reason
    assert said["dataAbsentReason"]["coding"][1]["code"] != "paused"
