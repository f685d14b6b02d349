"""One tree of errors, split by who can act, and the one table that maps it to HTTP and FHIR.

ArcuateError
├── BadInput              the sender mends the input            400 invalid
│   ├── TooLarge          the sender sends less                 413 too-long
│   └── NotSupported      the sender asks for something else    415 not-supported
├── Unauthenticated       the caller signs in                   401 login
├── Forbidden             somebody gives the right              403 forbidden
├── NotFound              the caller looks elsewhere            404 not-found
│   └── Gone              it was there once                     410 deleted
├── Conflict              the caller reads again and retries    409 conflict
│   ├── PreconditionFailed    a stale version                   412 conflict
│   └── PreconditionRequired  If-Match is missing               428 required
├── Refused               a safety rule said no                 422 business-rule
├── Throttled             the caller waits                      429 throttled
├── Unavailable           the caller retries later              503 transient
│   └── StorageFault      nothing was kept                      503 transient
└── Defect                we mend the software                  500 exception
"""

from collections.abc import Sequence
from typing import Any, ClassVar

Json = dict[str, Any]


class ArcuateError(Exception):
    """Something that a person can act on.

    Args:
        what: What was wrong, without patient data.
        where: Where: a FHIRPath expression, an HL7 location, a file or a setting.
        todo: What to do about it.
        code: The FHIR issue type, when it differs from the class's own.
    """

    status: ClassVar[int] = 500
    issue_type: ClassVar[str] = "exception"
    severity: ClassVar[str] = "error"

    def __init__(self, what: str, *, where: str = "", todo: str = "", code: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.todo = todo
        self.code = code or self.issue_type

    def __str__(self) -> str:
        where = f" ({self.where})" if self.where else ""
        todo = f" {self.todo}" if self.todo else ""
        return f"{self.what}{where}{'.' if todo and not self.what.endswith('.') else ''}{todo}"


class BadInput(ArcuateError):
    """The sender must mend what was sent."""

    status, issue_type = 400, "invalid"


class TooLarge(BadInput):
    """More than the stated limit."""

    status, issue_type = 413, "too-long"


class NotSupported(BadInput):
    """A form or question that this house does not know."""

    status, issue_type = 415, "not-supported"


class Unauthenticated(ArcuateError):
    """No valid token."""

    status, issue_type = 401, "login"


class Forbidden(ArcuateError):
    """A valid token without the right."""

    status, issue_type = 403, "forbidden"


class NotFound(ArcuateError):
    """Nothing stands at this address."""

    status, issue_type = 404, "not-found"


class Gone(NotFound):
    """Something stood here and was deleted."""

    status, issue_type = 410, "deleted"


class Conflict(ArcuateError):
    """The state changed; read again."""

    status, issue_type = 409, "conflict"


class PreconditionFailed(Conflict):
    """The version in If-Match is not the current one, or a condition matches more than one."""

    status, issue_type = 412, "conflict"


class PreconditionRequired(Conflict):
    """People edit this; say which version you edit (If-Match)."""

    status, issue_type = 428, "required"


class Refused(ArcuateError):
    """A safety rule said no."""

    status, issue_type = 422, "business-rule"


class Throttled(ArcuateError):
    """Too many calls in too short a time."""

    status, issue_type = 429, "throttled"


class Unavailable(ArcuateError):
    """Not now; ask again later."""

    status, issue_type = 503, "transient"

    def __init__(
        self, what: str, *, where: str = "", todo: str = "", code: str | None = None, retry_after_s: float = 5
    ) -> None:
        super().__init__(what, where=where, todo=todo, code=code)
        self.retry_after_s = retry_after_s


class StorageFault(Unavailable):
    """The commit failed or its outcome is unknown: nothing may be acknowledged."""


class Defect(ArcuateError):
    """Our own fault."""


_BY_STATUS: dict[int, type[ArcuateError]] = {
    kind.status: kind
    for kind in (
        BadInput, TooLarge, NotSupported, Unauthenticated, Forbidden, NotFound, Gone, Conflict, PreconditionFailed,
        PreconditionRequired, Refused, Throttled, Unavailable, Defect,
    )
}  # fmt: skip


def operation_outcome(error: ArcuateError) -> Json:
    """Return the FHIR R4 OperationOutcome of an error."""
    return outcome_of([issue(error.code, str(error), error.where, error.severity)])


def issue(code: str, diagnostics: str, expression: str = "", severity: str = "error") -> Json:
    """Return one OperationOutcome.issue; `expression` names the element where there is one."""
    found: Json = {"severity": severity, "code": code, "diagnostics": diagnostics}
    if expression:
        found["expression"] = [expression]
    return found


def outcome_of(issues: Sequence[Json]) -> Json:
    """Return an OperationOutcome that carries these issues."""
    return {"resourceType": "OperationOutcome", "issue": list(issues)}


def from_outcome(status: int, outcome: Json | None) -> ArcuateError:
    """Return the error that an HTTP status and an OperationOutcome stand for (the client's side of the table)."""
    issues = (outcome or {}).get("issue") or [{}]
    first: Json = issues[0]
    what = str(first.get("diagnostics") or first.get("details", {}).get("text") or f"the other side answered {status}")
    where = str((first.get("expression") or [""])[0])
    kind = _BY_STATUS.get(status) or (BadInput if 400 <= status < 500 else Unavailable if status > 500 else Defect)
    return kind(what, where="" if where and where in what else where, code=first.get("code"))
