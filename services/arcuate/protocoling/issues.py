"""Flags as DetectedIssue, a protocol as `orderDetail` of the order (FHIR R4). Pure."""

from datetime import datetime

from arcuate.kernel.codes import CS_FLAG, CS_PROTOCOL, concept, identifier
from arcuate.protocoling.domain import TOPIC_INCOMPLETE, Decision, Evidence, Flag, Severity, Suggestion
from arcuate.protocoling.resources import Json, codes_of, objects, reference_of, string
from arcuate.protocoling.wording import CLASS_NAMES, printable

SYSTEM_FLAG = "urn:arcuate:id:flag"
"""Identifier of a flag: rule, version and order, so that the same flag of a later check replaces this one."""

_SEVERITY = {Severity.INTERRUPTIVE: "high", Severity.PASSIVE: "moderate"}


def detected_issues(decision: Decision, order: Json, at: datetime, incomplete: str) -> list[Json]:
    """Return one DetectedIssue for each flag, and one more when checks could not run.

    Args:
        incomplete: The sentence that says which checks could not run; empty when all ran.
    """
    made = [_issue(flag, order, at) for flag in decision.flags]
    if incomplete:
        made.append(_shared(order, at, f"{TOPIC_INCOMPLETE}/1") | {
            "code": concept(CS_FLAG, TOPIC_INCOMPLETE, "Checks that could not run"), "severity": "low", "detail": incomplete,
        })  # fmt: skip
    return made


def _shared(order: Json, at: datetime, rule: str) -> Json:
    reference = reference_of(order)
    made: Json = {
        "resourceType": "DetectedIssue", "status": "final", "identifier": [identifier(SYSTEM_FLAG, f"{rule}/{reference or 'draft'}")],
        "identifiedDateTime": at.isoformat(timespec="seconds"),
    }  # fmt: skip
    subject = order.get("subject")
    if isinstance(subject, dict) and string(subject.get("reference")).startswith("Patient/"):
        made["patient"] = {"reference": subject["reference"]}
    if reference:
        made["implicated"] = [{"reference": reference}]
    return made


def _issue(flag: Flag, order: Json, at: datetime) -> Json:
    made = _shared(order, at, f"{flag.rule}/{flag.version}") | {
        "code": concept(CS_FLAG, flag.flag_class, CLASS_NAMES[flag.flag_class]),
        "severity": _SEVERITY[flag.severity],
        "detail": printable(flag.sentence),
        "mitigation": [{"action": {"text": printable(flag.fix.sentence)}}],
    }
    if flag.evidence:
        made["evidence"] = [_evidence(e) for e in flag.evidence]
    return made


def _evidence(evidence: Evidence) -> Json:
    made: Json = {"code": [{"text": printable(evidence.words)}]}
    if evidence.reference:
        made["detail"] = [{"reference": evidence.reference}]
    return made


def with_protocol(order: Json, suggestion: Suggestion) -> Json:
    """Return a copy of the order whose `orderDetail` names the protocol, in place of one named before."""
    kept = [d for d in objects(order.get("orderDetail")) if not codes_of(d, CS_PROTOCOL)]
    return {**order, "orderDetail": [concept(CS_PROTOCOL, suggestion.name, suggestion.display), *kept]}
