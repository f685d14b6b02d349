"""What journey and people see when cases are given to readers, through the room's web door."""

from typing import Any

import pytest

from arcuate.kernel.errors import BadInput
from arcuate.kernel.fhir import types

Json = dict[str, Any]


async def test_f066_nobody_eligible_leaves_the_case_ready_with_the_rule_that_excluded_each(
    desk: Any, department: Any
) -> None:
    changed = await desk.assign(
        department.case("c1", priority="stat", site="south"),
        department.person("away", {"spine": 3}, None),
        department.person("brain-only", {"brain": 3}),
        department.person("full", {"spine": 3}, (-300, 5)),
        department.person("other-site", {"spine": 3}, sites=("north",)),
        department.person("trainee", {"spine": 2}, trainee=True),
    )

    task = changed["c1"]
    assert task["status"] == "ready"
    assert "owner" not in task
    assert task["statusReason"]["text"] == "waiting: no eligible reader"
    assert department.sentences(task)["excluded"] == [
        "Reader-away: not on shift",
        "Reader-brain-only: level 0 in spine, 1 needed",
        "Reader-full: no room on this shift",
        "Reader-other-site: may not read for this site",
        "Reader-trainee: critical cases do not go to a trainee",
    ]
    types.validate(task)


async def test_f066_a_case_that_waits_past_its_time_is_escalated_and_keeps_the_orders_own_priority(
    desk: Any, department: Any
) -> None:
    changed = await desk.assign(department.case("c1", due=-5), department.person("a", {"brain": 3}))

    assert changed["c1"]["businessStatus"]["coding"][0]["code"] == "escalated"
    assert changed["c1"]["priority"] == "routine"


async def test_f066_the_same_state_asked_again_changes_nothing(desk: Any, department: Any) -> None:
    roster = department.person("a", {"brain": 3})
    first = await desk.assign(department.case("c1"), roster)
    desk.clock.advance(120)

    assert await desk.assign([first["c1"]], department.case("c1")[:1], roster) == {}


async def test_f066_old_routine_cases_are_read_before_their_limit_though_urgent_ones_fill_the_shift(
    desk: Any, department: Any
) -> None:
    urgent = [department.case(f"u{i:03d}", priority="urgent", due=120) for i in range(60)]
    old = [department.case(f"old{i}", due=20) for i in range(3)]
    changed = await desk.assign(*urgent, *old, department.person("a", {"spine": 3}, (-60, 120)))

    given = {name for name, task in changed.items() if "owner" in task}
    assert {"old0", "old1", "old2"} <= given
    assert department.sentences(changed["old0"])["raised"] == [
        "near its due time, so it counts as urgent; the order's own priority is unchanged"
    ]


async def test_f066_a_critical_case_gets_the_last_place_before_routine_ones(desk: Any, department: Any) -> None:
    changed = await desk.assign(
        *[department.case(f"r{i}") for i in range(5)], department.case("stat", priority="stat", due=30),
        department.person("a", {"spine": 3}, (-300, 12)),
    )  # fmt: skip

    assert [name for name, task in changed.items() if "owner" in task] == ["stat"]


@pytest.mark.parametrize("status", ["ready", "accepted"])
async def test_f067_a_persons_choice_stands(desk: Any, department: Any, status: str) -> None:
    """The poorest reader was chosen by a person; the plan leaves it there and counts it as load."""
    chosen = department.case("c1", status=status, **department.owned("weak", by_plan=False))
    changed = await desk.assign(
        chosen, department.person("weak", {"spine": 1}), department.person("strong", {"spine": 3})
    )

    assert changed == {}


async def test_f067_an_opened_case_stays_though_a_plan_gave_it(desk: Any, department: Any) -> None:
    opened = department.case("c1", status="accepted", **department.owned("weak", by_plan=True))

    assert (
        await desk.assign(opened, department.person("weak", {"spine": 1}), department.person("strong", {"spine": 3}))
        == {}
    )


async def test_f067_a_case_that_a_person_confirmed_stays_though_a_plan_gave_it(desk: Any, department: Any) -> None:
    mark = {"coding": [{"system": "urn:arcuate:cs:task", "code": "chosen-by-person"}]}
    chosen = department.case("c1", businessStatus=mark, **department.owned("weak", by_plan=True))

    assert (
        await desk.assign(chosen, department.person("weak", {"spine": 1}), department.person("strong", {"spine": 3}))
        == {}
    )


async def test_a_case_handed_back_does_not_return_to_the_same_reader(desk: Any, department: Any) -> None:
    handed_back = department.case("c1", **department.owned("best", by_plan=True))
    del handed_back[1]["owner"]
    roster = [*department.person("best", {"spine": 3}), *department.person("other", {"spine": 1})]

    first = await desk.assign(handed_back, roster)
    assert first["c1"]["owner"]["reference"] == "Practitioner/other"

    del first["c1"]["owner"]  # and the other hands it back too
    second = await desk.assign([first["c1"]], handed_back[:1], roster)
    assert sorted(department.sentences(second["c1"])["excluded"]) == [
        "Reader-best: handed it back",
        "Reader-other: handed it back",
    ]


