"""The measurements of a study: what a value says of itself, and how a reader accepts, corrects or rejects it."""

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import department
import pytest
import pytest_asyncio
from dashboard_world import Browser, Department

from arcuate.dashboard import facts
from arcuate.dashboard.domain.measurements import (
    CS_COMPARISON,
    CS_UNCERTAINTY,
    Range,
    no_change_because,
    value_of,
    values_of,
)
from arcuate.dashboard.render import Renderer
from arcuate.dashboard.settings import DashboardSettings
from arcuate.dashboard.words import Wording
from arcuate.kernel import codes
from arcuate.kernel.auth import Role
from arcuate.kernel.codes import Json
from arcuate.kernel.settings import SiteSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")
WORDS = Wording(datetime(2026, 3, 17, tzinfo=UTC), ZoneInfo("Europe/Zurich"))
VOLUMES = {("hippocampus", "right"): 2.31, ("hippocampus", "left"): 2.74, ("third-ventricle", ""): 1.2}
SCRIPT = {"HX-Request": "true"}


def volume(side: str, ml: float, **more: Any) -> Json:
    made = next(iter(department.measurements({}, {}, {}, {("hippocampus", side): ml})))
    version = [{"value": "ab"}]
    return {
        **made,
        "id": side,
        "contained": [{**made["contained"][0], "version": version}],
        "effectiveDateTime": "2026-03-17",
        **more,
    }


def change(percent: float, before: float, *, beyond: bool) -> Json:
    since = {"extension": [{"url": "urn:arcuate:ext:since", "valueDate": "2024-04-03"}]}
    judged = "beyond-measurement-error" if beyond else "within-measurement-error"
    code = {"coding": [codes.coding(CS_COMPARISON, "change")]}
    return {"component": [
        since | {"code": code, "valueQuantity": {"value": percent}, "interpretation": [{"coding": [codes.coding(CS_COMPARISON, judged)]}],
                 "referenceRange": [{"high": {"value": 29.25}, "text": "Somebody 2023"}]},
        since | {"code": {"coding": [codes.coding(CS_COMPARISON, "earlier")]}, "valueQuantity": {"value": before}},
    ]}  # fmt: skip


async def test_a_change_is_told_in_the_unit_first_and_only_beyond_its_limit() -> None:
    beyond, within = (value_of(volume("left", 2.0, **change(-33.3, 3.0, beyond=b))) for b in (True, False))
    assert beyond is not None
    assert within is not None
    assert beyond.since() == "1.00 smaller; error 0.88"
    assert within.since() == "within measurement error"


def ends(first: str, second: str) -> Json:
    return {"component": [
        {"code": {"coding": [codes.coding(CS_UNCERTAINTY, code)]}, "valueQuantity": {"value": value}}
        for code, value in ((first, 2.4), (second, 2.9))
    ]}  # fmt: skip


async def test_an_interval_of_known_heads_is_told_from_what_a_network_says_of_itself_and_half_of_one_is_none() -> None:
    checked, own = (value_of(volume("left", 2.7, **ends(*codes))) for codes in (("p10", "p90"), ("sure", "possible")))
    half = value_of(volume("left", 2.7, **ends("p10", "possible")))
    assert checked and own and half
    assert checked.range == Range(Decimal("2.4"), Decimal("2.9"), checked=True)
    assert own.range == Range(Decimal("2.4"), Decimal("2.9"), checked=False)
    assert half.range is None


