"""Forecasts are kept, and get their outcome when the record's feed tells it; events may come late, twice or in the wrong order."""

import itertools
from collections.abc import Callable
from datetime import UTC, timedelta
from pathlib import Path
from typing import Any

import pytest

from arcuate.kernel.fhir import bundle as bundles
from arcuate.kernel.fhir.feed import Change
from arcuate.scheduling import service, store

Json = dict[str, Any]
Open = Callable[..., Any]


def change(resource: Json, seq: int = 1) -> Change:
    return Change(seq, resource["resourceType"], resource["id"], str(seq), resource)


def events(people: Any) -> list[Json]:
    start = people.now + timedelta(days=5, hours=1)

    def at(minutes: float) -> str:
        return str(people.stamp(start + timedelta(minutes=minutes)))

    done = {**people.booking(), "status": "fulfilled", "meta": {"lastUpdated": at(60)}}
    return [
        done,
        {
            "resourceType": "Encounter", "id": "e", "status": "finished", "period": {"start": at(-20)}, "meta": {"lastUpdated": at(-20)},
            "appointment": [{"reference": "Appointment/asked"}],
        },
        {
            "resourceType": "Procedure", "id": "x", "status": "completed", "basedOn": [{"reference": "ServiceRequest/o"}],
            "performedPeriod": {"start": at(12), "end": at(40)}, "meta": {"lastUpdated": at(41)},
        },
    ]  # fmt: skip


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_f062_the_outcome_is_the_same_whatever_order_the_events_come_in(
    open_desk: Open, people: Any, tmp_path: Path, order: tuple[int, ...]
) -> None:
    desk = await open_desk(tmp_path / "none")
    await desk.attendance(people.booking(), people.patient())
    told = events(people)
    for number in (*order, *order):  # everything comes twice
        await desk.room.feed.take(change(told[number]))

    rows = await desk.house.contexts["scheduling"].database.read(lambda s: store.forecasts(s, "asked"))
    assert [(r.outcome, r.wait_min, r.duration_min) for r in rows] == [("attended", 32.0, 28.0)]


@pytest.mark.parametrize(
    ("status", "hours_before", "outcome"),
    [("noshow", -1, "no-show"), ("cancelled", 3, "late-cancel"), ("cancelled", 30, "early-cancel")],
)
async def test_a_missed_or_cancelled_visit_settles_its_forecast(
    open_desk: Open, people: Any, tmp_path: Path, status: str, hours_before: int, outcome: str
) -> None:
    """A cancellation that does not say when it came is late if it became known less than 24 h before the start."""
    desk = await open_desk(tmp_path / "none")
    booking = people.booking()
    await desk.attendance(booking, people.patient())
    changed = people.now + timedelta(days=5, hours=1) - timedelta(hours=hours_before)
    await desk.room.feed.take(change({**booking, "status": status, "meta": {"lastUpdated": people.stamp(changed)}}))

    rows = await desk.house.contexts["scheduling"].database.read(lambda s: store.forecasts(s, "asked"))
    assert [r.outcome for r in rows] == [outcome]


async def test_a_hold_that_ended_is_no_visit_that_somebody_called_off(
    open_desk: Open, people: Any, tmp_path: Path
) -> None:
    desk = await open_desk(tmp_path / "none")
    reason = {"coding": [{"system": "urn:arcuate:cs:forecast", "code": "never-booked"}]}
    booking = people.booking()
    lapsed = {**booking, "status": "cancelled", "cancelationReason": reason, "meta": {"lastUpdated": booking["start"]}}
    before = [{**lapsed, "id": f"held-{number}"} for number in range(5)]

    await desk.attendance(booking, people.patient())
    await desk.room.feed.take(change(lapsed))
    rows = await desk.house.contexts["scheduling"].database.read(lambda s: store.forecasts(s, "asked"))
    bundle = bundles.collection([{**booking, "id": "next"}, people.patient(), *before])
    moment = service.attendance_moment(bundle, people.now, UTC)

    assert [r.outcome for r in rows] == [None]
    assert moment.others == ()


async def test_f062_a_corrected_outcome_replaces_the_earlier_one(open_desk: Open, people: Any, tmp_path: Path) -> None:
    desk = await open_desk(tmp_path / "none")
    await desk.attendance(people.booking(), people.patient())
    for status in ("noshow", "fulfilled"):
        await desk.room.feed.take(
            change({**people.booking(), "status": status, "meta": {"lastUpdated": people.stamp(people.now)}})
        )

    rows = await desk.house.contexts["scheduling"].database.read(lambda s: store.forecasts(s, "asked"))
    assert [r.outcome for r in rows] == ["attended"]


async def test_the_live_line_shows_who_is_here_and_since_when(open_desk: Open, people: Any, tmp_path: Path) -> None:
    desk = await open_desk(tmp_path / "none")
    here = {**people.booking(people.now + timedelta(minutes=10)), "status": "arrived"}
    await desk.room.feed.take(
        change({**here, "meta": {"lastUpdated": people.stamp(people.now - timedelta(minutes=15))}})
    )
    line = (await desk.http.get("/scheduling/waiting")).json()["waiting"]
    assert [(w["appointment"], w["place"], w["waited_min"]) for w in line] == [("asked", "MR1", 15)]

    began = {
        "resourceType": "Procedure", "id": "x", "status": "in-progress", "basedOn": [{"reference": "ServiceRequest/o"}],
        "performedPeriod": {"start": people.stamp(people.now)}, "meta": {"lastUpdated": people.stamp(people.now)},
    }  # fmt: skip
    await desk.room.feed.take(change(began))
    assert (await desk.http.get("/scheduling/waiting")).json()["waiting"] == []


async def test_a_change_that_cannot_be_read_holds_up_nothing(open_desk: Open, people: Any, tmp_path: Path) -> None:
    desk = await open_desk(tmp_path / "none")
    await desk.room.feed.take(change({**people.booking(), "start": "half past nine"}))
    await desk.room.feed.take(
        change({**people.booking(), "status": "fulfilled", "meta": {"lastUpdated": people.stamp(people.now)}})
    )

    counts = await desk.house.contexts["scheduling"].database.read(store.own_counts)
    assert counts["no-show"] == (1, 0)


async def test_f060_the_sites_own_rate_answers_once_enough_visits_are_known(
    open_desk: Open, people: Any, tmp_path: Path
) -> None:
    desk = await open_desk(tmp_path / "none", own_rate_visits=20)
    for number in range(20):
        past = people.past(number + 1, "noshow" if number % 2 else "fulfilled")
        await desk.room.feed.take(change({**past, "id": f"p{number}"}))
    risk = await desk.attendance(people.booking(), people.patient())

    assert float(risk["prediction"][0]["probabilityDecimal"]) == 0.5


async def test_f062_quality_in_place_counts_only_visits_whose_outcome_has_matured(
    open_desk: Open, people: Any, models: Path
) -> None:
    desk = await open_desk(models)
    for number in range(25):
        booking = {**people.booking(), "id": f"b{number}"}
        await desk.attendance(booking, people.patient(), people.order())
        await desk.room.feed.take(
            change(
                {
                    **booking,
                    "status": "noshow" if number < 5 else "fulfilled",
                    "meta": {"lastUpdated": people.stamp(people.now)},
                }
            )
        )
    assert (await desk.http.get("/scheduling/status")).json()["measured_here"]["visits"] == 0

    desk.clock.advance(7 * 86400)
    measured = (await desk.http.get("/scheduling/status")).json()["measured_here"]
    assert measured["visits"] == 25
    assert measured["outcomes"]["no-show"]["seen"] == 5
