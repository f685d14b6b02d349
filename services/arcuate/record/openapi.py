"""The OpenAPI description of the record's doors: besides what the framework sees, the quick routes, bodies and search parameters.

The CapabilityStatement is what FHIR clients read; this is for tools that know HTTP alone (schemathesis in our own tests).
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy

from arcuate.kernel.errors import Json
from arcuate.kernel.web import FHIR_JSON

_METHODS = ("get", "post", "put", "patch", "delete")
_TEXT: Json = {"type": "string"}
_QUERY = (
    "_id", "_lastUpdated", "_count", "_sort", "_summary", "_elements", "_include", "_revinclude", "_total", "_has:Task:focus:status",
    "identifier", "patient", "status", "date", "code", "name", "patient.identifier", "status:not", "date:missing", "name:exact",
)  # fmt: skip
_HISTORY = ("_count", "_since", "_after", "_before", "_type", "_sort")
_FORM = "application/x-www-form-urlencoded"
_ENTRY: Json = {
    "type": "object",
    "properties": {
        "fullUrl": _TEXT,
        "resource": {"type": "object"},
        "request": {
            "type": "object",
            "properties": {
                "method": {"enum": ["GET", "POST", "PUT", "PATCH", "DELETE"]}, "url": _TEXT, "ifNoneExist": _TEXT, "ifMatch": _TEXT,
            },
        },
    },
}  # fmt: skip


def described(schema: Json, types: Sequence[str]) -> Json:
    """Return the framework's description with what it does not see.

    Args:
        types: The resource types that are stored.
    """
    schema = deepcopy(schema)  # the framework keeps its own
    paths: Json = schema["paths"]
    resource = _resource(types)
    one, kind = paths["/fhir/{resource_type}/{logical_id}"], paths["/fhir/{resource_type}"]
    one["get"] = _operation("Read a resource", ("_summary", "_elements"))
    kind["get"] = _operation("Search a type", _QUERY)
    kind["post"] = _operation("Create a resource")
    paths["/fhir"]["post"] = _operation("Send a transaction or batch", body=_bundle(), media=FHIR_JSON)
    for path, operations in paths.items():
        for method in _METHODS:
            if method in operations:
                _complete(path, method, operations[method], resource, types)
    return schema


def _complete(path: str, method: str, operation: Json, resource: Json, types: Sequence[str]) -> None:
    kinds: Mapping[str, Json] = {"resource_type": {"type": "string", "enum": list(types)}}
    named = {one["name"] for one in operation.setdefault("parameters", []) if one["in"] == "path"}
    for name in (part.strip("{}") for part in path.split("/") if part.startswith("{")):
        if name not in named:
            operation["parameters"].append({"name": name, "in": "path", "required": True, "schema": _TEXT})
    for one in operation["parameters"]:
        if one["in"] == "path":
            one["schema"] = kinds.get(one["name"], _TEXT)
    if path.endswith("/_search"):
        properties = {"_type": _TEXT, **dict.fromkeys(_QUERY, _TEXT)}
        _take(operation, _FORM, {"type": "object", "properties": properties})
    elif path.startswith("/fhir/Appointment/$"):
        _take(operation, FHIR_JSON, _parameters())
    elif method == "patch":
        _take(operation, "application/json-patch+json", {"type": "array", "items": {"type": "object"}})
    elif method in ("post", "put") and "requestBody" not in operation:
        _take(operation, FHIR_JSON, resource)
    if method == "get" and path == "/fhir":
        operation["parameters"] += _asked(("_type", "_page", *_QUERY))
    if path.endswith("_history"):
        operation["parameters"] += _asked(_HISTORY)
    if method in ("put", "patch", "delete") and path == "/fhir/{resource_type}":
        operation["parameters"] += _asked(("identifier", "_id", "status"))


def _operation(summary: str, query: Sequence[str] = (), body: Json | None = None, media: str = "") -> Json:
    made: Json = {"summary": summary, "parameters": _asked(query), "responses": {"default": {"description": "FHIR"}}}
    if body is not None:
        _take(made, media, body)
    return made


def _asked(names: Sequence[str]) -> list[Json]:
    return [{"name": name, "in": "query", "schema": _TEXT} for name in names]


def _take(operation: Json, media: str, schema: Json) -> None:
    operation["requestBody"] = {"required": True, "content": {media: {"schema": schema}}}


def _resource(types: Sequence[str]) -> Json:
    return {
        "type": "object",
        "required": ["resourceType"],
        "properties": {
            "resourceType": {"enum": list(types)}, "id": _TEXT, "meta": {"type": "object"}, "status": _TEXT,
            "identifier": {"type": "array", "items": {"type": "object", "properties": {"system": _TEXT, "value": _TEXT}}},
            "subject": {"type": "object", "properties": {"reference": _TEXT}},
        },
    }  # fmt: skip


def _bundle() -> Json:
    return {
        "type": "object",
        "required": ["resourceType", "type"],
        "properties": {
            "resourceType": {"enum": ["Bundle"]}, "type": {"enum": ["transaction", "batch"]},
            "entry": {"type": "array", "items": _ENTRY},
        },
    }  # fmt: skip


def _parameters() -> Json:
    names = [
        "start",
        "end",
        "patient-reference",
        "referral-identifier",
        "timing",
        "appointment-reference",
        "appointment-resource",
    ]
    part: Json = {
        "type": "object",
        "required": ["name"],
        "properties": {
            "name": {"enum": names}, "valueDateTime": {"enum": ["2026-03-18", "2026-03-19T08:00:00Z", ""]},
            "valueReference": {"type": "object", "properties": {"reference": _TEXT}}, "resource": {"type": "object"},
            "valueIdentifier": {"type": "object", "properties": {"system": _TEXT, "value": _TEXT}},
            "valueTiming": {"type": "object"},
        },
    }  # fmt: skip
    return {
        "type": "object",
        "required": ["resourceType"],
        "properties": {"resourceType": {"enum": ["Parameters"]}, "parameter": {"type": "array", "items": part}},
    }