@pytest.mark.parametrize(
    ("earlier", "why"),
    [
        ([], "no earlier measurement"),
        ([volume("left", 3.0, effectiveDateTime="2024-04-03", contained=[{"resourceType": "Device", "version": [{"value": "cd"}]}])],
         "cannot compare: 3 Apr 2024 by brain-t1 0.1"),
        ([volume("left", 3.0, effectiveDateTime="2024-04-03", status="corrected")], "cannot say: 3 Apr 2024 was corrected"),
        ([volume("left", 3.0, effectiveDateTime="2026-03-17")], "no earlier measurement"),
        ([volume("right", 3.0, effectiveDateTime="2024-04-03")], "no earlier measurement"),
    ],
    ids=["none", "other-weights", "a-persons-number", "same-day", "other-side"],
)  # fmt: skip
async def test_nothing_is_compared_across_models_and_the_reason_is_said(earlier: list[Json], why: str) -> None:
    now = value_of(volume("left", 2.0))
    assert now is not None
    assert no_change_because(now, values_of(earlier, ()), WORDS) == why


async def test_a_pair_loses_its_comparison_when_a_side_was_changed_by_a_person() -> None:
    both = volume("left", 5.0, **change(-33.3, 7.0, beyond=True))
    both["bodySite"]["coding"][1]["code"] = "51440002"
    kept = values_of([both, volume("right", 2.5)], ())
    lost = values_of([both, volume("right", 2.5, status="entered-in-error")], ())
    assert [v.change is not None for v in kept if v.side == "both"] == [True]
    assert [v.change is not None for v in lost if v.side == "both"] == [False]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def measured(filled: Department) -> str:
    """A case with three volumes; returns its id."""
    number = "0410"
    ledger = await filled.settled(lambda rows: f"SYN-26-{number}" in rows)
    system = f"{codes.SYSTEM_ACCESSION}|SYN-26-{number}"
    order = (await filled.fhir.search("ServiceRequest", {"identifier": system}))[0]
    reference, subject = codes.reference("ServiceRequest", order["id"]), order["subject"]
    images = await filled.fhir.create(department.study(number, request=reference, subject=subject))
    for one in department.measurements(reference, subject, codes.reference("ImagingStudy", images["id"]), VOLUMES):
        third = facts.has_code(one["code"], codes.CS_STRUCTURE, "third-ventricle")
        await filled.fhir.create(one | (ends("p10", "p90") if third else {}))
    return str(ledger[f"SYN-26-{number}"]["id"])


async def stands(house: Department, structure: str, side: str) -> Json:
    number = f"{codes.job_system('imaging')}|{structure}-{side}"
    return (await house.fhir.search("Observation", {"identifier": number}))[0]


async def judge(browser: Browser, case: str, one: Json, act: str, **given: str) -> str:
    fields = {"version": one["meta"]["versionId"], "at": "hippocampus-right", **given}
    answer = await browser.send(f"/case/{case}/measurements/{one['id']}/{act}", fields, **SCRIPT)
    return " ".join(answer.text.split())


async def test_a_value_outside_its_own_interval_says_in_which_direction_the_model_is_off(
    filled: Department, measured: str
) -> None:
    reader = await filled.sign_in("Reader-04", Role.RADIOLOGIST)
    page = " ".join((await reader.open(f"/case/{measured}/measurements?at=third-ventricle")).text.split())
    assert "80 % interval</th>" in page
    assert "2.40 to 2.90 mL: so near lay the true volume in 8 of 10 synthetic heads." in page
    assert "This model measures it too small." in page


async def test_a_reader_accepts_corrects_and_rejects_and_can_take_it_back(filled: Department, measured: str) -> None:
    reader = await filled.sign_in("Reader-04", Role.RADIOLOGIST)
    page = await reader.open(f"/case/{measured}/measurements")
    assert "3 of 3 not reviewed" in " ".join(page.text.split())
    right = await stands(filled, "hippocampus", "right")

    assert "2.31 mL accepted." in await judge(reader, measured, right, "accept")
    accepted = await stands(filled, "hippocampus", "right")
    assert (accepted["status"], accepted["performer"][0]["display"]) == ("final", "Reader-04")
    assert "somebody else changed this" in await judge(reader, measured, right, "reject", reason="late")
    assert "was accepted by Reader-04" in await judge(reader, measured, accepted, "correct", amount="2.5")

    assert "taken back" in await judge(reader, measured, accepted, "take-back")
    again = await stands(filled, "hippocampus", "right")
    assert again["status"] == "preliminary"
    assert "performer" not in again

    assert "corrected." in await judge(reader, measured, again, "correct", amount="2,5")
    corrected = await stands(filled, "hippocampus", "right")
    assert (corrected["status"], corrected["valueQuantity"]["value"]) == ("corrected", Decimal("2.5"))
    assert "was 2.31" in " ".join((await reader.open(f"/case/{measured}/measurements")).text.split())


