"""A machine's finding, not reviewed by anybody, may bring a reading forward. It never lowers a priority, and never ends a reading. Pure.

Who says so is the room that measured: an Observation with the interpretation `urn:arcuate:cs:urgency|read-sooner`, which a model in
shadow mode carries only where a site has validated it and switched it on.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from arcuate.journey.domain import Json, instant
from arcuate.kernel.codes import CS_TASK, concept

_URGENCY, _READ_SOONER = "urn:arcuate:cs:urgency", "read-sooner"
RAISED = "raised-by-machine"
_ORDER = ("routine", "urgent", "asap", "stat")
_GONE = frozenset({"cancelled", "entered-in-error", "final", "corrected", "amended"})


def raised(task: Json, observations: Iterable[Json], now: datetime, due_minutes: Mapping[str, float]) -> Json | None:
    """Return the reading Task brought forward, or None where nothing asks for it or it was done before.

    Args:
        task: The open reading Task of the case.
        observations: Measurements of the case's images; one that a person has judged asks for nothing any more.
        due_minutes: From now until a case is due, by priority.
    """
    asking = sorted((o for o in observations if _asks(o)), key=lambda o: str(o.get("id")))
    if not asking or _was_raised(task):
        return None
    before = str(task.get("priority") or "routine")
    if before not in _ORDER or _ORDER.index(before) >= _ORDER.index("urgent"):
        return None
    sentences = [one.get("text") for o in asking for one in o.get("interpretation", ()) if _is_sooner(one)]
    text = f"Read sooner: {'; '.join(str(s) for s in sentences if s)}. The order said {before}."
    made = {**task, "priority": "urgent", "reasonCode": concept(CS_TASK, RAISED, "Raised by a machine", text)}
    made["reasonReference"] = {"reference": f"Observation/{asking[0]['id']}"}
    due, sooner = _due(task), now + timedelta(minutes=due_minutes["urgent"])
    if due is None or sooner < due:
        made["restriction"] = {
            **task.get("restriction", {}),
            "period": {
                **task.get("restriction", {}).get("period", {}),
                "end": sooner.isoformat(timespec="seconds"),
            },
        }
    return made


def sentence(task: Json) -> str:
    """Return why a machine brought the Task forward, as people read it; empty where none did."""
    return str(task["reasonCode"].get("text", "")) if _was_raised(task) else ""


def _asks(observation: Json) -> bool:
    return observation.get("status") not in _GONE and any(map(_is_sooner, observation.get("interpretation", ())))


def _is_sooner(interpretation: Json) -> bool:
    codings = interpretation.get("coding", ())
    return any(c.get("system") == _URGENCY and c.get("code") == _READ_SOONER for c in codings)


def _was_raised(task: Json) -> bool:
    return any(c.get("code") == RAISED for c in (task.get("reasonCode") or {}).get("coding", ()))


def _due(task: Json) -> datetime | None:
    return instant(task.get("restriction", {}).get("period", {}).get("end"))
