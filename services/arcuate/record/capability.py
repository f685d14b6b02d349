"""The CapabilityStatement: what this record can do, read from the tables that it runs by (FHIR R4, 5.1)."""

from datetime import datetime
from importlib.metadata import version

from arcuate.kernel.errors import Json
from arcuate.record.domain import instant
from arcuate.record.parameters import Parameter, Parameters

_INTERACTIONS = ("read", "vread", "update", "delete", "history-instance", "history-type", "create", "search-type")
_COMMON = (("_id", "token"), ("_lastUpdated", "date"))


def capability_statement(parameters: Parameters, base: str, site: str, started: datetime) -> Json:
    """Return the CapabilityStatement."""
    revincludes = _revincludes(parameters)
    resources = [_resource(parameters, name, revincludes.get(name, [])) for name in parameters.types]
    resources.append(_audit_event())
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": instant(started),
        "kind": "instance",
        "software": {"name": "Arcuate", "version": version("arcuate")},
        "implementation": {"description": f"The record of {site}", "url": base},
        "fhirVersion": "4.0.1",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "security": {
                    "service": [_security("SMART-on-FHIR")],
                    "description": "A bearer token on every call but this one (SMART Backend Services at /auth/token).",
                },
                "resource": sorted(resources, key=lambda resource: str(resource["type"])),
                "interaction": [{"code": code} for code in ("transaction", "batch", "history-system")],
            }
        ],
    }


def _security(code: str) -> Json:
    return {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/restful-security-service", "code": code}]}


def _resource(parameters: Parameters, name: str, revincludes: list[str]) -> Json:
    found = parameters.by_type[name]
    includes = sorted(f"{name}:{p.name}" for p in found.values() if p.kind == "reference")
    made: Json = {
        "type": name,
        "interaction": [{"code": code} for code in _INTERACTIONS],
        "versioning": "versioned",
        "readHistory": True,
        "updateCreate": False,
        "conditionalCreate": True,
        "conditionalRead": "not-match",
        "conditionalUpdate": True,
        "conditionalDelete": "not-supported",
        "referencePolicy": ["literal", "logical"],
        "searchParam": [{"name": common, "type": kind} for common, kind in _COMMON]
        + [_search_param(parameter) for _, parameter in sorted(found.items())],
    }
    if includes:
        made["searchInclude"] = includes
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
