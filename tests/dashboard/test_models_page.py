"""The page of the models: what is live, in shadow or away, what a person does next; and what it says when rooms are silent."""

import re
from collections.abc import AsyncIterator
from decimal import Decimal
from html import unescape
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
import pytest_asyncio
from dashboard_world import Browser, Department, open_department

from arcuate.dashboard.domain.frame import Mark
from arcuate.dashboard.domain.models import Pause, as_paused, forecaster, network, shadow
from arcuate.dashboard.pages.models import Checks, Models, Reading, load_known
from arcuate.dashboard.rooms import Part
from arcuate.kernel.auth import Role

pytestmark = pytest.mark.asyncio(loop_scope="module")

KNOWN = {one.name: one for one in load_known()}
LOADED = {
    "loaded": True, "name": "attendance", "version": "2026.10.30", "sha256": "e525", "data_until": "2026-10-30", "data_site": "Northgate",
    "synthetic": False, "trained_here": True, "warning": "", "trouble": "",
}  # fmt: skip
READ = {
    "pipeline": "head-ct", "imaging_study": "7", "finished": "2026-03-17T12:00:00+00:00", "refusal": None,
    "models": [{"name": "head-ct", "version": "1.0", "sha256": "2328"}],
    "values": [{"structure": "midline-shift", "value": Decimal("5.1"), "unit": "mm", "title": "Midline shift"}], "outcomes": [],
}  # fmt: skip
INSTALLED = {
    "name": "head-ct", "version": "1.1", "task": "Haemorrhage volume", "population": "Adults; measured on synthetic CT only",
    "exported": "2026-03-01", "licence": "Apache-2.0", "weights_sha256": "9f3a",
}  # fmt: skip
SHADOWS = [{"name": "head-ct", "title": "Head CT", "installed": [INSTALLED]}]


def words(answer: httpx.Response) -> str:
    """Return a page's text as it is read."""
    text = re.sub(r"<(script|head)\b.*?</\1>", " ", answer.text, flags=re.DOTALL)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", text)).replace(" ,", ",").replace(" .", ".").split())


