"""What the record does with a resource: numbers it, stamps it, compares it. Pure."""

import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from arcuate.kernel.errors import BadInput, Json
from arcuate.kernel.fhir import strict

_ETAG = re.compile(r'(?:W/)?"([^"]{1,64})"\Z')

# What people and scripts edit side by side: a write must say which version it changes (FAULTS 031).
NEEDS_IF_MATCH = frozenset({"Task", "Appointment", "DiagnosticReport"})


@dataclass(frozen=True)
class Stamp:
    """What the record writes into a resource.

    Attributes:
        source: `meta.source`; None leaves what the sender stated.
    """

    id: str
    version: int
    updated: datetime
    source: str | None = None


@dataclass(frozen=True)
class Stored:
    """The current state of a resource; `body` is its JSON text, None when it was deleted."""

    number: int
    resource_type: str
    id: str
    version: int
    updated: int
    patient: str | None
    body: str | None


def new_id() -> str:
    """Return a random logical id: nothing about a patient stands in an address."""
    return str(uuid.uuid4())


def stamped(resource: Json, stamp: Stamp) -> Json:
    """Return the resource with id and meta as the record states them; everything else stays as received."""
    given = resource.get("meta")
    meta: Json = {"versionId": str(stamp.version), "lastUpdated": instant(stamp.updated)}
    source = stamp.source or (given or {}).get("source")
    if source:
        meta["source"] = source
    kept = {k: v for k, v in (given or {}).items() if k not in ("versionId", "lastUpdated", "source")}
    rest = {k: v for k, v in resource.items() if k not in ("resourceType", "id", "meta")}
    return {"resourceType": resource["resourceType"], "id": stamp.id, "meta": {**meta, **kept}, **rest}


def same_content(resource: Json, body: str) -> bool:
    """Say whether a resource says the same as a stored one, apart from id and meta."""
    stored = strict.loads(body.encode(), strict.HOUSE)
    return strict.dumps(_content(resource)) == strict.dumps(_content(stored))


def _content(resource: Json) -> Json:
    return {name: resource[name] for name in sorted(resource) if name not in ("id", "meta")}


def instant(when: datetime) -> str:
    """Return a FHIR instant in UTC with milliseconds."""
    return when.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def etag(version: int) -> str:
    """Return the ETag of a version."""
    return f'W/"{version}"'


def version_in(header: str | None, where: str = "If-Match") -> str | None:
    """Return the version in an If-Match header or Bundle.entry.request.ifMatch.

    Raises:
        BadInput: It is no ETag.
    """
    if header is None:
        return None
    found = _ETAG.match(header.strip())
    if found is None:
        raise BadInput("If-Match names no version", where=where, todo='Write W/"3" for version 3.', code="value")
    return found.group(1)


def resolved(value: Any, references: Mapping[str, str]) -> Any:
    """Return a copy of a resource in which references to entries of the same Bundle name what these became."""
    if isinstance(value, dict):
        return {
            name: references.get(inner, inner)
            if name == "reference" and isinstance(inner, str)
            else resolved(inner, references)
            for name, inner in value.items()
        }
    if isinstance(value, list):
        return [resolved(inner, references) for inner in value]
    return value


def references_in(value: Any) -> list[str]:
    """Return the texts of all literal references in a resource."""
    found: list[str] = []
    left = [value]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            if isinstance(node.get("reference"), str):
                found.append(node["reference"])
            left += [inner for inner in node.values() if isinstance(inner, dict | list)]
        elif isinstance(node, list):
            left += [inner for inner in node if isinstance(inner, dict | list)]
    return found
