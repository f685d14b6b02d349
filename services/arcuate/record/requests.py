"""What callers ask the record to change, on which terms, and what became of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property

from arcuate.kernel.errors import BadInput, Json, PreconditionFailed
from arcuate.kernel.fhir import types
from arcuate.record.domain import references_in


@dataclass(frozen=True)
class Request:
    """One wish to change a resource.

    Attributes:
        method: `POST`, `PUT`, `PATCH` or `DELETE`; inside a transaction also `GET`.
        id: The logical id for PUT, PATCH and DELETE of a known resource.
        condition: The search of a conditional create, update, patch or delete; None when it is not conditional.
        if_match: ETag of the version that the caller read.
        where: FHIRPath of the entry, for errors; empty for a request of its own.
        full_url: Under which other requests of the same set refer to this one.
        patch: The operations of a JSON Patch.
        must_be_absent: `If-None-Match: *`: nothing may stand there yet.
        url: What a GET asks for.
    """

    method: str
    resource_type: str
    id: str | None = None
    resource: Json | None = None
    condition: str | None = None
    if_match: str | None = None
    where: str = ""
    full_url: str = ""
    patch: Sequence[Json] | None = None
    must_be_absent: bool = False
    url: str = ""

    @cached_property
    def references(self) -> list[str]:
        """Return the texts of all literal references in the resource."""
        return references_in(self.resource or {})


class StaleVersion(PreconditionFailed):
    """The version in If-Match is not the current one."""

    def __init__(self, version: int, where: str, what: str = "The version in If-Match is not the current one") -> None:
        super().__init__(f"{what}; the current one is {version}", where=where, todo="Read it again.")
        self.version = version


@dataclass(frozen=True)
class Outcome:
    """What became of one request.

    Attributes:
        status: 200, 201 or 204.
        id: Empty when a conditional deletion found nothing.
        changed: A version was written.
        body: The resource as it now stands; None when it was deleted.
    """

    status: int
    resource_type: str
    id: str
    version: int
    updated: int
    patient: str | None
    changed: bool
    body: str | None


@dataclass(frozen=True)
class Terms:
    """What holds for the whole set.

    Attributes:
        source: `meta.source` of everything that is written.
        must_match: The caller is none of the house's rooms: If-Match is required where people edit.
    """

    now: datetime
    source: str | None = None
    must_match: bool = True


def check_resource(request: Request, path: str, *, by_package: bool = True) -> None:
    """Refuse a resource that is missing, of another type or id than its address, or not valid.

    Raises:
        BadInput: It is.
    """
    resource = request.resource
    if not isinstance(resource, dict):
        raise BadInput("The resource is missing", where=path, code="required")
    if resource.get("resourceType") != request.resource_type:
        raise BadInput(f"A {request.resource_type} belongs here", where=f"{path}.resourceType", code="structure")
    if request.method == "PUT" and request.id is not None and resource.get("id") != request.id:
        raise BadInput("The resource's id differs from the one in the address", where=f"{path}.id", code="value")
    types.validate(resource, path, by_package=by_package)
