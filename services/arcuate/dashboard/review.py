"""A person accepts, corrects or rejects a measured value, or takes that back: standard writes to the Observation with their own token.

Who, when, why and what the machine had said stand in the Observation itself (`performer`, `status`, extension `urn:arcuate:ext:review`);
every version before stays in the record.
"""

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from arcuate.dashboard import facts, service
from arcuate.dashboard.domain.frame import Mark, Notice, Viewer
from arcuate.dashboard.domain.measurements import CS_COMPARISON, CS_UNCERTAINTY, Value, value_of
from arcuate.dashboard.rooms import Rooms
from arcuate.dashboard.words import Wording, volume
from arcuate.kernel.codes import Json
from arcuate.kernel.errors import BadInput, Conflict, NotFound, PreconditionFailed

EXT_REVIEW = facts.EXT + "review"
_STATUS = {"accept": "final", "correct": "corrected", "reject": "entered-in-error"}
_SAID = {"accept": "accepted", "correct": "corrected", "reject": "rejected"}
_MOST_TIMES = 20  # a correction further off than this from the machine's value is a slip of the keyboard


@dataclass(frozen=True)
class Act:
    """What a person wants: accept, correct, reject or take-back, of the version that they saw."""

    name: str
    version: str = ""
    amount: str = ""
    reason: str = ""


async def judge(rooms: Rooms, viewer: Viewer, words: Wording, observation_id: str, act: Act) -> Notice:
    """Write down what a person says of a value.

    Raises:
        NotFound: No such act, or the Observation is no measured value.
        BadInput: A correction without a number, a rejection without a reason.
        PreconditionFailed: The value has changed since the person saw it.
        Conflict: It has been judged already.
    """
    one = await rooms.fhir.read("Observation", observation_id)
    value = value_of(one) if one.get("derivedFrom") else None
    if value is None:
        raise NotFound("There is no such value any more", todo="Look at what stands now.")
    if act.version and act.version != value.version:
        raise PreconditionFailed("The value has changed since you looked", where="Observation")
    made = await (
        _taken_back(rooms, value) if act.name == "take-back" else _judged(rooms, viewer, words, one, value, act)
    )
    await rooms.fhir.update(made, value.version)
    return _notice(value, act)


async def accept_all(rooms: Rooms, viewer: Viewer, words: Wording, values: list[Value]) -> Notice:
    """Accept several values at once: those that nobody has judged and of which no comparison lies beyond measurement error."""
    taken = [v for v in values if v.review is None and not v.beyond]
    left = sum(v.review is None and v.beyond for v in values)
    for value in taken:
        await judge(rooms, viewer, words, value.id, Act("accept", value.version))
    one_by_one = f" {left} beyond measurement error left: look at each." if left else ""
    if not taken:
        return Notice("Nothing accepted.", one_by_one.strip() or "Every value here is judged already.", Mark.LOOK)
    return Notice(f"{len(taken)} accepted: {taken[0].name}.", f"Undo one: U.{one_by_one}")


async def _judged(rooms: Rooms, viewer: Viewer, words: Wording, one: Json, value: Value, act: Act) -> Json:
    if act.name not in _STATUS:
        raise NotFound("There is no such act")
    if value.review is not None:
        raise Conflict(
            f"{value.title} was {value.state} by {value.review.by}",
            todo="Take that back first (B), then judge it again.",
        )
    said: list[Json] = [
        {"url": "act", "valueCode": _SAID[act.name]}, {"url": "at", "valueInstant": words.now.isoformat(timespec="seconds")},
        {"url": "machine", "valueQuantity": one["valueQuantity"]},
        {"url": "was", "valueReference": {"reference": f"Observation/{value.id}/_history/{value.version}"}},
    ]  # fmt: skip
    if act.name == "reject" or act.reason.strip():
        said.append({"url": "reason", "valueString": service.stated(act.reason, "Say in a few words why it is wrong")})
    made = {
        **one, "status": _STATUS[act.name], "performer": [await service.reader_of(rooms, viewer)],
        "extension": [*(e for e in one.get("extension") or [] if e.get("url") != EXT_REVIEW), {"url": EXT_REVIEW, "extension": said}],
    }  # fmt: skip
    return _with_amount(made, _amount(act.amount, value)) if act.name == "correct" else made


def _with_amount(one: Json, amount: Decimal) -> Json:
    """Return the Observation with a person's number; what was stated of the machine's number does not hold for it."""
    own: Callable[[Json], bool] = lambda c: any(  # noqa: E731
        coding.get("system") in (CS_COMPARISON, CS_UNCERTAINTY) for coding in (c.get("code") or {}).get("coding") or []
    )
    rest = [c for c in one.get("component") or [] if not own(c)]
    kept = {k: v for k, v in one.items() if k != "component"} | ({"component": rest} if rest else {})
    return {**kept, "valueQuantity": {**one["valueQuantity"], "value": amount}}


def _amount(text: str, value: Value) -> Decimal:
    try:
        amount = Decimal(text.strip().replace(",", "."))
    except InvalidOperation:
        raise BadInput("A correction needs a number", where="amount", todo=f"Type it in {value.unit}.") from None
    if not (amount.is_finite() and _may_be(amount, value)):
        raise BadInput(
            f"{text.strip()[:20]} {value.unit} cannot be", where="amount", todo=f"Type the value in {value.unit}."
        )
    if amount == value.amount:
        raise BadInput("This is the machine's own number", where="amount", todo="Accept it (A), or type another one.")
    return amount


def _may_be(amount: Decimal, value: Value) -> bool:
    """Return whether a correction is no slip of the keyboard; a count of lesions may be none, a volume may not."""
    if value.unit != "mL" or value.amount <= 0:
        return amount >= 0
    return 1 / _MOST_TIMES < amount / value.amount < _MOST_TIMES


async def _taken_back(rooms: Rooms, value: Value) -> Json:
    """Return the value as it was before a person judged it."""
    if value.review is None:
        raise Conflict("Nobody has judged this value", todo="There is nothing to take back.")
    kind, _, rest = value.review.was.partition("/")
    own, _, number = rest.partition("/_history/")
    if kind != "Observation" or own != value.id or not number:
        raise Conflict("It was not judged on this page", todo="Whoever wrote it must change it.")
    return await rooms.fhir.read("Observation", value.id, number)


def _notice(value: Value, act: Act) -> Notice:
    match act.name:
        case "accept":
            return Notice(f"{value.title}: {volume(value.amount, value.unit)} accepted.", "Undo: U.")
        case "correct":
            told = f"The machine's {volume(value.amount, value.unit)} is kept beside it. Undo: U."
            return Notice(f"{value.title} corrected.", told, Mark.PERSON)
        case "reject":
            return Notice(f"{value.title} rejected.", "It leaves the draft, with your reason. Undo: U.")
    return Notice(f"{value.title}: taken back.", "It is the machine's value again, not reviewed.", Mark.MACHINE)
