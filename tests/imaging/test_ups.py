"""The worklist: what its state machine refuses, another system that does an item, our own quantifications in it."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from sqlmodel import Session, create_engine

from arcuate.imaging import tables, ups, worklist
from arcuate.imaging.domain import RefusalCode
from arcuate.imaging.ups import FINAL, State, UpsRefused, Workitem
from arcuate.kernel.errors import BadInput
from arcuate.kernel.fhir import bundle, strict

LIST = "/dicom-web/workitems"
JSON = {"Content-Type": "application/dicom+json"}
FHIR = {"Content-Type": "application/fhir+json"}
MINE, OTHER = "2.25.11", "2.25.22"


def one(vr: str, *values: Any) -> dict[str, Any]:
    return {"vr": vr, "Value": list(values)}


def scheduled(**more: Any) -> dict[str, Any]:
    return {
        ups.STATE: one("CS", "SCHEDULED"), "00741200": one("CS", "HIGH"), "00741204": one("LO", "Lung nodules"),
        "00741202": one("LO", "AI"),
    } | more  # fmt: skip


def performed(**more: Any) -> dict[str, Any]:
    item = {ups.STARTED: one("DT", "20260105101500"), ups.ENDED: one("DT", "20260105101600"), ups.OUTPUT: {"vr": "SQ"}}
    return {ups.PERFORMED: one("SQ", item | more)}


# ---- the state machine -----------------------------------------------------------------------------------------------

REQUESTS = st.one_of(
    st.tuples(st.just("move"), st.sampled_from([*State, "DONE"]), st.sampled_from([MINE, OTHER, "", "not a uid"])),
    st.tuples(st.just("update"), st.sampled_from(["performed", "label", "state"]), st.sampled_from([MINE, OTHER, ""])),
    st.tuples(st.just("cancel"), st.just(""), st.just("")),
)
CHANGES = {
    "performed": performed(),
    "label": {"00741204": one("LO", "Other")},
    "state": {ups.STATE: one("CS", "COMPLETED")},
}
ALLOWED = {
    (State.SCHEDULED, State.IN_PROGRESS), (State.IN_PROGRESS, State.COMPLETED), (State.IN_PROGRESS, State.CANCELED),
    (State.SCHEDULED, State.CANCELED),
}  # fmt: skip


def asked(item: Workitem, kind: str, what: str, transaction: str) -> Workitem:
    if kind == "move":
        return ups.moved(item, what, transaction or None).item
    if kind == "update":
        return ups.updated(item, CHANGES[what], transaction or None)
    return ups.cancellation_requested(item).item


@given(st.lists(REQUESTS, max_size=12))
def test_no_order_of_requests_leaves_the_table_of_the_standard(requests: list[tuple[str, str, str]]) -> None:
    item = ups.created("2.25.1", scheduled())
    for kind, what, transaction in requests:
        before = item
        try:
            item = asked(item, kind, what, transaction)
        except (UpsRefused, BadInput):
            assert item == before
            continue
        if item.state != before.state:
            assert (before.state, item.state) in ALLOWED
            if before.state is State.IN_PROGRESS:
                assert transaction == before.transaction
            if kind == "cancel":
                assert before.state is State.SCHEDULED
        if before.state in FINAL:
            assert (item.state, item.attributes) == (before.state, before.attributes)
        if before.state is State.IN_PROGRESS and kind != "cancel":
            assert transaction == before.transaction
        if item.state is State.COMPLETED:
            assert ups.PERFORMED in item.attributes
        assert ups.TRANSACTION not in item.dataset() and ups.value(item.dataset(), ups.STATE) == item.state


@pytest.mark.parametrize(
    ("state", "wanted", "transaction", "code", "status"),
    [
        (State.SCHEDULED, "COMPLETED", MINE, 0xC310, 409), (State.SCHEDULED, "CANCELED", MINE, 0xC310, 409),
        (State.SCHEDULED, "IN PROGRESS", "", 0xC301, 400), (State.IN_PROGRESS, "IN PROGRESS", MINE, 0xC302, 409),
        (State.IN_PROGRESS, "SCHEDULED", MINE, 0xC303, 409), (State.IN_PROGRESS, "COMPLETED", OTHER, 0xC301, 400),
        (State.IN_PROGRESS, "COMPLETED", MINE, 0xC304, 409), (State.IN_PROGRESS, "CANCELED", OTHER, 0xC301, 400),
        (State.COMPLETED, "IN PROGRESS", MINE, 0xC300, 409), (State.COMPLETED, "CANCELED", MINE, 0xC300, 409),
        (State.CANCELED, "COMPLETED", MINE, 0xC300, 409), (State.COMPLETED, "COMPLETED", OTHER, 0xC301, 400),
    ],
)  # fmt: skip
def test_a_wrong_transition_gets_the_code_of_the_standard(
    state: State, wanted: str, transaction: str, code: int, status: int
) -> None:
    item = Workitem("2.25.1", state, None if state is State.SCHEDULED else MINE, {})
    with pytest.raises(UpsRefused) as caught:
        ups.moved(item, wanted, transaction or None)
    assert (caught.value.ups_code, caught.value.status) == (code, status)


@pytest.mark.parametrize(("state", "warning"), [(State.COMPLETED, "B306"), (State.CANCELED, "B304")])
def test_the_same_final_state_again_is_a_warning(state: State, warning: str) -> None:
    assert warning in str(ups.moved(Workitem("2.25.1", state, MINE, {}), state, MINE).warning)


@pytest.mark.parametrize(
    "wrong",
    [
        {ups.STATE: one("CS", "COMPLETED")}, {ups.TRANSACTION: one("UI", MINE)}, {"00741204": one("LO")}, {ups.STATE: {"vr": "CS"}},
        {"00741200": {"vr": "CS", "Value": None}},
    ],
)  # fmt: skip
def test_a_workitem_that_does_not_begin_as_it_must_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        ups.created("2.25.1", scheduled(**wrong))


# ---- another system --------------------------------------------------------------------------------------------------


async def _state(http: httpx.AsyncClient, uid: str, state: str, transaction: str) -> httpx.Response:
    told = {ups.STATE: one("CS", state), ups.TRANSACTION: one("UI", transaction)}
    return await http.put(f"{LIST}/{uid}/state", content=json.dumps([told]), headers=JSON)


async def test_another_system_finds_an_item_does_it_and_a_third_cannot_meddle(desk: Any) -> None:
    http: httpx.AsyncClient = desk.http
    assert (await http.get(LIST)).status_code == 204
    assert (await http.post(LIST, content=b"{}", headers={"Content-Type": "text/plain"})).status_code >= 400
    for body in (b"", b"[]", b"[1]", b'{"00741000": 7}', json.dumps([{}]).encode()):
        assert (await http.post(LIST, content=body, headers=JSON)).status_code == 400
    made = await http.post(f"{LIST}?2.25.77", content=json.dumps([scheduled()]), headers=JSON)
    assert made.status_code == 201 and made.headers["Location"].endswith("/workitems/2.25.77")
    assert (await http.post(f"{LIST}?2.25.77", content=json.dumps([scheduled()]), headers=JSON)).status_code == 409
    (found,) = (await http.get(LIST, params={"ProcedureStepState": "SCHEDULED", "WorklistLabel": "AI"})).json()
    assert found[ups.SOP_UID]["Value"] == ["2.25.77"]
    assert (await http.get(LIST, params={"PatientName": "X"})).status_code == 400
    assert (await http.get(f"{LIST}/2.25.78")).status_code == 404
    item = f"{LIST}/2.25.77"
    assert (await _state(http, "2.25.77", "COMPLETED", MINE)).status_code == 409
    assert (await _state(http, "2.25.77", "IN PROGRESS", MINE)).status_code == 200
    assert (await _state(http, "2.25.77", "IN PROGRESS", OTHER)).status_code == 409
    assert (await http.post(item, content=json.dumps([performed()]), headers=JSON)).status_code == 400
    assert (await http.post(f"{item}?{OTHER}", content=json.dumps([performed()]), headers=JSON)).status_code == 400
    refused = await _state(http, "2.25.77", "COMPLETED", MINE)
    assert refused.status_code == 409 and "C304" in refused.headers["Warning"]
    assert (await http.post(f"{item}?{MINE}", content=json.dumps([performed()]), headers=JSON)).status_code == 200
    assert (await _state(http, "2.25.77", "COMPLETED", OTHER)).status_code == 400
    assert (await _state(http, "2.25.77", "COMPLETED", MINE)).status_code == 200
    (told,) = (await http.get(item)).json()
    assert told[ups.STATE]["Value"] == ["COMPLETED"] and ups.TRANSACTION not in told and MINE not in json.dumps(told)
    assert (await http.post(f"{item}/cancelrequest")).status_code == 409
    subscribed = await http.post(f"{item}/subscribers/VIEWER")
    assert subscribed.status_code >= 400 and "not offered" in subscribed.text


# ---- our own ---------------------------------------------------------------------------------------------------------


def test_after_a_power_cut_an_item_goes_on_under_its_transaction_uid_unless_it_was_cancelled() -> None:
    engine = create_engine("sqlite://")
    tables.Base.metadata.create_all(engine)
    now = datetime(2026, 1, 5, 10, 15, tzinfo=UTC)
    with Session(engine) as session:
        for key in ("k1", "k2", "k3"):
            worklist.add(session, ups.created(worklist.uid_for(key), scheduled()), now)
        assert worklist.begin(session, "k1", now)
        before = worklist.get(session, worklist.uid_for("k1"))
        assert worklist.begin(session, "k1", now)  # the same job again, after the cut
        assert worklist.get(session, before.uid) == before and before.transaction
        worklist.finish(session, "k1", now, [])
        worklist.give_up(session, "k1", now, "too late")  # a second end changes nothing
        assert worklist.get(session, before.uid).state is State.COMPLETED
        cancelled = ups.cancellation_requested(worklist.get(session, worklist.uid_for("k2"))).item
        worklist.save(session, cancelled, now)
        assert not worklist.begin(session, "k2", now)
        assert worklist.begin(session, "k3", now)
        asked = ups.cancellation_requested(worklist.get(session, worklist.uid_for("k3"))).item
        worklist.save(session, asked, now)
        assert not worklist.begin(session, "k3", now)  # asked to stop while it was measured, then the cut
        worklist.give_up(session, "k3", now, "cancelled")
        assert worklist.get(session, worklist.uid_for("k3")).state is State.CANCELED


async def test_a_quantification_is_an_item_that_ends_with_its_objects_and_one_that_is_cancelled_is_not_measured(
    desk: Any, networks: Any, phantom: Path
) -> None:
    http: httpx.AsyncClient = desk.http
    await desk.send(phantom)
    study = await desk.study()
    await desk.quantify(study)
    (item,) = (await http.get(LIST, params={"WorklistLabel": "ARCUATE"})).json()
    assert item[ups.STATE]["Value"] == ["COMPLETED"] and ups.TRANSACTION not in item
    (done,) = item[ups.PERFORMED]["Value"]
    classes = {o["00081199"]["Value"][0]["00081150"]["Value"][0] for o in done[ups.OUTPUT]["Value"]}
    segmentation, report, picture = (f"1.2.840.10008.5.1.4.1.1.{rest}" for rest in ("66.4", "88.34", "7"))
    assert classes == {segmentation, report, picture}  # SEG, Comprehensive 3D SR, Secondary Capture
    for output in done[ups.OUTPUT]["Value"]:
        place = output["0040E025"]["Value"][0]["00081190"]["Value"][0]
        series = output["0020000E"]["Value"][0]
        assert (await http.get(f"{place}/series/{series}")).status_code == 200
    uid = item[ups.SOP_UID]["Value"][0]
    refused = await http.post(f"{LIST}/{uid}/cancelrequest")
    assert refused.status_code == 409 and "C311" in refused.headers["Warning"]

    networks.delay_s = 60  # a late image opens the study again; its measurement hangs until somebody cancels it
    late = phantom.parent / "late"
    late.mkdir()
    again = dcmread(sorted(phantom.iterdir())[0])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = "1.2.826.0.1.3680043.10.1234567.77.99.1"
    again.SeriesInstanceUID, again.SeriesDescription = "1.2.826.0.1.3680043.10.1234567.77.99", "scout"
    again.save_as(late / "late.dcm")
    await desk.send(late / "late.dcm")
    await desk.settled()
    study = await desk.fhir.read("ImagingStudy", study["id"])
    assert (
        await http.post(
            "/imaging/ImagingStudy/$quantify", content=strict.dumps(bundle.collection([study])), headers=FHIR
        )
    ).status_code == 202
    (item,) = (await http.get(LIST, params={"WorklistLabel": "ARCUATE"})).json()[:1]
    uid = item[ups.SOP_UID]["Value"][0]
    assert (await http.post(f"{LIST}/{uid}/cancelrequest")).status_code == 202
    (refusal,) = [o for o in bundle.of_type(await desk.quantify(study), "Observation") if o["status"] == "preliminary"]
    assert refusal["dataAbsentReason"]["coding"][1]["code"] == RefusalCode.CANCELED
    (item,) = (await http.get(f"{LIST}/{uid}")).json()
    assert item[ups.STATE]["Value"] == ["CANCELED"]