@pytest.mark.parametrize(
    ("act", "given", "said"),
    [
        ("correct", {"amount": "much"}, "A correction needs a number"),
        ("correct", {"amount": "231"}, "cannot be"),
        ("correct", {"amount": "NaN"}, "cannot be"),
        ("correct", {"amount": "1.2"}, "the machine&#39;s own number"),
        ("reject", {"reason": " "}, "Say in a few words why it is wrong"),
    ],
)
async def test_a_judgement_without_sense_is_refused_in_words(
    filled: Department, measured: str, act: str, given: dict[str, str], said: str
) -> None:
    reader = await filled.sign_in("Reader-04", Role.RADIOLOGIST)
    await reader.open(f"/case/{measured}/measurements")
    one = await stands(filled, "third-ventricle", "")
    assert said in await judge(reader, measured, one, act, **given)
    assert (await stands(filled, "third-ventricle", ""))["status"] == "preliminary"


async def test_who_is_no_reader_looks_and_cannot_judge(filled: Department, measured: str) -> None:
    technologist = await filled.sign_in("Technologist-05", Role.TECHNOLOGIST)
    page = " ".join((await technologist.open(f"/case/{measured}/measurements")).text.split())
    assert "you may look" in page
    assert 'data-key="a"' not in page
    one = await stands(filled, "third-ventricle", "")
    assert "Not done: Your roles may not write Observation" in await judge(technologist, measured, one, "accept")


async def test_without_images_the_page_says_what_comes_next(filled: Department) -> None:
    reader = await filled.sign_in("Reader-04", Role.RADIOLOGIST)
    ledger = await filled.settled(lambda rows: "SYN-26-0404" in rows)
    page = " ".join((await reader.open(f"/case/{ledger['SYN-26-0404']['id']}/measurements")).text.split())
    assert "No images yet." in page
    assert "They come by themselves" in page


async def test_nearest_cases_stand_with_their_caveat_and_a_far_brain_with_a_warning() -> None:
    near = {
        "training": [{"key": "training_seg_05", "distance": Decimal("1.17"), "differs": [{"name": "Accumbens", "percent": 54}]}],
        "site": [{"key": "3f0a9c11-0000", "distance": Decimal("0.41"), "differs": [{"name": "Thalamus", "percent": -7}]}],
        "limit": Decimal("1.11"), "far": True, "structures": 16, "caveat": "It shows where, not why.",
    }  # fmt: skip

    def shown(near: Json | None) -> str:
        said = SimpleNamespace(silent=None)
        view = SimpleNamespace(
            values=[1], said=said, series={}, result={}, norm="none", words=WORDS, nearest=SimpleNamespace(value=near)
        )
        renderer = Renderer(SiteSettings(time_zone="Europe/Zurich"), DashboardSettings())
        return " ".join(renderer.text("measurements/trust.html", view=view, oob=False).split())

    told = shown(near)
    assert "Far from everything trained on</b>: 1.17 to the nearest" in told and "lie up to 1.11" in told
    assert "study 3f0a9c11, 0.41: thalamus -7 % here" in told and "training seg 05, 1.17: accumbens +54 % here" in told
    assert "where, not why" in told
    assert "Far from" not in shown({**near, "far": False, "site": []}) and "no other study" in shown(
        {**near, "site": []}
    )
    assert "Trained on" not in shown(None)
