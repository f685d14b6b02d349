"""The error queue (rows 015, 016): every parked message can be read, mended, replayed once, or set aside with a reason."""

import asyncio

import httpx
import pytest
from tests.gateway.conftest import Site
from tests.gateway.messages import order

from arcuate.house import HouseTransport
from arcuate.kernel.auth import Principal, Role, tokens

BROKEN = order().replace("100^^^HOSP^MR", "")


async def parked(site: Site) -> str:
    assert await site.apply(BROKEN) == ["AA"]
    found: str = (await site.errors())[0]["id"]
    return found


async def test_an_item_shows_the_message_by_segments_with_the_faulty_field(site: Site) -> None:
    item = await parked(site)
    shown = await site.get(f"/gateway/errors/{item}")

    assert shown["text"] == BROKEN and shown["reason"] == "PID-3 names no patient"
    faulty = next(segment for segment in shown["segments"] if segment["faulty"] is not None)
    assert (faulty["id"], faulty["faulty"], faulty["fields"][3]) == ("PID", 3, "")
    assert (await site.get("/gateway/errors"))["groups"] == [{"cause": "no patient", "state": "parked", "count": 1}]


async def test_f016_an_edited_copy_is_applied_and_the_received_bytes_stay(site: Site) -> None:
    item = await parked(site)
    mended = order().replace("\r", "\n")
    answer = await site.http.post(
        f"/gateway/errors/{item}/replay", content=mended.encode(), headers={"Content-Type": "text/plain"}
    )
    assert answer.status_code == 200
    await site.settle()

    assert (await site.order("ACC1"))["status"] == "active"
    assert (await site.http.get("/gateway/journal/1/raw")).content == BROKEN.encode()
    assert await site.errors() == []
    assert (await site.order("ACC1"))["meta"]["source"].startswith("urn:arcuate:id:journal#1-1")


async def test_f016_of_two_people_who_replay_one_is_told_who_was_first(site: Site) -> None:
    for round_ in range(10):
        message = BROKEN.replace("|1|P|", f"|r{round_}|P|")
        await site.apply(message)
        item = (await site.errors())[0]["id"]
        url = f"/gateway/errors/{item}/replay"
        fixed = order(f"ACC{round_}", placer=f"P{round_}").encode()
        answers = await asyncio.gather(
            *(site.http.post(url, content=fixed, headers={"Content-Type": "text/plain"}) for _ in range(2))
        )
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        refused = next(answer for answer in answers if answer.status_code == 409).json()
        assert refused["issue"][0]["code"] == "conflict" and "Tester" in str(refused)
        await site.settle()
        assert (await site.order(f"ACC{round_}"))["meta"]["versionId"] == "1"


async def test_an_item_is_set_aside_only_with_a_reason(site: Site) -> None:
    item = await parked(site)
    url = f"/gateway/errors/{item}/discard"
    assert (await site.http.post(url, json={"reason": " "})).status_code == 400
    assert (await site.http.post(url, json={"reason": "Test message of the vendor"})).status_code == 200
    assert (await site.http.post(url, json={"reason": "again"})).status_code == 409
    assert await site.errors() == []
    row = (await site.journal())[0]["messages"][0]
    assert (row["state"], row["note"]) == ("discarded", "Test message of the vendor")


async def test_replaying_without_mending_parks_it_again(site: Site) -> None:
    item = await parked(site)
    assert (await site.http.post(f"/gateway/errors/{item}/replay")).status_code == 200
    await site.settle()
    assert [one["id"] for one in await site.errors()] == [item]


async def test_f015_a_mapping_that_fails_again_and_again_is_parked_and_others_go_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    from arcuate.gateway.mapping import plan

    real = plan.apply

    def failing(use: str, context: plan.Context, standing: object) -> object:
        if context.message.value("MSH-10") == "poison":
            raise RuntimeError("a fault of ours")
        return real(use, context, standing)  # type: ignore[arg-type]

    monkeypatch.setattr(plan, "apply", failing)
    await site.apply(order("ACC1", "1", control_id="poison"), order("ACC2", "2", placer="P2", control_id="2"))
    assert (await site.order("ACC2"))["status"] == "active"
    for _ in range(3):
        site.clock.advance(120)
        await site.settle()

    assert [(one["cause"], one["journal"]) for one in await site.errors()] == [("could not be processed", 1)]
    monkeypatch.setattr(plan, "apply", real)
    assert (await site.http.post(f"/gateway/errors/{(await site.errors())[0]['id']}/replay")).status_code == 200
    await site.settle()
    assert (await site.order("ACC1"))["status"] == "active"


async def test_only_integrators_read_content_and_everybody_sees_counts(site: Site) -> None:
    await parked(site)
    key = site.house.rooms["access"].app.state.access.signing_key
    who = Principal("s", frozenset({Role.SCHEDULER}), "s", "Sam")
    token = tokens.issue(key, "urn:arcuate:access", who, site.clock.now())
    async with httpx.AsyncClient(
        transport=HouseTransport(site.house), base_url="http://house", headers={"Authorization": f"Bearer {token}"}
    ) as http:
        for path in ("/gateway/errors", "/gateway/journal", "/gateway/journal/1/raw", "/gateway/errors/in-1"):
            assert (await http.get(path)).status_code == 403
        assert (await http.get("/gateway/counts")).json() == {"messages": 1, "states": {"parked": 1}}


async def test_connections_show_each_sender_with_its_counts(site: Site) -> None:
    await site.apply(BROKEN, order(control_id="2"), order(control_id="2"))
    sender = (await site.get("/gateway/connections"))["senders"][0]
    assert (sender["sender"], sender["received"], sender["resent"], sender["parked"], sender["waiting"]) == (
        "RIS|HOSP",
        2,
        1,
        1,
        0,
    )


@pytest.mark.parametrize(
    "path",
    [
        "/gateway/errors/in-99",
        "/gateway/errors/x",
        "/gateway/journal/99",
        "/gateway/journal/99/raw",
        "/gateway/errors/out-9",
    ],
)
async def test_what_is_not_there_is_not_found(site: Site, path: str) -> None:
    assert (await site.http.get(path)).status_code == 404


async def test_the_record_away_for_a_while_delays_and_loses_nothing(site: Site) -> None:
    record = site.house.rooms.pop("record")
    assert await site.send(order(), order("ACC2", placer="P2", control_id="2")) == ["AA", "AA"]
    await site.parts.mapper.drain()
    assert [row["messages"][0]["state"] for row in await site.journal()] == ["waiting", "waiting"]

    site.house.rooms["record"] = record
    site.clock.advance(10)
    await site.settle()
    assert {(await site.order(one))["status"] for one in ("ACC1", "ACC2")} == {"active"}