async def test_an_unopened_case_leaves_a_reader_whose_shift_is_over(desk: Any, department: Any) -> None:
    given = department.case("c1", **department.owned("gone", by_plan=True))
    changed = await desk.assign(
        given, department.person("gone", {"spine": 3}, (-300, -1)), department.person("here", {"spine": 1})
    )

    assert changed["c1"]["owner"]["reference"] == "Practitioner/here"


async def test_an_unopened_case_is_not_moved_for_a_small_gain(desk: Any, department: Any) -> None:
    given = department.case("c1", **department.owned("a", by_plan=True))

    assert await desk.assign(given, department.person("a", {"spine": 2}), department.person("b", {"spine": 3})) == {}


async def test_the_receipt_says_why_in_sentences_and_what_the_next_best_would_have_cost(
    desk: Any, department: Any
) -> None:
    prior = {
        "resourceType": "DiagnosticReport", "id": "p1", "status": "final", "code": {"text": "MRI"}, "issued": "2025-06-14T10:00:00Z",
        "subject": {"reference": "Patient/patient-c1"}, "resultsInterpreter": [{"reference": "Practitioner/knows"}],
    }  # fmt: skip
    changed = await desk.assign(
        department.case("c1", due=90), [prior], department.person("knows", {"spine": 2}), department.person("other", {"spine": 1}),
        department.person("brain-only", {"brain": 3}),
    )  # fmt: skip

    task = changed["c1"]
    assert task["owner"] == {"reference": "Practitioner/knows", "display": "Reader-knows"}
    assert department.sentences(task) == {
        "why": ["prior with this reader"],
        "must": ["spine at level 1, on shift: Reader-knows, Reader-other"],
        "due": ["due 11:30, 1 h 30 after it was given"],
        "load": ["Reader-knows 11 of 300 min, Reader-other 0 of 300 min"],
        "continuity": ["Reader-knows read the prior study"],
        "next-best": [
            "Reader-other would have cost 70 points more (the wished skill, 1 level short +40, who read the prior study +30)"
        ],
        "plan": ["no better plan exists under the agreed weights"],
    }
    types.validate(task)


async def test_the_ledger_makes_turns_fair(desk: Any, department: Any) -> None:
    """Two alike readers: who carried the first day's cases is not first in line for the next ones."""
    roster = [*department.person("a", {"spine": 2}), *department.person("b", {"spine": 2}, None)]
    first = await desk.assign(*[department.case(f"d{i}") for i in range(14)], roster)
    assert {t["owner"]["reference"] for t in first.values()} == {"Practitioner/a"}

    both = [*department.person("a", {"spine": 2}), *department.person("b", {"spine": 2})]
    second = await desk.assign(department.case("next"), both)
    assert second["next"]["owner"]["reference"] == "Practitioner/b"


async def test_the_same_decision_told_twice_stands_once_in_the_ledger(desk: Any, department: Any) -> None:
    roster = department.person("a", {"spine": 2})
    for _ in range(2):
        await desk.assign(department.case("c1"), roster)

    receipts = (await desk.http.get("/assignment/receipts/c1")).json()["receipts"]
    assert len(receipts) == 1
    assert receipts[0]["reader"] == "a"


async def test_other_tasks_and_ended_ones_are_left_alone(desk: Any, department: Any) -> None:
    ask = department.case("ask")
    ask[1]["code"]["coding"][0]["code"] = "reschedule"
    done = department.case("done", status="completed")

    assert await desk.assign(ask, done, department.person("a", {"spine": 2})) == {}


@pytest.mark.parametrize(("seconds", "due"), [(50, 90), (50, 90.6), (5, 90.6)])
async def test_the_receipt_names_the_due_time_that_the_task_shows(
    desk: Any, department: Any, seconds: float, due: float
) -> None:
    desk.clock.advance(seconds)
    changed = await desk.assign(department.case("c1", due=due), department.person("a", {"spine": 2}))

    assert department.sentences(changed["c1"])["due"] == ["due 11:30, 1 h 30 after it was given"]


async def test_a_due_time_without_zone_is_refused_with_its_place(desk: Any, department: Any) -> None:
    bad = department.case("c1")
    bad[1]["restriction"]["period"]["end"] = "2026-03-17T14:00:00"

    with pytest.raises(BadInput, match=r"Task\.restriction\.period\.end"):
        await desk.assign(bad, department.person("a", {"spine": 2}))


async def test_an_empty_bundle_gets_an_empty_answer(desk: Any) -> None:
    assert await desk.assign([]) == {}


async def test_nobody_gets_in_without_a_token(desk: Any) -> None:
    import httpx

    async with httpx.AsyncClient(transport=desk.http._transport, base_url="http://house") as stranger:
        assert (await stranger.post("/assignment/Task/$assign", json={})).status_code == 401
        assert (await stranger.get("/assignment/worklists/a")).status_code == 401


async def test_a_reading_brought_forward_by_a_machine_says_so_to_its_reader(desk: Any, department: Any) -> None:
    words = "Read sooner: haemorrhage of 34 mL found by a machine, not reviewed by anybody. The order said routine."
    reason = {"coding": [{"system": "urn:arcuate:cs:task", "code": "raised-by-machine"}], "text": words}
    changed = await desk.assign(
        department.case("c1", priority="urgent", due=60, reasonCode=reason), department.person("a", {"spine": 3})
    )

    assert department.sentences(changed["c1"])["raised"] == [words]
    assert changed["c1"]["priority"] == "urgent" and changed["c1"]["reasonCode"] == reason
