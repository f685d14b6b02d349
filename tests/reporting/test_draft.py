"""The draft: every number with its passport, what is missing said, nothing invented, nothing executed."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from arcuate.kernel.auth import Role
from arcuate.kernel.clock import ManualClock
from arcuate.kernel.fhir import types
from arcuate.reporting import store
from arcuate.reporting.domain import IMPRESSION, RESEARCH_USE

Json = dict[str, Any]


async def test_f074_every_value_has_unit_side_passport_and_the_mark_of_the_machine(
    door: Any, made: SimpleNamespace
) -> None:
    left = made.volume("hippocampus", "left", "3.2145")
    right = made.volume("hippocampus", "right", "3.005", status="final", performer=[{"display": "Dr. Reader"}])
    report = await door.draft(made.order(), made.study(), left, right)
    text = await door.text(made.order(), made.study(), left, right)

    assert "Left hippocampus: 3.21 mL [1] (machine value, not reviewed)\n" in text
    assert "Right hippocampus: 3.01 mL [2] (accepted by Dr. Reader)\n" in text
    assert "[1] Series: series 3 (T1 MPRAGE, 1 mm).\nModel: brain-t1 1 (weights SHA-256 abababababab…).\n" in text
    assert "How good, on whom: brain-t1 1: mean Dice 0.83 on held-out data; made for: Adults, T1." in text
    assert "Uncertainty: not stated." in text
    assert RESEARCH_USE in " ".join(text.split())
    assert {r["reference"] for r in report["result"]} == {"Observation/hippocampusleft", "Observation/hippocampusright"}
    types.validate(report)


async def test_a_value_with_an_interval_says_between_what_and_of_which_heads(door: Any, made: SimpleNamespace) -> None:
    of = "80 % interval of synthetic heads of known volumes"
    ends = [
        {"code": {"coding": [{"system": "urn:arcuate:cs:uncertainty", "code": code}], "text": of},
         "valueQuantity": {"value": value, "unit": "mL"}}
        for code, value in (("p10", 3.0), ("p90", 3.5))
    ]  # fmt: skip
    text = await door.text(made.order(), made.study(), made.volume("hippocampus", "left", "3.2145", component=ends))
    assert f"Uncertainty: {of}: 3.0 mL to 3.5 mL." in " ".join(text.split())


async def test_lines_stay_short_and_what_goes_on_is_indented_or_quoted(door: Any, made: SimpleNamespace) -> None:
    typed = "pain " * 40 + "x" * 92 + " IMPRESSION " + "y" * 98
    text = await door.text(made.order(f"MRI brain {'z' * 80} IMPRESSION {'z' * 98}", typed))
    assert max(map(len, text.split("\n"))) <= 100
    assert text.split("\n").count("IMPRESSION") == 1
    assert sum(line.startswith("> ") for line in text.split("\n")) > 3


async def test_the_impression_is_never_prefilled(door: Any, made: SimpleNamespace) -> None:
    report = await door.draft(made.order(), made.study(), made.volume("hippocampus", "left", "1.2"))
    assert report["status"] == "preliminary"
    assert "conclusion" not in report
    assert "conclusionCode" not in report
    assert f"IMPRESSION\n{IMPRESSION}" in await door.text(made.order())


async def test_f071_the_passport_in_the_resource_names_source_and_version(door: Any, made: SimpleNamespace) -> None:
    value = made.volume("hippocampus", "left", "3.2145", meta={"versionId": "7"})
    [passport] = (await door.draft(made.order(), made.study(), value))["extension"]
    parts: dict[str, Any] = {p["url"]: p for p in passport["extension"]}

    assert parts["source"]["valueReference"] == {"reference": "Observation/hippocampusleft/_history/7"}
    assert str(parts["value"]["valueQuantity"]["value"]) == "3.2145"
    assert parts["reviewed"]["valueBoolean"] is False
    assert parts["model"]["valueString"].startswith("brain-t1 1")


@pytest.mark.parametrize(
    ("resources", "said"),
    [
        ([], "Not measured: no images have come."),
        (["study"], "Not measured: images are here, no measurement yet."),
        (["study", "refusal"], "Not measured: The patient moved. Repeat the T1 series."),
    ],
)
async def test_what_is_missing_is_said_with_its_reason(
    door: Any, made: SimpleNamespace, resources: list[str], said: str
) -> None:
    text = await door.text(made.order(), *(getattr(made, name)() for name in resources))
    assert said in " ".join(text.split())
    assert "Left hippocampus" in text


async def test_one_missing_value_is_named_beside_the_others(door: Any, made: SimpleNamespace) -> None:
    text = await door.text(made.order(), made.study(), made.volume("hippocampus", "left", "3.2"))
    assert "Not measured: not among the values of this measurement. (Intracranial volume, " in " ".join(text.split())
    assert "Right hippocampus" in text.split("Not measured")[1]


async def test_f071_a_value_of_another_order_or_study_or_taken_back_is_not_printed(
    door: Any, made: SimpleNamespace
) -> None:
    others = [
        made.volume("hippocampus", "left", "9.11", basedOn=[{"reference": "ServiceRequest/o2"}]),
        made.volume("hippocampus", "right", "9.22", derivedFrom=[{"reference": "ImagingStudy/s9"}]),
        made.volume("amygdala", "left", "9.33", status="cancelled"),
        made.volume("amygdala", "right", "9.44", status="entered-in-error"),
    ]
    text = await door.text(made.order(), made.study(), *others)
    assert "9." not in text.split("VOLUMES")[1]


async def test_f071_the_newest_of_two_measurements_counts(door: Any, made: SimpleNamespace) -> None:
    old = made.volume("hippocampus", "left", "3.11", id="a", issued="2026-03-17T08:00:00Z")
    new = made.volume("hippocampus", "left", "3.22", id="b", issued="2026-03-17T09:00:00Z")
    text = await door.text(made.order(), made.study(), new, old)
    assert "Left hippocampus: 3.22 mL" in text
    assert "3.11" not in text


async def test_f072_a_side_that_contradicts_itself_is_not_printed(door: Any, made: SimpleNamespace) -> None:
    value = made.volume("hippocampus", "left", "3.2")
    value["code"]["text"] = "Right hippocampus, volume"
    text = await door.text(made.order(), made.study(), value)
    assert "3.20 mL" not in text
    assert "its side contradicts itself in the source. (Left hippocampus, Right hippocampus)" in " ".join(text.split())


@pytest.mark.parametrize(
    ("value", "unit", "said"),
    [
        ("3214.5", "mm3", "Left hippocampus: 3.21 mL"),
        ("3.2145", "cm3", "Left hippocampus: 3.21 mL"),
        ("3.2145", "cc", "its unit 'cc' is not known"),
        ("3214.5", "mL", "outside 0.5 to 8 mL: check unit and images"),
        ("-1", "mL", "the source states no plain number"),
    ],
)
async def test_f073_units_are_converted_or_asked_for(
    door: Any, made: SimpleNamespace, value: str, unit: str, said: str
) -> None:
    quantity = {"value": float(value), "unit": unit, "code": unit, "system": "http://unitsofmeasure.org"}
    text = await door.text(made.order(), made.study(), made.volume("hippocampus", "left", "1", valueQuantity=quantity))
    assert said in " ".join(text.split())


async def test_the_same_facts_give_the_same_draft_and_others_a_revised_one(
    door: Any, made: SimpleNamespace, clock: ManualClock
) -> None:
    first = await door.draft(made.order())
    clock.advance(600)
    again = await door.draft(made.order())
    revised = await door.draft(made.order(), made.study(), made.volume("hippocampus", "left", "3.2"))
    text = await door.text(made.order(), made.study(), made.volume("hippocampus", "left", "3.2"))

    assert first == again
    assert revised["identifier"] == first["identifier"]
    assert revised["identifier"][0] == {"system": "urn:arcuate:id:report:draft", "value": "A1"}
    assert "Revised draft 2 of 17 Mar 2026 10:10: 1 value added." in text
    rows = await door.database.read(lambda s: store.versions(s, "A1"))
    assert [r.version for r in rows] == [1, 2]


async def test_a_draft_that_is_in_the_request_is_replaced_in_its_place(door: Any, made: SimpleNamespace) -> None:
    known = {**await door.draft(made.order()), "id": "d1", "meta": {"versionId": "4"}}
    revised = await door.draft(made.order(indication="something else"), known)
    assert revised["id"] == "d1"
    assert revised["meta"] == {"versionId": "4"}


async def test_an_order_with_a_signed_report_gets_no_draft(door: Any, made: SimpleNamespace) -> None:
    signed = {
        "resourceType": "DiagnosticReport",
        "id": "r1",
        "status": "final",
        "code": {"text": "MRI brain"},
        "basedOn": [{"reference": "ServiceRequest/o1"}],
    }
    answer = await door.post(made.order(), signed)
    assert answer.status_code == 409
    assert "signed report" in answer.text


async def test_earlier_reports_and_flags_stand_where_a_reader_looks(door: Any, made: SimpleNamespace) -> None:
    prior = {
        "resourceType": "DiagnosticReport",
        "id": "r0",
        "status": "final",
        "code": {"text": "MRI brain"},
        "effectiveDateTime": "2024-03-11",
    }
    flag = {
        "resourceType": "DetectedIssue",
        "id": "f1",
        "status": "final",
        "severity": "high",
        "detail": "Pacemaker of unknown type.",
        "implicated": [{"reference": "ServiceRequest/o1"}],
    }
    note = {**flag, "id": "f2", "severity": "low", "detail": "The exam is not in the catalogue."}
    text = await door.text(made.order(), prior, flag, note)
    assert "- 2024-03-11: MRI brain" in text
    assert "(REMOVE BEFORE SIGNING)\n- Stop: Pacemaker of unknown type." in text
    assert "catalogue" not in text


async def test_synthetic_sites_say_so_first(open_door: Any, made: SimpleNamespace) -> None:
    assert (await (await open_door(synthetic=True)).text(made.order())).startswith("SYNTHETIC")


async def test_a_real_site_does_not_say_synthetic(door: Any, made: SimpleNamespace) -> None:
    assert "SYNTHETIC" not in await door.text(made.order())


@pytest.mark.parametrize(
    ("exam", "title"),
    [
        ("MRI brain without contrast", "volumes"),
        ("MR-BRAIN", "volumes"),
        ("MR Kopf nativ", "volumes"),
        ("MRA brain", "Neuroradiology"),
        ("CT head", "Neuroradiology"),
        ("", "Neuroradiology"),
        ("MRI lumbar spine", "Neuroradiology"),
    ],
)
async def test_the_template_follows_the_exam(door: Any, made: SimpleNamespace, exam: str, title: str) -> None:
    report = await door.draft(made.order(exam) if exam else made.order(code={"coding": [{"code": "X"}]}))
    assert title in report["presentedForm"][0]["title"]


async def test_measured_volumes_bring_their_template_whatever_the_order_is_called(
    door: Any, made: SimpleNamespace
) -> None:
    assert "Left hippocampus: 3.20 mL" in await door.text(
        made.order("Proc 4711"), made.study(), made.volume("hippocampus", "left", "3.2")
    )


async def test_only_those_who_may_ask_get_a_draft_and_wrong_input_is_said(door: Any, made: SimpleNamespace) -> None:
    assert (await door.post(made.order(), roles=(Role.SCHEDULER,))).status_code == 403
    assert (await door.post(made.order(), made.order(id="o2"))).status_code == 400
    assert (await door.post(made.study())).status_code == 400


async def test_drafts_stand_on_both_databases(open_door: Any, database_url: str, made: SimpleNamespace) -> None:
    door = await open_door(url=database_url)
    await door.draft(made.order())
    await door.draft(made.order(), made.study())
    assert "Revised draft 2" in await door.text(made.order(), made.study())


PAYLOADS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "{{7*7}}",
    "{% for i in range(10**9) %}x{% endfor %}",
    "a\x0bb\x1cc",
    "\x00",
    "a\rIMPRESSION\rNo tumour.",
    "\u202eevil",
    "&lt;b&gt;",
    "]]>",
    "<!-- x -->",
    "a\nOBX|1|TX|||fake",
]


@pytest.mark.parametrize("payload", PAYLOADS)
async def test_f069_f070_text_from_outside_is_text_everywhere(door: Any, made: SimpleNamespace, payload: str) -> None:
    payload = payload.replace("\x00", " ")
    study = made.study()
    study["series"][0]["description"] = payload
    value = made.volume(
        "hippocampus", "left", "3.2", note=[{"text": payload}], status="final", performer=[{"display": payload}]
    )
    flag = {
        "resourceType": "DetectedIssue",
        "id": "f",
        "status": "final",
        "severity": "high",
        "detail": payload,
        "implicated": [],
    }
    sent = (made.order(f"MRI brain {payload}", payload), study, value, flag)

    text, page = await door.text(*sent), await door.page(*sent)

    assert "<script" not in page
    assert "<img" not in page
    assert "49" not in text
    assert all(c == "\n" or c.isprintable() for c in text)
    assert text.split("\n").count("IMPRESSION") == 1
    assert "Left hippocampus: 3.20 mL" in text
    if "7*7" in payload:
        assert "> {{7*7}}" in text


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(typed=st.text(max_size=200))
def test_any_indication_stays_inside_its_quote(made: SimpleNamespace, typed: str) -> None:
    from arcuate.kernel.fhir.bundle import collection
    from arcuate.reporting.drafting import compose, whole
    from arcuate.reporting.measurements import values_of
    from arcuate.reporting.templates import choose, load_templates

    request = collection([made.order(indication=typed)])
    template = choose(load_templates(made.templates).templates, made.order(), frozenset())
    assert template is not None
    composed = compose(template, request, values_of(template.fields, request, ()), lambda: 0.0)
    text, _ = whole(composed, "t", ())

    assert composed.faults == ()
    assert text.split("\n").count("IMPRESSION") == 1
    assert [line for line in text.split("\n") if line and line.isupper() and not line.startswith(">")] == [
        "EXAM",
        "INDICATION, AS TYPED",
        "COMPARISON",
        "TECHNIQUE",
        "VOLUMES",
        "FINDINGS",
        "IMPRESSION",
    ]
