"""The use case of the reporting room: resources in, the draft out."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import Session

from arcuate.kernel.clock import Clock
from arcuate.kernel.codes import Json
from arcuate.kernel.db import Database
from arcuate.kernel.errors import Conflict, Unavailable
from arcuate.kernel.fhir import strict
from arcuate.kernel.fhir.bundle import collection, one_of_type, require_bundle
from arcuate.kernel.log import get_logger
from arcuate.kernel.settings import SiteSettings
from arcuate.reporting import store
from arcuate.reporting.domain import Values, change
from arcuate.reporting.drafting import Composed, compose, whole
from arcuate.reporting.measurements import structures_of, values_of
from arcuate.reporting.passport import Card
from arcuate.reporting.report import Paper, diagnostic_report, draft_key, in_place_of, signed_of
from arcuate.reporting.settings import ReportingSettings
from arcuate.reporting.tables import DraftRow
from arcuate.reporting.templates import Template, choose

_log = get_logger("reporting")


@dataclass(frozen=True)
class Reporting:
    """What the use case works with.

    Attributes:
        cards: What the cards of this house's models state.
    """

    database: Database
    clock: Clock
    site: SiteSettings
    settings: ReportingSettings
    templates: tuple[Template, ...]
    cards: tuple[Card, ...]


@dataclass(frozen=True)
class Material:
    """Everything that makes one version of a draft, but its number and time."""

    order: Json
    request: Json
    template: Template
    values: Values
    composed: Composed
    digest: str

    @property
    def amounts(self) -> dict[str, str]:
        """The values as printed, by field."""
        return {m.field.key: m.shown for m in self.values.measured}


async def draft(room: Reporting, request: Json) -> Json:
    """Write the draft of the Bundle's order. The same facts give the same draft; other facts the next version, which says so.

    Raises:
        BadInput: No collection Bundle, or not exactly one ServiceRequest in it.
        Conflict: The order has a signed report already.
        Unavailable: The house has no template.
    """
    order = one_of_type(require_bundle(request, "collection"), "ServiceRequest")
    if signed_of(request, order):
        raise Conflict(
            "This order has a signed report: it gets no draft any more",
            todo="Read the signed report.",
            code="business-rule",
        )
    material = await asyncio.to_thread(_material, room, order, request)
    now = room.clock.now()
    report = await room.database.write(lambda session: _version(session, room, material, now))
    return collection([in_place_of(report, request)])


def _material(room: Reporting, order: Json, request: Json) -> Material:
    template = choose(room.templates, order, structures_of(request))
    if template is None:
        raise Unavailable(
            "No report template fits this order", todo="Put a template with an empty [match] into the templates folder."
        )
    values = values_of(template.fields, request, room.cards)
    composed = compose(template, request, values, room.clock.monotonic)
    if composed.faults:
        _log.error("template_section_left_out", template=template.name, faults=list(composed.faults))
    text, page = whole(composed, template.title, ())
    # The references belong to the draft too: a value measured again without a change of the number is another value.
    facts = [template.name, template.version, text, page, *values.results, *(m.source for m in values.measured)]
    return Material(order, request, template, values, composed, hashlib.sha256("\x00".join(facts).encode()).hexdigest())


def _version(session: Session, room: Reporting, material: Material, now: datetime) -> Json:
    """Return the stored report when nothing changed, else write the next version. Runs inside a transaction; may run again."""
    key = draft_key(material.order)
    before = store.latest(session, key)
    if before is not None and before.digest == material.digest:
        return strict.loads(before.report.encode(), strict.HOUSE)
    number = before.version + 1 if before else 1
    earlier: dict[str, str] = json.loads(before.amounts) if before else {}
    head = _head(room, number, now, change(earlier, material.amounts).sentence() if before else "")
    text, page = whole(material.composed, material.template.title, head)
    paper = Paper(material.template.title, material.template.code, text, page, now)
    report = diagnostic_report(material.order, material.request, paper, material.values)
    store.keep(
        session,
        DraftRow(
            order_key=key,
            version=number,
            digest=material.digest,
            template=f"{material.template.name} {material.template.version}",
            at=now,
            text=text,
            report=strict.dumps(report).decode(),
            amounts=json.dumps(material.amounts),
            faults=json.dumps(material.composed.faults),
        ),
    )
    return report


def _head(room: Reporting, number: int, now: datetime, changed: str) -> Sequence[str]:
    """Return the lines above every draft; no template can take them away."""
    when = now.astimezone(room.site.zone).strftime("%d %b %Y %H:%M")
    which = f"Revised draft {number} of {when}: {changed}." if number > 1 else f"Draft of {when}."
    synthetic = ["SYNTHETIC: an invented patient and invented data."] if room.site.synthetic else []
    return (*synthetic, f"DRAFT, not signed. {which} For review by a person.")


async def tidy(room: Reporting) -> None:
    """Forget versions older than the keeping time."""
    before = room.clock.now() - timedelta(days=room.settings.keep_days)
    await room.database.write(lambda session: store.forget(session, before))
