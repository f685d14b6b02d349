"""Bundles: builders for collections and transactions, and readers (FHIR R4, 2.36)."""

import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from arcuate.kernel.errors import BadInput, Json


@dataclass(frozen=True)
class Entry:
    """One entry of a transaction; made by `create`, `update`, `update_where`, `delete` and `read`.

    Attributes:
        full_url: `urn:uuid:…`, under which other entries of the same transaction may refer to this one.
    """

    method: str
    url: str
    resource: Json | None = None
    full_url: str = field(default_factory=lambda: f"urn:uuid:{uuid.uuid4()}")
    conditions: Mapping[str, str] = field(default_factory=dict)

    @property
    def reference(self) -> Json:
        """Return a Reference to this entry for use inside the same transaction."""
        return {"reference": self.full_url}


def create(resource: Json, if_none_exist: Mapping[str, str] | str | None = None) -> Entry:
    """Return an entry that creates a resource, unless one matches the condition (`{"identifier": "system|value"}`)."""
    conditions = {"ifNoneExist": _query(if_none_exist)} if if_none_exist else {}
    return Entry("POST", resource["resourceType"], resource, conditions=conditions)


def update(resource: Json, if_match: str | None = None) -> Entry:
    """Return an entry that updates the resource with this id; `if_match` is the version that was read."""
    where = f"{resource['resourceType']}/{resource['id']}"
    return Entry("PUT", where, resource, conditions={"ifMatch": f'W/"{if_match}"'} if if_match else {})


def update_where(resource: Json, condition: Mapping[str, str] | str) -> Entry:
    """Return an entry that updates the one resource that matches, or creates it."""
    return Entry("PUT", f"{resource['resourceType']}?{_query(condition)}", resource)


def delete(resource_type: str, logical_id: str) -> Entry:
    """Return an entry that deletes a resource."""
    return Entry("DELETE", f"{resource_type}/{logical_id}")


def transaction(entries: Iterable[Entry], source: Json | None = None) -> Json:
    """Return a transaction Bundle.

    Args:
        entries: All take effect, or none.
        source: The Identifier of what caused it (a message's journal number, a job): the record answers a repeated one with its
            first answer, and writes it into `meta.source`.
    """
    made: Json = {"resourceType": "Bundle", "type": "transaction"}
    if source:
        made["identifier"] = source
    listed = [_entry(entry) for entry in entries]
    if listed:
        made["entry"] = listed
    return made


def collection(resources: Iterable[Json]) -> Json:
    """Return a Bundle of type collection: what operations take and give; a resource given twice stands in it once (bdl-7)."""
    made: Json = {"resourceType": "Bundle", "type": "collection"}
    entries: dict[str, Json] = {}
    for resource in resources:
        logical_id = resource.get("id")
        full_url = f"{resource['resourceType']}/{logical_id}" if logical_id else f"urn:uuid:{uuid.uuid4()}"
        entries.setdefault(full_url, {"fullUrl": _absolute(full_url), "resource": resource})
    if entries:
        made["entry"] = list(entries.values())
    return made


def resources(bundle: Json) -> Iterator[Json]:
    """Yield the resources of a Bundle in their order."""
    for entry in bundle.get("entry") or []:
        resource = entry.get("resource")
        if isinstance(resource, dict):
            yield resource


def of_type(bundle: Json, *resource_types: str) -> list[Json]:
    """Return the Bundle's resources of these types."""
    return [resource for resource in resources(bundle) if resource.get("resourceType") in resource_types]


def find(bundle: Json, reference: Json | str | None) -> Json | None:
    """Return the resource of the Bundle that a Reference (or its text) names, or None.

    `Type/id`, absolute addresses that end so, and `urn:uuid:` are understood.
    """
    text = reference.get("reference") if isinstance(reference, dict) else reference
    if not isinstance(text, str) or not text:
        return None
    text = text.split("/_history/")[0]
    parts = text.rsplit("/", 2)
    for entry in bundle.get("entry") or []:
        resource = entry.get("resource")
        if not isinstance(resource, dict):
            continue
        if entry.get("fullUrl") == text:
            return resource
        if len(parts) >= 2 and [resource.get("resourceType"), resource.get("id")] == parts[-2:]:
            return resource
    return None


def one_of_type(bundle: Json, resource_type: str) -> Json:
    """Return the only resource of a type.

    Raises:
        BadInput: There is none, or more than one.
    """
    found = of_type(bundle, resource_type)
    if len(found) != 1:
        raise BadInput(
            f"The Bundle holds {len(found)} resources of type {resource_type}; exactly one belongs there",
            where=f"Bundle.entry.resource.ofType({resource_type})",
        )
    return found[0]


def require_bundle(value: Any, *kinds: str) -> Json:
    """Return the value if it is a Bundle of one of these kinds (any, when none is named).

    Raises:
        BadInput: It is not.
    """
    if not isinstance(value, dict) or value.get("resourceType") != "Bundle":
        raise BadInput("A Bundle belongs here", where="Bundle", code="structure")
    if kinds and value.get("type") not in kinds:
        raise BadInput(f"A Bundle of type {' or '.join(kinds)} belongs here", where="Bundle.type", code="value")
    entries = value.get("entry", [])
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise BadInput("Bundle.entry is an array of objects", where="Bundle.entry", code="structure")
    return value


def next_link(bundle: Json) -> str | None:
    """Return the address of the next page, or None."""
    links: Sequence[Json] = bundle.get("link") or []
    return next((str(link.get("url")) for link in links if link.get("relation") == "next"), None)


def reference_id(reference: Json | None, resource_type: str | None = None) -> str | None:
    """Return the id in a literal Reference (`Patient/abc` gives `abc`), or None; with a type, only of that type."""
    text = (reference or {}).get("reference")
    if not isinstance(text, str) or text.startswith(("urn:", "#")) or "/" not in text:
        return None
    kind, logical_id = text.split("/_history/")[0].rsplit("/", 2)[-2:]
    return logical_id if resource_type in (None, kind) else None


def _entry(entry: Entry) -> Json:
    made: Json = {"fullUrl": entry.full_url} if entry.resource is not None else {}
    if entry.method == "PUT" and "?" not in entry.url:
        made["fullUrl"] = _absolute(entry.url)
    if entry.resource is not None:
        made["resource"] = entry.resource
    made["request"] = {"method": entry.method, "url": entry.url, **entry.conditions}
    return made


HOUSE_BASE = "http://arcuate/fhir"
"""Base of `fullUrl` in Bundles that rooms build; relative references inside resolve against it."""


def _absolute(url: str) -> str:
    # bdl-7 and the meaning of fullUrl ask for an absolute address; the house has none of its own that all callers share.
    return url if url.startswith("urn:") else f"{HOUSE_BASE}/{url}"


def _query(condition: Mapping[str, str] | str) -> str:
    return condition if isinstance(condition, str) else urlencode(condition)
