"""What `$find` offered and which slots are taken through these operations, in SQL; each runs in a transaction that its caller began."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from arcuate.kernel.errors import Json
from arcuate.record.driver import Driver
from arcuate.record.store import marks

_LIVE = ("pending", "booked", "arrived", "checked-in", "fulfilled")
_AT_ONCE = 400


@dataclass(frozen=True)
class Offer:
    """What a `$find` was asked for: who, for which order, why; `until` is when its proposals end (microseconds)."""

    id: str
    until: int
    asked: Json


@dataclass(frozen=True)
class Use:
    """A slot that is held, or asked of the RIS.

    Attributes:
        owner: Who holds it: client and person.
        until: When the hold ends; None once the RIS has been asked.
        ends: End of the slot.
        task: Id of the Task that asks the RIS; None while it is only held.
        seen: Feed number up to which the Appointment and the Task were looked at.
    """

    slot: str
    appointment: str
    owner: str
    until: int | None
    ends: int
    task: str | None
    seen: int


_OFFER = "SELECT id, until, asked FROM offer"
_USE = "SELECT u.slot, u.appointment, u.owner, u.until, u.ends, u.task, u.seen FROM slot_use u"
_DUE = (
    " LEFT JOIN resource a ON a.type = 'Appointment' AND a.id = u.appointment LEFT JOIN resource t ON t.type = 'Task' AND t.id = u.task"
    " WHERE u.until <= ? OR u.ends <= ? OR a.seq > u.seen OR t.seq > u.seen LIMIT ?"
)


def keep_offer(driver: Driver, offer: Offer, now: int) -> None:
    """Keep what was offered; what has ended is forgotten."""
    driver.rows("DELETE FROM offer WHERE until <= ?", (now,))
    driver.rows(
        "INSERT INTO offer (id, until, asked) VALUES (?, ?, ?)", (offer.id, offer.until, json.dumps(offer.asked))
    )


def offer(driver: Driver, offer_id: str) -> Offer | None:
    """Return what was offered."""
    found = driver.rows(f"{_OFFER} WHERE id = ?", (offer_id,))
    return Offer(found[0][0], found[0][1], json.loads(found[0][2])) if found else None


def use_of(driver: Driver, *, slot: str = "", appointment: str = "") -> Use | None:
    """Return who has a slot, or what an appointment has."""
    found = driver.rows(f"{_USE} WHERE u.slot = ? OR u.appointment = ?", (slot, appointment))
    return Use(*found[0]) if found else None


def due(driver: Driver, now: int, most: int) -> list[Use]:
    """Return what has ended, or whose Appointment or Task has changed since it was looked at."""
    return [Use(*row) for row in driver.rows(f"{_USE}{_DUE}", (now, now, most))]


def put(driver: Driver, use: Use) -> None:
    """Keep who has a slot, in place of what stood there."""
    driver.rows("DELETE FROM slot_use WHERE slot = ?", (use.slot,))
    driver.rows(
        "INSERT INTO slot_use (slot, appointment, owner, until, ends, task, seen) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (use.slot, use.appointment, use.owner, use.until, use.ends, use.task, use.seen),
    )


def forget(driver: Driver, slot: str) -> None:
    """Forget who had a slot."""
    driver.rows("DELETE FROM slot_use WHERE slot = ?", (slot,))


def used(driver: Driver, slots: Sequence[str]) -> set[str]:
    """Return which of these slots somebody has."""
    found: set[str] = set()
    for start in range(0, len(slots), _AT_ONCE):
        part = slots[start : start + _AT_ONCE]
        found |= {row[0] for row in driver.rows(f"SELECT slot FROM slot_use WHERE slot IN ({marks(len(part))})", part)}  # noqa: S608
    return found


def engaged(driver: Driver, actors: Iterable[str], first: int, last: int) -> dict[str, list[tuple[int, int, str]]]:
    """Return when these actors (`Location/…`) have appointments in a span of time: start, end, id of the Appointment."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    for actor in actors:
        kind, _, logical_id = actor.partition("/")
        rows = driver.rows(
            "SELECT s.low, e.low, r.id FROM reference_index x JOIN resource r ON r.number = x.number "  # noqa: S608
            "JOIN date_index s ON s.number = r.number AND s.param = 'Appointment.date' "
            "JOIN date_index e ON e.number = r.number AND e.param = 'Appointment.end' "
            "JOIN token_index k ON k.number = r.number AND k.param = 'Appointment.status' "
            "WHERE x.param = 'Appointment.actor' AND x.target_id = ? AND x.target_type = ? AND r.deleted = ? "
            f"AND s.low < ? AND e.low > ? AND k.code IN ({marks(len(_LIVE))})",
            (logical_id, kind, False, last, first, *_LIVE),
        )
        found[actor] = [(row[0], row[1], row[2]) for row in rows]
    return found
