"""How far each Subscription has come: rows with lease and fencing number, and its numbered events."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from arcuate.record import store
from arcuate.record.domain import Stored
from arcuate.record.driver import Driver
from arcuate.record.store import Version
from arcuate.record.subscriptions.notices import Event
from arcuate.record.tables import SUBSCRIPTION, SUBSCRIPTION_EVENT, VERSION

_S, _E = SUBSCRIPTION.c, SUBSCRIPTION_EVENT.c
_NAMES = tuple(column.name for column in SUBSCRIPTION.columns)


@dataclass(frozen=True)
class State:
    """One row of the table `subscription`."""

    id: str
    version: int
    status: str
    cursor: int
    events: int
    sent: int
    due: int
    heard: int
    failing: int | None
    failures: int
    reason: str | None
    lease_until: int
    attempt: int

    def with_(self, **changes: Any) -> "State":
        """Return a copy with changes."""
        return replace(self, **changes)


def resources(driver: Driver) -> list[Stored]:
    """Return the Subscriptions as they stand."""
    statement = f"{store.STORED} WHERE r.type = ? AND r.deleted = ? ORDER BY r.number"
    return [Stored(*row) for row in driver.rows(statement, ("Subscription", False))]


def all_states(connection: Connection) -> dict[str, State]:
    """Return all rows by id."""
    return {row.id: State(*row) for row in connection.execute(select(SUBSCRIPTION))}


def get(connection: Connection, subscription: str) -> State | None:
    """Return one row."""
    row = connection.execute(select(SUBSCRIPTION).where(_S.id == subscription)).first()
    return State(*row) if row else None


def add(connection: Connection, state: State) -> None:
    """Add a row."""
    connection.execute(insert(SUBSCRIPTION), [dict(zip(_NAMES, _values(state), strict=True))])


def remove(connection: Connection, subscription: str) -> None:
    """Remove a row and its events: the Subscription was deleted."""
    connection.execute(delete(SUBSCRIPTION_EVENT).where(_E.subscription == subscription))
    connection.execute(delete(SUBSCRIPTION).where(_S.id == subscription))


def claim(connection: Connection, subscription: str, now: int, until: int) -> State | None:
    """Lease a row that is due; None when it is not, or somebody else holds it."""
    row = connection.execute(
        update(SUBSCRIPTION)
        .where(_S.id == subscription, _S.lease_until <= now, or_(_S.due <= now, _S.status == "requested"))
        .values(lease_until=until, attempt=_S.attempt + 1)
        .returning(*SUBSCRIPTION.columns)
    ).first()
    return State(*row) if row else None


def keep(connection: Connection, state: State, *, release: bool = False) -> bool:
    """Write a leased row back; False when the lease has passed to somebody else, and nothing was written."""
    values = dict(zip(_NAMES, _values(state), strict=True))
    if release:
        values["lease_until"] = 0
    changed = connection.execute(
        update(SUBSCRIPTION)
        .where(and_(_S.id == state.id, _S.attempt == state.attempt))
        .values({name: value for name, value in values.items() if name not in ("id", "attempt")})
        .returning(_S.id)
    ).first()
    return changed is not None


def add_events(connection: Connection, state: State, seqs: Sequence[int]) -> None:
    """Number and keep events behind the last one of the row."""
    rows = [{"subscription": state.id, "number": state.events + n, "seq": seq} for n, seq in enumerate(seqs, start=1)]
    if rows:
        connection.execute(insert(SUBSCRIPTION_EVENT), rows)


def events(connection: Connection, subscription: str, first: int, last: int, limit: int) -> list[Event]:
    """Return events by their numbers, both inclusive."""
    v = VERSION.c
    statement = (
        select(_E.number, v.seq, v.type, v.id, v.version, v.updated, v.method, v.body)
        .join(VERSION, v.seq == _E.seq)
        .where(_E.subscription == subscription, _E.number >= first, _E.number <= last)
        .order_by(_E.number)
        .limit(limit)
    )
    return [Event(row[0], Version(*row[1:])) for row in connection.execute(statement)]


def _values(state: State) -> tuple[Any, ...]:
    return tuple(getattr(state, name) for name in _NAMES)