def told(*readings: dict[str, Any], on: str = "") -> dict[str, Any]:
    """Return what imaging says of its shadows."""
    return {"pipelines": SHADOWS, "switched_on": {"head-ct": on} if on else {}, "readings": list(readings)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def asked(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Department]:
    """A house with the rooms that forecast and check orders; those of images and networks are away."""
    rooms = ("access", "record", "scheduling", "protocoling", "dashboard")
    async with open_department(tmp_path_factory.mktemp("asked"), rooms) as made:
        yield made


@pytest_asyncio.fixture(loop_scope="module")
async def quality(asked: Department) -> AsyncIterator[Browser]:
    yield await asked.sign_in("Quality-04", Role.QUALITY)


async def test_rooms_that_are_silent_are_named_and_nothing_is_said_of_their_models(quality: Browser) -> None:
    page = await quality.open("/models?at=brain-t1")
    said = words(page)

    assert re.search(r"Inference does not answer since \d\d:\d\d\. How its models stand is not known\.", said)
    assert re.search(r"Imaging does not answer since \d\d:\d\d\.", said)
    assert "brain-t1: not known" in said
    assert "5 not known" in said
    assert "Dice" not in said
    assert "in shadow" not in said
    assert "All 7 models shown." in said


async def test_forecasts_say_on_what_they_learned_and_what_to_do_about_it(quality: Browser) -> None:
    page = await quality.open("/models?at=attendance")
    said = words(page)

    assert 'class="picked"' in page.text
    assert "attendance 2026" in said
    assert "Trained on invented visits. Until this site has trained on its own" in said
    assert "arcuate train attendance" in said
    assert "too few to say n = 0, asks 20" in said
    assert "invented visits of synthetic department" in said
    assert "No card was shown yet." in said


async def test_a_model_that_nobody_knows_shows_the_first_one(quality: Browser) -> None:
    page = await quality.open("/models?at=../../etc")

    assert "etc" not in words(page)
    assert "brain-t1: not known" in words(page)


async def test_the_parts_come_alone_and_only_those_that_there_are(quality: Browser) -> None:
    answer = await quality.open("/models/parts?names=rows,nothing&at=waiting")

    assert answer.text.count("<section") == 1
    assert 'id="m-waiting"' in answer.text


@pytest.mark.parametrize("role", [Role.QUALITY, Role.LEAD, Role.ADMIN])
async def test_who_judges_models_has_the_page_in_the_top_bar(asked: Department, role: Role) -> None:
    assert 'href="/models"' in (await (await asked.sign_in(f"Judge {role}", role)).open("/models")).text


async def test_others_have_it_not(asked: Department) -> None:
    reader = await asked.sign_in("Reader-07", Role.RADIOLOGIST)
    page = await reader.open("/me")

    assert 'href="/list"' in page.text
    assert 'href="/models"' not in page.text


async def test_a_network_that_was_changed_on_disk_is_stopped_with_the_reason() -> None:
    row = network(KNOWN["brain-t1"], None, "its weights file weights.safetensors is missing")

    assert (row.state, row.mark, row.tone) == ("stopped", Mark.STOP, "stop")
    assert row.why == "Its weights file weights.safetensors is missing."
    assert row.card == "on its card only"


async def test_a_network_that_is_not_installed_is_not_called_live() -> None:
    assert network(KNOWN["wm-lesions"], None).state == "not here"


async def test_a_network_says_its_version_hash_and_what_its_training_states() -> None:
    stated = {"population": "Adults; trained on synthetic images only", "held_out_dice": "0.7604", "exported": "2026-11-21",
              "weights_sha256": "3f30fc"}  # fmt: skip
    row = network(KNOWN["brain-t1"], {"versions": ["1.1613"], "parameters": stated})

    assert (row.state, row.version, row.card, row.data) == ("live", "1.1613", "Dice 0.76", "made 21 Nov 2026")
    assert row.data_more == "synthetic images only"
    assert ("Weights", "3f30fc") in row.details
    assert row.here == "not measured here"


@pytest.mark.parametrize("parameters", [{}, {"held_out_dice": "high", "exported": "soon"}])
async def test_what_a_model_does_not_state_is_not_invented(parameters: dict[str, str]) -> None:
    row = network(KNOWN["brain-t1"], {"versions": ["1"], "parameters": parameters})

    assert (row.card, row.data, row.data_more) == ("on its card only", "not told", "")


async def test_a_forecast_that_is_absent_says_what_is_shown_instead() -> None:
    row = forecaster(
        KNOWN["attendance"],
        {"loaded": False, "reason": "There is no attendance model", "warning": "The site's rate is shown."},
        {},
    )

    assert (row.state, row.mark) == ("not loaded", Mark.UNKNOWN)
    assert "There is no attendance model" in row.why
    assert "site's rate" in row.why


async def test_a_forecast_that_fails_is_not_shown_as_well() -> None:
    row = forecaster(KNOWN["waiting"], {**LOADED, "name": "waiting", "trouble": "no answer within 2 s"}, None)

    assert (row.state, row.mark, row.why) == ("live, fails", Mark.LOOK, "no answer within 2 s")
    assert "general rule" in row.todo


@pytest.mark.parametrize(("expected", "mark"), [("24.0", Mark.DONE), ("60.0", Mark.LOOK)])
async def test_chances_are_held_against_what_came(expected: str, mark: Mark) -> None:
    outcome = {"expected": Decimal(expected), "seen": 25, "interval": [Decimal("0.066"), Decimal("0.105")]}
    row = forecaster(KNOWN["attendance"], LOADED, {"visits": 300, "outcomes": {"no-show": outcome}})

    assert (row.here, row.mark) == ("25 of 300 missed", mark)
    assert ("train it anew" in row.todo.lower()) is (mark is Mark.LOOK)
    assert ("missed", f"25 of 300 seen (7 to 10 %), {float(expected) / 3:.1f} % expected") in row.details


async def test_under_20_visits_nothing_is_said() -> None:
    row = forecaster(KNOWN["attendance"], LOADED, {"visits": 19, "outcomes": "too few"})

    assert (row.here, row.here_more, row.mark) == ("too few to say", "n = 19, asks 20", Mark.DONE)


async def test_a_shadow_without_readings_says_what_is_installed_and_asks_for_nothing() -> None:
    row = shadow(KNOWN["head-ct"], told())

    assert (row.state, row.version, row.here) == ("shadow", "1.1", "no reading yet")
    assert (row.data, row.data_more) == ("made 1 Mar 2026", "synthetic CT only")
    assert ("Weights", "9f3a") in row.details
    assert "Nothing yet" in row.todo


async def test_a_shadow_whose_model_is_not_here_is_said_not_to_be_here() -> None:
    row = shadow(KNOWN["head-ct"], {**told(), "pipelines": [{"name": "head-ct", "title": "Head CT", "installed": []}]})

    assert (row.state, row.mark) == ("not here", Mark.UNKNOWN)
    assert "Install it" in row.todo


async def test_readings_of_a_shadow_wait_for_what_a_person_found() -> None:
    judged = {**READ, "outcomes": [{"structure": "midline-shift", "present": True, "value": None, "source": "signed report"}]}  # fmt: skip
    refused = {
        **READ,
        "models": [],
        "values": [],
        "refusal": {"code": "no-skull", "what": "There is no skull", "todo": ""},
    }

    waiting, done = shadow(KNOWN["head-ct"], told(READ, refused, judged)), shadow(KNOWN["head-ct"], told(judged))

    assert (waiting.version, waiting.here, waiting.here_more) == ("1.1", "3 readings", "1 refused, 1 with an outcome")
    assert waiting.todo.startswith("2 readings without an outcome: compare with the signed report.")
    assert "the site's decision" in done.todo


async def test_a_shadow_that_was_switched_on_says_who_validated_it() -> None:
    row = shadow(KNOWN["head-ct"], told(READ, on="Radiology, 212 studies, 2026-10-01"))

    assert (row.state, row.why) == ("live", "Switched on after validation: Radiology, 212 studies, 2026-10-01.")


async def test_a_pipeline_that_left_the_shadow_is_not_said_to_be_in_it() -> None:
    assert shadow(KNOWN["head-ct"], {"pipelines": [], "switched_on": {}, "readings": []}).state == "not known"


async def test_readings_and_cards_are_shown_with_how_many_there_are(asked: Department, quality: Browser) -> None:
    desk = asked.house.rooms["dashboard"].app.state.desk
    row = shadow(KNOWN["head-ct"], told(READ))
    readings = [
        Reading("k1", "7", desk.words.now, "Midline shift 5.1 mm", ""),
        Reading("k2", "8", None, "refused: no skull", "Shift not there (report)"),
    ]
    view = Models(desk.words, [row], row, Part(Checks(40, 30, 6, ("contrast-egfr", 6, 25))), readings, 9)

    frame = SimpleNamespace(viewer=SimpleNamespace(csrf="c"))
    made = desk.renderer.text("models/side.html", view=view, frame=frame, notice=None, oob=False)
    said = words(httpx.Response(200, text=made))

    assert "Midline shift 5.1 mm. No outcome yet." in said
    assert "Refused: no skull. Found: Shift not there (report)." in said
    assert "2 of 9 shown." in said
    assert "Most often overridden: contrast-egfr, 6 of 25." in said


async def test_a_paused_model_says_why_and_only_who_judges_models_may_let_it_go_on(asked: Department) -> None:
    desk = asked.house.rooms["dashboard"].app.state.desk
    row = as_paused(shadow(KNOWN["head-ct"], told(READ)), Pause("Dr A", desk.words.now, "too many false alarms"))
    frame = SimpleNamespace(viewer=SimpleNamespace(csrf="c"))

    def shown(*, may_judge: bool) -> str:
        read = [Reading("k1", "7", None, "Midline shift 5.1 mm", "")]
        structures = [("midline-shift", "Midline shift")]
        view = Models(desk.words, [row], row, Part(Checks(0, 0, 0)), read, 1, (), structures, may_judge)
        return str(desk.renderer.text("models/side.html", view=view, frame=frame, notice=None, oob=False))

    judged, looked = shown(may_judge=True), shown(may_judge=False)
    assert "Paused: too many false alarms." in judged and "by Dr A" in looked
    assert 'action="/models/head-ct/resume"' in judged and 'action="/models/readings/k1/outcome"' in judged
    assert "<form" not in looked


async def test_an_act_on_a_model_without_reason_or_room_is_refused_in_words(quality: Browser) -> None:
    await quality.open("/models?at=head-ct")
    script = {"HX-Request": "true"}
    assert (await quality.send("/models/attendance/pause", {"reason": "x"}, **script)).status_code == 404
    assert "Say why" in words(await quality.send("/models/head-ct/pause", {}, **script))
    assert "does not answer" in words(await quality.send("/models/head-ct/pause", {"reason": "x"}, **script))
    said = {"structure": "midline-shift", "present": "", "source": "report"}
    assert "Say whether it was there" in words(await quality.send("/models/readings/ab12/outcome", said, **script))
    assert (await quality.send("/models/head-ct/pause", {"reason": ""})).status_code == 303
