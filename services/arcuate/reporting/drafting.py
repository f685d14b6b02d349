"""From resources to the sections of a draft: what a template sees, what is fixed whatever the template says."""

import html
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from arcuate.kernel.codes import Json, accession_of
from arcuate.kernel.fhir.bundle import of_type, one_of_type
from arcuate.reporting import markup
from arcuate.reporting.domain import IMPRESSION, RESEARCH_USE, Section, Values
from arcuate.reporting.passport import lines_of
from arcuate.reporting.templates import Template
from arcuate.reporting.wording import lines, one_line

SIGNED = frozenset({"final", "amended", "corrected", "appended"})
_PRIORS = 5
_SERIES = 30
_FLAGS = 20
_WIDTH = 100


@dataclass(frozen=True)
class Composed:
    """A draft without its head line: equal input gives equal text.

    Attributes:
        faults: Sections that the template could not fill, and why.
    """

    sections: tuple[Section, ...]
    faults: tuple[str, ...]


def exam_text(resource: Json) -> str:
    """Return what an order or a report is about, on one line."""
    code = resource.get("code") or {}
    shown = [str(c.get("display") or c.get("code") or "") for c in code.get("coding") or [] if isinstance(c, dict)]
    return one_line(str(code.get("text") or next((s for s in shown if s), "") or "exam not named"))


def seen_by_template(request: Json, values: Values) -> dict[str, Any]:
    """Return everything that a template may print: texts, numbers as printed, lists; no objects."""
    order = one_of_type(request, "ServiceRequest")
    priors = _priors(request)
    passports = passport_numbers(values)
    return {
        "exam": {
            "text": exam_text(order),
            "accession": one_line(str(accession_of(order) or ""), 64),
            "priority": str(order.get("priority") or "routine"),
        },
        "indication": tuple(
            line for reason in order.get("reasonCode") or [] for line in lines(str(reason.get("text") or ""))
        ),
        "comparison": tuple({"date": date, "text": text} for date, text in priors[:_PRIORS]),
        "comparison_further": max(0, len(priors) - _PRIORS),
        "technique": _technique(request),
        "values": tuple(
            {
                "key": m.field.key,
                "label": m.field.label,
                "value": m.shown,
                "state": m.passport.state,
                "doubt": m.doubt,
                "source": m.source,
                "reviewed": "yes" if m.passport.reviewer else "no",
                "passport": passports[m.field.key],
            }
            for m in values.measured
        ),
        "beyond": values.compared.beyond,
        "within": values.compared.within,
        "limits": values.compared.sources,
        "missing": _missing(values),
        "further": values.further,
    }


def passport_numbers(values: Values) -> dict[str, int]:
    """Return the footnote number of each field's passport; values that share one share its number."""
    numbers: dict[tuple[str, ...], int] = {}
    made = {}
    for m in values.measured:
        key = tuple(lines_of(m.passport))
        made[m.field.key] = numbers.setdefault(key, len(numbers) + 1)
    return made


def _missing(values: Values) -> tuple[dict[str, Any], ...]:
    by_reason: dict[str, list[str]] = {}
    for missing in values.missing:
        by_reason.setdefault(missing.reason, []).append(missing.field.label)
    return tuple({"reason": reason, "labels": tuple(labels)} for reason, labels in by_reason.items())


def _priors(request: Json) -> list[tuple[str, str]]:
    reports = [r for r in of_type(request, "DiagnosticReport") if r.get("status") in SIGNED]
    dated = [
        (str(r.get("effectiveDateTime") or r.get("issued") or "")[:10] or "date not known", exam_text(r))
        for r in reports
    ]
    return sorted(dated, reverse=True)


def _technique(request: Json) -> tuple[str, ...]:
    """Return the series as the scanner named them; nothing is concluded from them."""
    made = []
    for study in of_type(request, "ImagingStudy"):
        for series in study.get("series") or []:
            modality = str((series.get("modality") or {}).get("code") or "")
            number = f"series {series['number']}" if series.get("number") is not None else "series without number"
            count = f", {series['numberOfInstances']} images" if series.get("numberOfInstances") else ""
            made.append(one_line(f"{modality} {number}: {series.get('description') or 'no description'}{count}"))
    return (*made[:_SERIES], *([f"and {len(made) - _SERIES} further series"] if len(made) > _SERIES else []))


