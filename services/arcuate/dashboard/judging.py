"""What people say of models: what was found where one read in shadow, and that one is paused or goes on."""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation

from arcuate.dashboard.domain.frame import Notice
from arcuate.dashboard.domain.models import Known
from arcuate.dashboard.rooms import Rooms
from arcuate.dashboard.service import stated
from arcuate.kernel.errors import BadInput, Json

ACTS = ("pause", "resume")
_PRESENT = {"yes": True, "no": False, "unknown": None}


async def tell_outcome(rooms: Rooms, key: str, told: Mapping[str, str]) -> Notice:
    """Keep what a person found beside a reading in shadow; it is added, never written over.

    Raises:
        BadInput: Not said whether it was there, or a value that is no number.
    """
    if not key.isalnum():
        raise BadInput("There is no such reading", where="key")
    if told["present"] not in _PRESENT:
        raise BadInput("Say whether it was there", where="present", todo="Choose there, not there or cannot say.")
    said: Json = {
        "structure": told["structure"],
        "present": _PRESENT[told["present"]],
        "source": stated(told["source"], "Say what you took it from, for example: signed report"),
    }
    if told["value"].strip():
        said["value"] = _amount(told["value"])
    await rooms.post(f"/imaging/shadow/{key}/outcome", said)
    return Notice(
        "Kept.", "It stands beside the reading, with your name. A later outcome is added, none is written over."
    )


def _amount(text: str) -> float:
    try:
        amount = Decimal(text.strip().replace(",", "."))
    except InvalidOperation as error:
        raise BadInput("The value is no number", where="value") from error
    if not amount.is_finite() or amount < 0:
        raise BadInput("The value is no number of 0 or more", where="value")
    return float(amount)


async def pause(rooms: Rooms, known: Known, act: str, reason: str) -> Notice:
    """Pause a model or let it go on, with a reason.

    Raises:
        BadInput: No reason.
        Conflict: It is so already.
    """
    reason = stated(reason, "Say why, in a few words")
    await rooms.post(f"/imaging/pipelines/{known.pipeline}/{act}", {"reason": reason})
    if act == "pause":
        return Notice(
            f"{known.name} is paused.", f"It measures nothing new. {known.without} What it said before stays."
        )
    return Notice(f"{known.name} goes on.", "Studies that came meanwhile are measured when they are asked for again.")
