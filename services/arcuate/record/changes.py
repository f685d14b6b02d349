"""Changes to resources: what a set of requests does, all or nothing, in one transaction."""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from urllib.parse import parse_qsl

from arcuate.kernel.errors import BadInput, Gone, Json, NotFound, PreconditionFailed, PreconditionRequired
from arcuate.kernel.fhir import strict
from arcuate.record import patch, store
from arcuate.record.domain import (
    NEEDS_IF_MATCH,
    Stamp,
    Stored,
    new_id,
    resolved,
    same_content,
    stamped,
    version_in,
)
from arcuate.record.indexing import Indexer, IndexRows, micros_of
from arcuate.record.query import Reader, Search, plain
from arcuate.record.requests import Outcome, Request, StaleVersion, Terms, check_resource
from arcuate.record.search import Searcher
from arcuate.record.store import Unit

OwnRules = Mapping[str, Callable[[Json, str], None]]


@dataclass
class _Plan:
    """A request with what it was found to mean.

    Attributes:
        criteria: Hash of the condition under which the resource will be created.
        shares: Another request of this set that creates what this one asks for.
    """

    request: Request
    id: str
    current: Stored | None = None
    criteria: str | None = None
    shares: "_Plan | None" = None
    outcome: Outcome | None = None


@dataclass
class Writer:
    """Applies requests.

    Attributes:
        own_rules: By type, what the record itself asks of a resource beyond FHIR; each raises with the element.
    """

    unit: Unit
    indexer: Indexer
    reader: Reader
    terms: Terms
    own_rules: OwnRules = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.driver = self.unit.driver
        self._searcher = Searcher(self.driver, self.indexer)
        self._created: dict[str, _Plan] = {}
        self._now = micros_of(self.terms.now)

    def apply(self, requests: Sequence[Request]) -> list[Outcome]:
        """Collect what the requests change, and return what becomes of each.

        Raises:
            PreconditionFailed: A stale version, or a condition with several matches.
            PreconditionRequired: A version is missing where people edit.
            NotFound: There is nothing under an id.
            BadInput: Two requests name the same resource, or a reference names nothing.
        """
        plans = [self._plan(request) for request in requests]
        _refuse_twice(plans)
        references = {
            plan.request.full_url: f"{plan.request.resource_type}/{plan.id}" for plan in plans if plan.request.full_url
        }
        for plan in plans:
            plan.outcome = self._perform(plan, references)
        return [plan.outcome for plan in plans if plan.outcome is not None]

    def add(self, resource: Json) -> Outcome:
        """Write a resource of the record's own (Provenance)."""
        return self._write(_Plan(Request("POST", resource["resourceType"]), new_id()), resource)

    def put(self, resource: Json, current: Stored | None = None) -> Outcome:
        """Write a resource of the record's own making under the id that it states; `current` is what stands there."""
        request = Request("PUT" if current else "POST", resource["resourceType"])
        return self._write(_Plan(request, str(resource["id"]), current), resource)

    def _plan(self, request: Request) -> _Plan:
        if request.condition is not None:
            return self._plan_condition(request)
        if request.method == "POST":
            return _Plan(request, new_id())
        current = store.current(self.driver, request.resource_type, request.id or "")
        if current is not None and current.body is None and request.method == "PATCH":
            raise Gone(f"This {request.resource_type} was deleted", where=request.where)
        if current is None:
            raise NotFound(
                f"There is no {request.resource_type} of that id",
                where=request.where,
                todo="Create it by POST; the record gives ids.",
            )
        _check_version(request, current, self.terms)
        return _Plan(request, current.id, current)

    def _plan_condition(self, request: Request) -> _Plan:
        pairs = parse_qsl(request.condition or "", keep_blank_values=True)
        search = self._search(request.resource_type, pairs, f"{request.where}.request" if request.where else "")
        if not search.terms and not search.ids:
            raise BadInput("The condition names no search parameter", where=request.where, code="required")
        matches = self._searcher.matching(search, 2)
        if len(matches) > 1:
            raise PreconditionFailed(
                f"More than one {request.resource_type} matches the condition",
                where=request.where,
                code="multiple-matches",
            )
        if matches:
            current = matches[0]
            _check_version(request, current, self.terms)
            return _Plan(request, current.id, current)
        if request.method == "DELETE":
            return _Plan(request, "")  # nothing to delete: it is as the caller wants it
        if request.method == "PATCH":
            raise NotFound(f"No {request.resource_type} matches the condition", where=request.where)
        criteria = _criteria(request.resource_type, pairs)
        first = self._created.get(criteria)
        if first is not None:
            return _Plan(request, first.id, shares=first)
        self._created[criteria] = _Plan(request, new_id(), criteria=criteria)
        return self._created[criteria]

    def _search(self, resource_type: str, pairs: Sequence[tuple[str, str]], where: str) -> Search:
        try:
            return self.reader.read(resource_type, pairs, strict=True)
        except BadInput as error:
            raise BadInput(f"{error.what} ({error.where})", where=where, todo=error.todo, code=error.code) from None

    def _perform(self, plan: _Plan, references: Mapping[str, str]) -> Outcome:
        request = plan.request
        if plan.shares is not None and plan.shares.outcome is not None:
            return replace(plan.shares.outcome, status=200, changed=False)
        if request.method == "DELETE":
            return self._delete(plan)
        if request.method == "POST" and plan.current is not None:
            return _unchanged(plan.current, 200)
        if request.method == "PATCH" and plan.current is not None:
            return self._patch(plan, plan.current)
        resource = self._resolve(request, references)
        if (
            request.condition is not None
            and plan.current is not None
            and same_content(resource, plan.current.body or "{}")
        ):
            return _unchanged(plan.current, 200)  # the same said again is no change
        return self._write(plan, resource)

    def _patch(self, plan: _Plan, current: Stored) -> Outcome:
        request = plan.request
        stored = strict.loads((current.body or "{}").encode(), strict.HOUSE)
        made = patch.applied(stored, request.patch or [], request.where)
        if strict.dumps(made) == strict.dumps(stored):
            return _unchanged(current, 200)
        judged = replace(request, method="PUT", id=current.id, resource=made)
        check_resource(judged, request.where or request.resource_type, by_package=self.terms.must_match)
        return self._write(plan, made)

    def _resolve(self, request: Request, references: Mapping[str, str]) -> Json:
        resource = request.resource or {}
        known: dict[str, str] = {}
        for text in request.references:
            if text in references:
                known[text] = references[text]
            elif text.startswith("urn:uuid:"):
                raise BadInput("A reference names no entry of this Bundle", where=request.where, code="not-found")
            elif "?" in text and not text.startswith(("http:", "https:", "urn:")):
                known[text] = self._conditional_reference(text, request.where)
        return resolved(resource, known) if known else resource

    def _conditional_reference(self, text: str, where: str) -> str:
        resource_type, _, condition = text.partition("?")
        if resource_type not in self.indexer.parameters.by_type:
            raise BadInput(
                "A conditional reference names no type that is stored here", where=where, code="not-supported"
            )
        pairs = parse_qsl(condition, keep_blank_values=True)
        search = self._search(resource_type, pairs, where)
        matches = self._searcher.matching(search, 2) if search.terms or search.ids else []
        criteria = _criteria(resource_type, pairs)
        if not matches and criteria in self._created:
            return f"{resource_type}/{self._created[criteria].id}"
        if len(matches) != 1:
            what = "more than one resource" if matches else "no resource"
            raise PreconditionFailed(
                f"A conditional reference to {resource_type} matches {what}", where=where,
                code="multiple-matches" if matches else "not-found",
            )  # fmt: skip
        return f"{resource_type}/{matches[0].id}"

    def _write(self, plan: _Plan, resource: Json) -> Outcome:
        if rule := self.own_rules.get(plan.request.resource_type):
            place = plan.request.where
            rule(resource, f"{place}.resource" if place else plan.request.resource_type)
        made = stamped(resource, Stamp(plan.id, _next_version(plan), self.terms.now, self.terms.source))
        body = strict.dumps(made).decode()
        rows = self.indexer.rows(made)
        self._stage(plan, body, rows)
        created = plan.current is None or plan.current.body is None
        return self._outcome(plan, 201 if created else 200, rows.patient, body)

    def _delete(self, plan: _Plan) -> Outcome:
        current = plan.current
        if current is None:
            return Outcome(204, plan.request.resource_type, "", 0, self._now, None, False, None)
        if current.body is None:
            raise Gone(f"This {plan.request.resource_type} was deleted before", where=plan.request.where)
        self._stage(plan, None, IndexRows(patient=current.patient))
        store.release(self.driver, [current.number])
        return self._outcome(plan, 204, current.patient, None)

    def _outcome(self, plan: _Plan, status: int, patient: str | None, body: str | None) -> Outcome:
        return Outcome(
            status,
            plan.request.resource_type,
            plan.id,
            _next_version(plan),
            self._now,
            patient,
            True,
            body,
        )

    def _stage(self, plan: _Plan, body: str | None, rows: IndexRows) -> None:
        seq = self.unit.next_seq()
        number = plan.current.number if plan.current else seq
        name, version, updated = plan.request.resource_type, _next_version(plan), self._now
        batch = self.unit.batch
        batch.versions.append((seq, name, plan.id, version, updated, plan.request.method, body))
        state = (number, name, plan.id, version, seq, updated, body is None, rows.patient)
        (batch.changed if plan.current else batch.created).append(state)
        batch.index(number, rows)
        if plan.criteria is not None:
            batch.claims.append((plan.criteria, number))


