"""Leasing: which jobs a worker gets, and what becomes of jobs whose worker did not come back.

A lease that has run out means that a program died or was stuck with the job in hand, and the job may be why. The first time it is run
again as any other; the second time alone, so that what was in hand beside it is not blamed; after the last one it is parked.

On PostgreSQL leases are begun and judged by the server's clock: hosts whose clocks differ take nothing from each other (`shared_clock`).
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from arcuate.kernel.db.driver import Driver, instant_of, marks
from arcuate.kernel.work.jobs import LEASED, PARKED, READY, Job

_FREE = (
    " AND NOT EXISTS (SELECT 1 FROM work_key mine JOIN work_key other ON other.key = mine.key AND other.open = TRUE "
    "AND other.job_id < mine.job_id WHERE mine.job_id = work.id)"
)  # no earlier open job has one of its keys
_KEYS_OF = "SELECT job_id, key FROM work_key WHERE job_id IN ({}) ORDER BY job_id, key"
_TAKE = (
    f"UPDATE work SET state = '{LEASED}', attempt = attempt + 1, tries = tries + ?, lease_until = {{}} WHERE id IN ({{}}) "  # noqa: S608
    "RETURNING id, kind, payload, attempt, created"
)
_GIVE_UP = f"UPDATE work SET state = '{PARKED}', reason = ?, lease_until = NULL, due = ? WHERE id IN ({{}})"  # noqa: S608 - a mark a number
CLOSE = "UPDATE work_key SET open = ? WHERE job_id = ?"


@dataclass(frozen=True)
class Terms:
    """What a worker asks for.

    Attributes:
        now: By the worker's own clock; when a job is due is judged by it.
        shared_clock: Leases are judged by the database's clock.
        limit: How many jobs at most.
        tries: A job that ended so many attempts without an outcome is parked.
        idle: Nothing is in hand, so that a job may run alone.
    """

    kinds: Sequence[str]
    now: datetime
    lease_s: float = 30.0
    limit: int = 1
    tries: int = 3
    idle: bool = True
    shared_clock: bool = False
    in_hand: frozenset[int] = frozenset()


def any_due(driver: Driver, terms: Terms) -> bool:
    """Return whether a job is due, whether or not an earlier one of its keys still holds it back."""
    return any(_find(driver, terms, state, "id", "", 1) for state in (LEASED, READY))


def claim(driver: Driver, terms: Terms) -> list[Job]:
    """Lease due jobs whose keys have no earlier open job: first those whose lease ran out, then as they fell due."""
    locked = "" if driver.sqlite else " FOR UPDATE SKIP LOCKED"
    left = _find(driver, terms, LEASED, "id, tries", _FREE + locked, terms.limit)
    most = max(3, terms.tries)
    _give_up(driver, [number for number, tries in left if tries + 1 >= most], most, terms.now)
    suspects = [number for number, tries in left if 0 < tries < most - 1]
    if suspects:  # until they are through, nothing else is begun here
        return _take(driver, terms, suspects[:1], 1, alone=True) if terms.idle else []
    again = [number for number, tries in left if tries == 0]
    ready = _find(driver, terms, READY, "id", _FREE + locked, terms.limit - len(again))
    jobs = [*_take(driver, terms, again, 1), *_take(driver, terms, [row[0] for row in ready], 0)]
    return sorted(jobs, key=lambda job: job.id)


def _find(driver: Driver, terms: Terms, state: str, what: str, more: str, limit: int) -> Sequence[tuple[int, ...]]:
    """Ask for the first due jobs of one state: an index gives them in order, so that a long line costs no more than a short one."""
    if limit <= 0:
        return []
    at = driver.instant(terms.now)
    due, values = ("due <= ?" if state == READY else "lease_until <= ?"), [at]
    if state == LEASED and terms.shared_clock:
        due, values = "lease_until <= clock_timestamp()", []
    if state == LEASED and terms.in_hand:
        due += f" AND id NOT IN ({marks(len(terms.in_hand))})"
        values = [*values, *sorted(terms.in_hand)]
    where, end = more.partition(" FOR UPDATE")[::2]
    asked = (
        f"SELECT {what} FROM work WHERE state = '{state}' AND {due} AND kind IN ({marks(len(terms.kinds))}){where} "  # noqa: S608
        f"ORDER BY due, id LIMIT ?{' FOR UPDATE' + end if end else ''}"
    )
    return driver.rows(asked, (*values, *terms.kinds, limit))


def _take(driver: Driver, terms: Terms, numbers: Sequence[int], died: int, *, alone: bool = False) -> list[Job]:
    if not numbers:
        return []
    held: dict[int, list[str]] = {number: [] for number in numbers}
    for number, key in driver.rows(_KEYS_OF.format(marks(len(numbers))), numbers):
        held[number].append(key)
    until = "clock_timestamp() + make_interval(secs => ?)" if terms.shared_clock else "?"
    end = terms.lease_s if terms.shared_clock else driver.instant(terms.now + timedelta(seconds=terms.lease_s))
    return [
        Job(number, kind, tuple(held[number]), json.loads(payload), attempt, instant_of(created), alone)
        for number, kind, payload, attempt, created in driver.rows(
            _TAKE.format(until, marks(len(numbers))), (died, end, *numbers)
        )
    ]


def _give_up(driver: Driver, numbers: Sequence[int], times: int, now: datetime) -> None:
    if not numbers:
        return
    reason = f"The program ended or was stuck {times} times while it worked on this"
    driver.rows(_GIVE_UP.format(marks(len(numbers))), (reason, driver.instant(now), *numbers))
    driver.many(CLOSE, [(False, number) for number in numbers])
