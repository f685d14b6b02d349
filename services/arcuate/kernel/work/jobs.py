"""What a job is, and how a handler says that it must wait or be given up."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlmodel import Session

from arcuate.kernel.errors import ArcuateError, Conflict

READY, LEASED, DONE, PARKED, DISCARDED = "ready", "leased", "done", "parked", "discarded"
OPEN = (READY, LEASED)


class Park(ArcuateError):
    """Give this job up at once; a person must look at it. The message is the reason that the person reads."""

    status, issue_type = 422, "business-rule"


class Later(ArcuateError):
    """Come back to this job after some seconds, without using up a try."""

    status, issue_type = 503, "transient"

    def __init__(self, seconds: float, waits_for: str) -> None:
        super().__init__(waits_for)
        self.seconds = seconds


class LeaseLost(Conflict):
    """Another worker has taken the job since; nothing was written."""


@dataclass(frozen=True)
class Job:
    """One leased job; `alone` says that others ended with the program while it was in hand, so nothing runs beside it."""

    id: int
    kind: str
    keys: tuple[str, ...]
    payload: dict[str, Any]
    attempt: int
    first_due: datetime
    alone: bool = False


@dataclass(frozen=True)
class NewJob:
    """One job to enqueue."""

    kind: str
    now: datetime
    keys: tuple[str, ...] = ()
    payload: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ParkedJob:
    """One job that waits for a person."""

    id: int
    kind: str
    payload: dict[str, Any]
    reason: str
    parked_at: datetime


Apply = Callable[[Session], Any]
Handler = Callable[[Job], Awaitable[Apply | None]]