def reads_nothing(request: Request) -> bool:
    """Say whether a change can be made without asking the database: a plain create, whose references are literal."""
    return (
        request.method == "POST" and request.condition is None and not any("?" in text for text in request.references)
    )


def source_uri(identifier: Json) -> str:
    """Return the `meta.source` and the key of repetition that a Bundle.identifier means."""
    return f"{identifier.get('system', 'urn:arcuate:id')}#{identifier['value']}"


def _criteria(resource_type: str, pairs: Sequence[tuple[str, str]]) -> str:
    """Return the key under which a condition is claimed."""
    return hashlib.sha256(f"{resource_type}?{plain(pairs)}".encode()).hexdigest()


def _next_version(plan: _Plan) -> int:
    return plan.current.version + 1 if plan.current else 1


def _refuse_twice(plans: Sequence[_Plan]) -> None:
    seen: set[tuple[str, str]] = set()
    for plan in plans:
        if plan.request.method == "POST" or not plan.id:
            continue
        name = (plan.request.resource_type, plan.id)
        if name in seen:
            raise BadInput(
                "Two entries change the same resource", where=plan.request.where, todo="Send it once.", code="invalid"
            )
        seen.add(name)


def _check_version(request: Request, current: Stored, terms: Terms) -> None:
    expected = version_in(request.if_match, f"{request.where}.request.ifMatch" if request.where else "If-Match")
    if expected is not None and expected != str(current.version):
        raise StaleVersion(current.version, request.where)
    if request.must_be_absent and current.body is not None:
        raise StaleVersion(current.version, request.where, "It is there already, and If-None-Match says it must not be")
    edited = request.method in ("PUT", "PATCH") and request.resource_type in NEEDS_IF_MATCH and current.body is not None
    if expected is None and edited and terms.must_match:
        raise PreconditionRequired(
            f"A change of {request.resource_type} needs If-Match",
            where=request.where,
            todo="Name the version that you read.",
        )


def _unchanged(current: Stored, status: int) -> Outcome:
    return Outcome(
        status,
        current.resource_type,
        current.id,
        current.version,
        current.updated,
        current.patient,
        False,
        current.body,
    )
