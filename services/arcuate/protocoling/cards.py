"""CDS Hooks 2.0 cards: a flag, a protocol, or which checks could not run. Pure."""

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from arcuate.kernel.codes import CS_EXAM, CS_FLAG, CS_LOINC, coding, concept
from arcuate.protocoling.domain import TOPIC_INCOMPLETE, TOPIC_PROTOCOL, Exam, Flag, FlagClass, Severity, Suggestion
from arcuate.protocoling.exams import Catalogue
from arcuate.protocoling.issues import with_protocol
from arcuate.protocoling.resources import Json, codes_of, objects
from arcuate.protocoling.store import Shown
from arcuate.protocoling.wording import CLASS_NAMES, markdown, printable, short

LABEL = "Arcuate protocoling"
CS_OVERRIDE = "urn:arcuate:cs:override"
OVERRIDES = (
    ("known", "Known and accepted"),
    ("checked", "Checked: it does not apply to this patient"),
    ("benefit", "Benefit outweighs it; documented"),
    ("record-wrong", "The record is out of date"),
    ("rule-wrong", "This rule is wrong here"),
)
_HARD_SAFETY = {
    FlagClass.MRI_SAFETY,
    FlagClass.CONTRAST_RENAL,
    FlagClass.CONTRAST_ALLERGY,
    FlagClass.PREGNANCY,
    FlagClass.IDENTITY,
    FlagClass.LATERALITY,
    FlagClass.SEDATION,
}


@dataclass(frozen=True)
class Made:
    """A card and what is remembered of it."""

    card: Json
    shown: Shown


def flag_card(flag: Flag, order: Json, exam: Exam, catalogue: Catalogue) -> Made:
    """Return the card of a flag, with its fix as a suggestion where one key can do it."""
    actions = _fix_actions(flag, order, exam, catalogue)
    made = _card(
        flag.flag_class, CLASS_NAMES[flag.flag_class], flag.sentence, _indicator(flag, bool(actions)), _detail(flag)
    )
    if actions:
        made["suggestions"] = [{"label": short(flag.fix.sentence, 80), "uuid": str(uuid.uuid4()), "actions": actions}]
        made["selectionBehavior"] = "at-most-one"
    made["overrideReasons"] = [coding(CS_OVERRIDE, code, display) for code, display in OVERRIDES]
    return Made(made, Shown(made["uuid"], flag.flag_class, flag.rule, flag.version))


def _indicator(flag: Flag, actionable: bool) -> str:
    if flag.severity is Severity.INTERRUPTIVE:
        return "critical"
    # Advice that nobody can act on by a key is a note; hard safety is exempt.
    return "warning" if actionable or flag.flag_class in _HARD_SAFETY else "info"


def _detail(flag: Flag) -> str:
    lines = [f"**What to do:** {markdown(flag.fix.sentence)}"]
    lines += [f"- {markdown(e.words)}" for e in flag.evidence[:6]]
    if len(flag.evidence) > 6:
        lines.append(f"- and {len(flag.evidence) - 6} more")
    lines.append(f"Rule {markdown(flag.rule)}, version {flag.version}. {markdown(flag.source)}")
    return "\n\n".join([lines[0], "\n".join(lines[1:-1]), lines[-1]]) if flag.evidence else "\n\n".join(lines)


def protocol_card(suggestion: Suggestion, order: Json) -> Made:
    """Return the card that suggests a protocol; accepting it writes `orderDetail`."""
    made = _card(
        TOPIC_PROTOCOL,
        "Protocol",
        f"Suggested protocol: {suggestion.name} ({suggestion.display})",
        "info",
        markdown(suggestion.why),
    )
    action = _update(order, with_protocol(order, suggestion), f"Write protocol {suggestion.name} into the order")
    made["suggestions"] = [
        {"label": f"Protocol {suggestion.name}", "uuid": str(uuid.uuid4()), "isRecommended": True, "actions": [action]}
    ]
    made["selectionBehavior"] = "at-most-one"
    return Made(made, Shown(made["uuid"], TOPIC_PROTOCOL))


def incomplete_card(sentence: str) -> Made:
    """Return the card that says which checks could not run."""
    made = _card(TOPIC_INCOMPLETE, "Checks that could not run", sentence, "info", markdown(sentence))
    return Made(made, Shown(made["uuid"], TOPIC_INCOMPLETE))


def _card(code: str, display: str, summary: str, indicator: str, detail: str) -> Json:
    return {
        "uuid": str(uuid.uuid4()),
        "summary": short(summary),
        "indicator": indicator,
        "detail": detail,
        "source": {"label": LABEL, "topic": coding(CS_FLAG, code, display)},
    }


def _update(order: Json, changed: Json, description: str) -> Json:
    # An update needs the draft's id (CDS Hooks 2.0, action); a draft without one is offered anew.
    return {
        "type": "update" if order.get("id") else "create",
        "description": printable(description),
        "resource": changed,
    }


def _fix_actions(flag: Flag, order: Json, exam: Exam, catalogue: Catalogue) -> list[Json]:
    build: Callable[[], list[Json]] | None = {
        "set_priority": lambda: [
            _update(order, {**order, "priority": flag.fix.argument}, f"Set the priority to {flag.fix.argument}")
        ],
        "withdraw": lambda: _withdrawal(order),
        "replace_exam": lambda: _replacement(flag.fix.argument, order, exam, catalogue),
        "order_egfr": lambda: _kidney_test(order),
    }.get(flag.fix.action)
    return build() if build else []


def _withdrawal(order: Json) -> list[Json]:
    if not order.get("id"):
        return []
    return [
        {"type": "delete", "description": "Withdraw this draft order", "resourceId": f"ServiceRequest/{order['id']}"}
    ]


def _replacement(argument: str, order: Json, exam: Exam, catalogue: Catalogue) -> list[Json]:
    wanted = dict(part.split("=", 1) for part in argument.split(",") if "=" in part)
    fitting = _fitting(wanted, exam, catalogue)
    if fitting is None:
        return []
    changed = {**order, "code": concept(CS_EXAM, fitting.code, fitting.display)}
    details = [d for d in objects(order.get("orderDetail")) if not codes_of(d, "urn:arcuate:cs:protocol")]
    changed.pop("orderDetail", None)
    if details:
        changed["orderDetail"] = details
    return [_update(order, changed, f"Change the exam to {fitting.display}")]


_OTHER = {
    ("side", "left"): "right",
    ("side", "right"): "left",
    ("contrast", "none"): "iodinated",
    ("contrast", "iodinated"): "none",
}


def _fitting(wanted: dict[str, str], exam: Exam, catalogue: Catalogue) -> Exam | None:
    if wanted.get("technique"):
        found: Sequence[Exam] = [
            e for e in catalogue.exams.values() if wanted["technique"] in e.technique and e.modality == "MR"
        ]
        return found[0] if found else None
    target: dict[str, str | None] = dict(wanted)
    for name in ("side", "contrast"):
        if wanted.get(name) == "other":
            target[name] = _OTHER.get((name, str(getattr(exam, name))))
    if wanted.get("side") == "none":
        target["side"] = None
    return catalogue.fitting(exam, **target)


def _kidney_test(order: Json) -> list[Json]:
    test: Json = {
        "resourceType": "ServiceRequest",
        "status": "draft",
        "intent": "order",
        "priority": "urgent",
        "subject": order.get("subject"),
        "code": concept(CS_LOINC, "98979-8", "Glomerular filtration rate (CKD-EPI 2021) predicted"),
    }
    return (
        [{"type": "create", "description": "Order creatinine with eGFR", "resource": test}]
        if order.get("subject")
        else []
    )