def compose(template: Template, request: Json, values: Values, monotonic: Callable[[], float]) -> Composed:
    """Return the draft's sections: those of the template, then those that no template can change."""
    seen = seen_by_template(request, values)
    made = [template.body.section(name, seen, monotonic) for name in template.sections]
    filled = [_said(section) if section.fault else section for section in made]
    faults = tuple(f"{s.name}: {s.fault}" for s in made if s.fault)
    return Composed((*filled, _impression(), *_footnotes(values), *_flags(request)), faults)


def _said(section: Section) -> Section:
    """Return a section that says why it is not filled."""
    title = section.name.replace("-", " ").capitalize()
    return _section(
        section.name,
        f"<h2>{html.escape(title)}</h2><p>[Section {html.escape(section.name)} could not be filled: {html.escape(section.fault)}]</p>",
    )


def _section(name: str, source: str) -> Section:
    tree = markup.parse(source)
    return Section(name, markup.to_html(tree), markup.to_text(tree))


def _impression() -> Section:
    return _section("impression", f"<h2>Impression</h2><p>{IMPRESSION}</p>")


def _footnotes(values: Values) -> Sequence[Section]:
    if not values.measured:
        return ()
    by_number: dict[int, tuple[str, ...]] = {}
    numbers = passport_numbers(values)
    for m in values.measured:
        by_number.setdefault(numbers[m.field.key], tuple(lines_of(m.passport)))
    notes = "".join(
        f"<p>[{n}] {'<br/>'.join(html.escape(line) for line in told)}</p>" for n, told in sorted(by_number.items())
    )
    return (_section("sources", f"<h2>Where the values come from</h2>{notes}<p>{html.escape(RESEARCH_USE)}</p>"),)


def _flags(request: Json) -> Sequence[Section]:
    """Return the open flags of the order as a note to the reader, apart from the report's own text."""
    named = {"high": "Stop", "moderate": "Look"}
    open_flags = [
        (named[str(i.get("severity"))], one_line(str(i.get("detail") or "flag without a sentence"), 300))
        for i in of_type(request, "DetectedIssue")
        if i.get("status") not in {"cancelled", "entered-in-error"} and str(i.get("severity")) in named
    ]
    if not open_flags:
        return ()
    ranked = sorted(open_flags, reverse=True)
    items = "".join(f"<li>{mark}: {html.escape(text)}</li>" for mark, text in ranked[:_FLAGS])
    more = f"<li>and {len(ranked) - _FLAGS} further flags</li>" if len(ranked) > _FLAGS else ""
    return (
        _section("flags", f"<h2>Flags of the order, for the reader (remove before signing)</h2><ul>{items}{more}</ul>"),
    )


def wrapped(text: str) -> str:
    """Return a text in lines that dictation and HL7 take; what goes on is indented or quoted, so that it never looks like a heading."""
    made: list[str] = []
    for line in text.split("\n"):
        further = "> " if line.startswith("> ") else "  "
        made += textwrap.wrap(line, _WIDTH, subsequent_indent=further, break_on_hyphens=False) or [""]
    return "\n".join(made)


def whole(composed: Composed, title: str, head: Sequence[str]) -> tuple[str, str]:
    """Return (text, HTML page) of a draft with its head lines."""
    top = _section("head", "".join(f"<p>{html.escape(line)}</p>" for line in head))
    parts = (top, *composed.sections)
    text = wrapped("\n\n".join(part.text for part in parts if part.text)) + "\n"
    body = "".join(f'<section class="{part.name}">{part.html}</section>' for part in parts)
    head_html = f'<head><meta charset="utf-8"/><title>{html.escape(title)}</title></head>'
    page = f'<!DOCTYPE html><html lang="en">{head_html}<body>{body}</body></html>'
    return text, page
