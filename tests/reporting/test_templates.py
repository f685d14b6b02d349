"""Templates as data: what a department may write, and what a hostile or broken one can do (nothing)."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from arcuate.kernel.auth import Role
from arcuate.kernel.errors import BadInput
from arcuate.reporting import markup
from arcuate.reporting.rendering import Body
from arcuate.reporting.templates import load_templates, read_template

SEEN: dict[str, Any] = {"exam": {"text": "MRI <b>brain</b>"}, "values": tuple(range(200)), "indication": ("{{7*7}}",)}

HOSTILE = [
    "{{ ''.__class__.__mro__ }}",
    "{{ exam['__class__'] }}",
    "{{ exam.items() }}",
    "{{ exam|attr('__class__') }}",
    "{{ range(10**9) }}",
    "{% for a in range(10**9) %}x{% endfor %}",
    "{{ 'x' * 10**9 }}",
    "{{ 'a' ~ 'b' }}",
    "{{ 2 ** 99999999 }}",
    "{% set x = 'a' %}",
    "{% set x %}a{% endset %}",
    "{% macro m() %}{{ m() }}{% endmacro %}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}",
    "{% extends 'x' %}",
    "{{ lipsum() }}",
    "{{ cycler.__init__.__globals__ }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ 'x'|center(1000000000) }}",
    "{{ self.exam() }}",
    "{% for a in values recursive %}{{ loop(values) }}{% endfor %}",
    "{% filter upper %}x{% endfilter %}",
    "{% for a in values %}{% for b in values %}{% for c in values %}{% for d in values %}x{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
    "<script>alert(1)</script>",
    "<p onclick='x()'>a</p>",
    "<p style='x'>a</p>",
    "<a href='javascript:x'>a</a>",
    "<iframe></iframe>",
    "<p>a",
    "</p>",
    "<!-- c -->",
    "<!DOCTYPE html>",
    "{{ nothing.at.all }}",
    "{{ 1/0 }}",
]


@pytest.mark.parametrize("source", HOSTILE)
def test_f070_a_hostile_section_is_left_out_and_the_others_stay(source: str) -> None:
    began = time.process_time()
    body = Body("{% block bad %}" + source + "{% endblock %}{% block good %}<p>{{ exam.text }}</p>{% endblock %}")
    bad, good = (body.section(name, SEEN, time.monotonic) for name in ("bad", "good"))

    if not body.broken:
        assert bad.fault
        assert bad.html == ""
        assert good.fault == ""
        assert good.html == "<p>MRI &lt;b&gt;brain&lt;/b&gt;</p>"
        assert good.text == "MRI <b>brain</b>"
    else:
        assert bad.fault
        assert good.fault
    assert time.process_time() - began < 5


def test_f070_loops_that_are_allowed_still_end_in_time() -> None:
    body = Body(
        "{% block b %}{% for a in values %}{% for b in values %}{% for c in values %}{% endfor %}{% endfor %}{% endfor %}{% endblock %}"
    )
    ticks = iter(range(10**9))
    section = body.section("b", SEEN, lambda: next(ticks) / 1000)  # a clock that moves a millisecond a look
    assert "longer than" in section.fault


def test_f070_a_section_that_grows_too_large_is_left_out() -> None:
    row = "x" * 1000
    body = Body(
        "{% block b %}{% for a in values %}{% for b in values %}"
        + row
        + "{{ b }}{% endfor %}{% endfor %}{% endblock %}"
    )
    assert "grew over" in body.section("b", SEEN, lambda: 0.0).fault


@pytest.mark.parametrize(
    "source",
    [
        "{% block a %}",
        "{{ exam.text }}",
        "{% block a %}{% endblock %}text",
        "{% if x %}",
        "{% block a %}{{ %}{% endblock %}",
    ],
)
def test_f070_a_body_that_cannot_be_read_fills_no_section_and_says_so(source: str) -> None:
    section = Body(source).section("a", SEEN, lambda: 0.0)
    assert section.fault
    assert section.text == ""


@given(st.text(max_size=200))
def test_f070_no_text_as_a_template_escapes(source: str) -> None:
    section = Body("{% block b %}" + source + "{% endblock %}").section("b", SEEN, lambda: 0.0)
    assert "<script" not in section.html.lower()


@given(st.text(max_size=300))
def test_markup_is_refused_or_gives_the_same_words_in_both_forms(source: str) -> None:
    try:
        tree = markup.parse(source)
    except BadInput:
        return
    again = markup.parse(markup.to_html(tree))
    assert markup.to_text(again) == markup.to_text(tree)


def test_a_table_row_reads_as_name_and_values() -> None:
    tree = markup.parse(
        '<table><thead><tr><th scope="col">What</th></tr></thead><tbody><tr data-field="x"><th scope="row">Left\nhippocampus</th>'
        "<td>3.2 mL <sup>[1]</sup></td><td>not reviewed</td></tr></tbody></table>"
    )
    assert markup.to_text(tree) == "Left hippocampus: 3.2 mL [1], not reviewed"


def test_the_templates_that_ship_can_be_read_without_a_fault() -> None:
    shelf = load_templates(Path(__file__).parents[2] / "templates")
    assert shelf.faults == ()
    assert {t.name for t in shelf.templates} == {"brain-mri-volumetry", "neuro-general"}
    for template in shelf.templates:
        assert template.body.broken == ""
        assert template.body.faults == {}


GOOD = """
[template]
version = "1"
title = "T"
code = { system = "http://loinc.org", code = "18748-4" }
sections = ["exam"]
[[field]]
key = "a-left"
label = "Left a"
structure = "a"
side = "left"
unit = "mL"
digits = 1
plausible = [1, 2]
"""


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('title = "T"', "", "title"),
        ('["exam"]', '["impression"]', "impression"),
        ('["exam"]', '["../x"]', "../x"),
        ('"Left a"', '"L a"', "side in full"),
        ('side = "left"', 'side = "links"', "links"),
        ("[1, 2]", '["a", "b"]', "cannot be used"),
        ("digits = 1", "", "digits"),
        ("[template]", "[template", "cannot be used"),
    ],
)
def test_a_broken_template_says_what_is_wrong_and_where(tmp_path: Path, old: str, new: str, named: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "template.toml").write_text(GOOD.replace(old, new), "utf-8")
    (folder / "body.jinja").write_text("{% block exam %}<p>x</p>{% endblock %}", "utf-8")
    with pytest.raises(BadInput) as refused:
        read_template(folder / "template.toml")
    assert named in str(refused.value)
    assert "mine/template.toml" in str(refused.value)


async def test_f070_a_bad_section_or_template_leaves_a_draft_that_names_it(
    tmp_path: Path, open_door: Any, made: SimpleNamespace
) -> None:
    folder = tmp_path / "templates"
    for name, toml, body in (
        ("mine", GOOD + "[match]\nrank = 5\nwords = []\n", "{% block exam %}{{ ''.__class__ }}{% endblock %}"),
        ("broken", "[template", ""),
    ):
        (folder / name).mkdir(parents=True)
        (folder / name / "template.toml").write_text(toml, "utf-8")
        (folder / name / "body.jinja").write_text(body, "utf-8")
    door = await open_door(templates=folder)

    text = await door.text(made.order())

    assert "[Section exam could not be filled: names with _ at the begin may not stand in a template]" in text
    assert "[Impression: to be dictated]" in text
    async with door.http(Role.LEAD) as lead:
        listed = (await lead.get("/reporting/templates")).json()
    assert "broken/template.toml" in listed["left_out"][0]


async def test_a_house_without_templates_is_not_ready_and_says_why(
    tmp_path: Path, open_door: Any, made: SimpleNamespace
) -> None:
    door = await open_door(templates=tmp_path / "none")
    async with door.http() as nobody:
        ready = await nobody.get("/ready")
    assert ready.status_code == 503
    assert "template" in ready.json()["reason"]
    assert (await door.post(made.order())).status_code == 503
