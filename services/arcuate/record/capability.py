"""The CapabilityStatement: what this record can do, read from the tables that it runs by (FHIR R4, 5.1)."""

from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version

from arcuate.kernel.errors import Json
from arcuate.record import patch
from arcuate.record.domain import instant
from arcuate.record.parameters import Parameter, Parameters
from arcuate.record.subscriptions.wishes import topics

_INTERACTIONS = {
    "read": ("GET", "/fhir/{resource_type}/{logical_id}"),
    "vread": ("GET", "/fhir/{resource_type}/{logical_id}/_history/{version}"),
    "update": ("PUT", "/fhir/{resource_type}/{logical_id}"),
    "patch": ("PATCH", "/fhir/{resource_type}/{logical_id}"),
    "delete": ("DELETE", "/fhir/{resource_type}/{logical_id}"),
    "history-instance": ("GET", "/fhir/{resource_type}/{logical_id}/_history"),
    "history-type": ("GET", "/fhir/{resource_type}/_history"),
    "create": ("POST", "/fhir/{resource_type}"),
    "search-type": ("GET", "/fhir/{resource_type}"),
}
_SYSTEM = {
    "transaction": ("POST", "/fhir"),
    "batch": ("POST", "/fhir"),
    "search-system": ("GET", "/fhir"),
    "history-system": ("GET", "/fhir/_history"),
}
_FHIR = "http://hl7.org/fhir/OperationDefinition"
_BULK = "http://hl7.org/fhir/uv/bulkdata/OperationDefinition"
_TOPICS = (
    "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/capabilitystatement-subscriptiontopic-canonical"
)
_SCHEDULING = "https://profiles.ihe.net/ITI/Scheduling/OperationDefinition"
_BACKPORT = "http://hl7.org/fhir/uv/subscriptions-backport/OperationDefinition"
_OPERATIONS: Sequence[tuple[str, str, str, tuple[str, ...]]] = (
    # name, definition, route, types ("" the system, "*" every stored type)
    ("validate", f"{_FHIR}/Resource-validate", "/fhir/{resource_type}/$validate", ("*",)),
    ("export", f"{_BULK}/export", "/fhir/$export", ("",)),
    ("find", f"{_SCHEDULING}/appointment-find", "/fhir/Appointment/$find", ("Appointment",)),
    ("hold", f"{_SCHEDULING}/appointment-hold", "/fhir/Appointment/$hold", ("Appointment",)),
    ("book", f"{_SCHEDULING}/appointment-book", "/fhir/Appointment/$book", ("Appointment",)),
    ("patient-export", f"{_BULK}/patient-export", "/fhir/Patient/$export", ("Patient",)),
    ("group-export", f"{_BULK}/group-export", "/fhir/Group/{logical_id}/$export", ("Group",)),
    (
        "status",
        f"{_BACKPORT}/backport-subscription-status",
        "/fhir/Subscription/{logical_id}/$status",
        ("Subscription",),
    ),
    (
        "events",
        f"{_BACKPORT}/backport-subscription-events",
        "/fhir/Subscription/{logical_id}/$events",
        ("Subscription",),
    ),
)
_COMMON = (("_id", "token"), ("_lastUpdated", "date"))

Doors = frozenset[tuple[str, str]]
"""Methods and paths of the routes that run."""


def capability_statement(parameters: Parameters, doors: Doors, base: str, site: str, started: datetime) -> Json:
    """Return the CapabilityStatement: what is said follows from the routes and the search parameters."""
    revincludes = _revincludes(parameters)
    resources = [_resource(parameters, doors, name, revincludes.get(name, [])) for name in parameters.types]
    resources.append(_audit_event())
    rest: Json = {
        "mode": "server",
        "security": {
            "service": [_security("SMART-on-FHIR")],
            "description": "A bearer token on every call but this one (SMART Backend Services at /auth/token).",
        },
        "resource": sorted(resources, key=lambda resource: str(resource["type"])),
        "interaction": [{"code": code} for code, door in _SYSTEM.items() if door in doors],
        "searchParam": [{"name": name, "type": kind} for name, kind in (*_COMMON, ("_type", "token"))],
    }
    if operations := _operations(doors, ""):
        rest["operation"] = operations
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": instant(started),
        "kind": "instance",
        "software": {"name": "Arcuate", "version": version("arcuate")},
        "implementation": {"description": f"The record of {site}", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "patchFormat": [patch.MEDIA],
        "rest": [rest],
    }


def _operations(doors: Doors, resource_type: str) -> list[Json]:
    paths = {path for _, path in doors}
    return [
        {"name": name.rpartition("-")[2], "definition": definition}
        for name, definition, path, types in _OPERATIONS
        if path in paths and (resource_type in types or (resource_type and "*" in types))
    ]


def _security(code: str) -> Json:
    return {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/restful-security-service", "code": code}]}


def _resource(parameters: Parameters, doors: Doors, name: str, revincludes: list[str]) -> Json:
    found = parameters.by_type[name]
    includes = sorted(f"{name}:{p.name}" for p in found.values() if p.kind == "reference")
    made: Json = {
        "type": name,
        "interaction": [{"code": code} for code, door in _INTERACTIONS.items() if door in doors],
        "versioning": "versioned",
        "readHistory": True,
        "updateCreate": False,
        "conditionalCreate": True,
        "conditionalRead": "full-support",
        "conditionalUpdate": ("PUT", "/fhir/{resource_type}") in doors,
        "conditionalDelete": "single" if ("DELETE", "/fhir/{resource_type}") in doors else "not-supported",
        "referencePolicy": ["literal", "logical"],
        "searchParam": [{"name": common, "type": kind} for common, kind in _COMMON]
        + [_search_param(parameter) for _, parameter in sorted(found.items())],
    }
    if operations := _operations(doors, name):
        made["operation"] = operations
    if name == "Subscription":
        made["extension"] = [{"url": _TOPICS, "valueCanonical": url} for url in topics()]
    if includes:
        made["searchInclude"] = [f"{name}:*", *includes]
    if revincludes:
        made["searchRevInclude"] = revincludes
    return made


def _search_param(parameter: Parameter) -> Json:
    said = parameter.path if parameter.official else f"{parameter.path} (of this house)"
    return {"name": parameter.name, "type": parameter.kind, "documentation": said}


def _revincludes(parameters: Parameters) -> dict[str, list[str]]:
    """Return, for each type, the reference parameters whose own name or path says that they lead there."""
    found: dict[str, list[str]] = {}
    for name, listed in parameters.by_type.items():
        for parameter in listed.values():
            targets = set(parameter.targets)
            if parameter.name == "patient":
                targets.add("Patient")
            for target in targets:
                found.setdefault(target, []).append(f"{name}:{parameter.name}")
    return {target: sorted(names) for target, names in found.items()}


def _audit_event() -> Json:
    return {
        "type": "AuditEvent",
        "interaction": [{"code": "read"}, {"code": "search-type"}],
        "versioning": "no-version",
        "searchParam": [
            {"name": "date", "type": "date"},
            {"name": "agent", "type": "token"},
            {"name": "entity", "type": "reference"},
            {"name": "patient", "type": "reference"},
            {"name": "subtype", "type": "token"},
        ],
    }
