"""What a model's room tells of it, as a row: live, in shadow or away, how good and on whom, and what a person does next. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

from arcuate.dashboard.domain.frame import Mark, Silent
from arcuate.dashboard.words import count

LEAST_CASES = 20
_NOT_MEASURED = "not measured here"
_ON_CARD = "on its card only"
_INSTALL = "Install it into the folder of the models, if the site wants it."
_OUTCOMES = {"no-show": "missed", "late-cancel": "cancelled late"}
_STATED = (
    ("population", "For"), ("task", "Does"), ("trained", "Trained"), ("exported", "Made"), ("licence", "Licence"),
    ("weights_sha256", "Weights"), ("graph_sha256", "Graph"),
)  # fmt: skip


@dataclass(frozen=True)
class Known:
    """A row of `models.toml`: what a model is for, and who tells how it stands.

    Attributes:
        pipeline: What imaging measures with it, by the name under which a person may pause it; empty where nobody can.
    """

    name: str
    room: str
    what: str
    person: str
    without: str
    pipeline: str = ""


@dataclass(frozen=True)
class Pause:
    """That a person has paused a model, and why."""

    by: str
    at: datetime | None
    reason: str


@dataclass(frozen=True)
class Model:
    """One row of the page.

    Attributes:
        tone: "", "look" or "stop".
        here: What this site has measured of it, in words.
        card: What its training states.
        data: Until when, and from where, it has learned.
        todo: What a person has to do next.
        why: Why it stands so, where that needs a word.
        details: Further facts, label and text.
        pause: Set while a person has paused it.
    """

    known: Known
    state: str
    mark: Mark
    tone: str = ""
    version: str = ""
    here: str = _NOT_MEASURED
    here_more: str = ""
    here_tone: str = ""
    card: str = _ON_CARD
    card_more: str = ""
    data: str = "not told"
    data_more: str = ""
    todo: str = ""
    why: str = ""
    details: Sequence[tuple[str, str]] = field(default_factory=tuple)
    pause: Pause | None = None

    @property
    def name(self) -> str:
        """Return the model's name."""
        return self.known.name

    @property
    def hashed(self) -> set[str]:
        """Return the labels of details that are hashes."""
        return {"Weights", "Graph", "Files"}


def as_paused(row: Model, pause: Pause | None) -> Model:
    """Return the row of a model that a person has paused: it measures nothing new, whatever else is told of it."""
    if pause is None:
        return row
    todo = "Find out what was wrong, then let it go on; studies that came meanwhile are measured when they are asked for again."
    return replace(
        row, state="paused", mark=Mark.STOP, tone="stop", why=f"Paused: {pause.reason}.", todo=todo, pause=pause
    )


def unknown(known: Known, silent: Silent) -> Model:
    """Return the row of a model whose room does not tell."""
    why = silent.instead if silent.since is None else f"{known.room[:1].upper()}{known.room[1:]} does not answer."
    return Model(
        known, "not known", Mark.UNKNOWN, here="not known", card="not known", data="not known", why=why,
        todo="Nothing is known of it now; look again when its room answers.",
    )  # fmt: skip


def network(known: Known, told: Mapping[str, Any] | None, disabled: str = "") -> Model:
    """Return the row of a network.

    Args:
        told: Its metadata (Open Inference Protocol); None when there is no such network here.
        disabled: Why it does not answer; empty when it does.
    """
    if disabled:
        todo = "Put the model's folder right on the server and start the house again."
        return Model(known, "stopped", Mark.STOP, "stop", why=f"{disabled[:1].upper()}{disabled[1:]}.", todo=todo)
    if told is None:
        return Model(known, "not here", Mark.UNKNOWN, why="It is not installed.", todo=_INSTALL)
    stated: Mapping[str, Any] = told.get("parameters") or {}
    dice = _dice(stated.get("held_out_dice"))
    versions = told.get("versions") or [""]
    row = Model(
        known, "live", Mark.DONE, version=str(versions[0]), todo=known.person,
        card=f"Dice {dice}" if dice else _ON_CARD, card_more="on what was held out in training" if dice else "",
    )  # fmt: skip
    return _as_made(row, stated)


def _as_made(row: Model, stated: Mapping[str, Any]) -> Model:
    """Add what a model states of itself: when it was made, whether from synthetic data alone, and the rest as details."""
    made, population = _day(stated.get("exported")), str(stated.get("population") or "")
    details = [(label, str(stated[key])) for key, label in _STATED if stated.get(key)]
    return replace(
        row, data=f"made {made}" if made else "not told", data_more=_synthetic_only(population), details=details
    )


def _dice(text: Any) -> str:
    try:
        return f"{float(text):.2f}"
    except (TypeError, ValueError):
        return ""


def _synthetic_only(population: str) -> str:
    return next((only for only in ("synthetic images only", "synthetic CT only") if only in population), "")


def forecaster(known: Known, told: Mapping[str, Any], measured: Mapping[str, Any] | None) -> Model:
    """Return the row of a forecast.

    Args:
        told: What scheduling says of the model.
        measured: What came of the chances that were given; None where this kind is not compared.
    """
    if not told.get("loaded"):
        why = " ".join(str(told[k]) for k in ("reason", "warning") if told.get(k))
        todo = f"Train one on the site's own history: arcuate train {known.name}."
        return Model(known, "not loaded", Mark.UNKNOWN, "look", why=why or known.without, todo=todo)
    trouble, warning = str(told.get("trouble") or ""), str(told.get("warning") or "")
    todo = (
        known.person if told.get("trained_here") else f"Train it on the site's own history: arcuate train {known.name}."
    )
    if trouble:
        todo = f"See why it fails. {known.without}"
    until = _day(told.get("data_until"))
    row = Model(
        known, "live, fails" if trouble else "live", Mark.LOOK if trouble or warning else Mark.DONE, "look" if trouble or warning else "",
        version=str(told.get("version") or ""), why=trouble or warning, todo=todo,
        data=f"until {until}" if until else "not told", data_more=str(told.get("data_site") or ""),
        details=[("Data", _data(told)), ("Files", str(told.get("sha256") or ""))],
    )  # fmt: skip
    return row if measured is None else _compared(row, measured)


def _data(told: Mapping[str, Any]) -> str:
    kind = "invented visits" if told.get("synthetic") else "visits"
    return f"{kind} of {told.get('data_site') or 'a site that is not named'}"


def _compared(row: Model, measured: Mapping[str, Any]) -> Model:
    """Add what came of the chances: what was seen, its interval, and what was expected."""
    visits, outcomes = int(measured.get("visits") or 0), measured.get("outcomes")
    if visits < LEAST_CASES or not isinstance(outcomes, Mapping):
        return replace(row, here="too few to say", here_more=f"n = {visits}, asks {LEAST_CASES}")
    lines, off = [], []
    for name, one in outcomes.items():
        low, high = (100 * float(v) for v in one["interval"])
        expected = 100 * float(one["expected"]) / visits
        said = _OUTCOMES.get(str(name), str(name))
        lines.append((said, f"{one['seen']} of {visits:,} seen ({low:.0f} to {high:.0f} %), {expected:.1f} % expected"))
        if not low <= expected <= high:
            off.append(said)
    first = next(iter(outcomes.values()))
    here = f"{first['seen']} of {visits:,} {lines[0][0]}"
    more = f"{float(first['expected']):.0f} expected; n = {visits:,}"
    made = replace(row, here=here, here_more=more, details=[*row.details, *lines])
    if not off:
        return made
    why = f"Expected and seen differ beyond the 80 % interval: {', '.join(off)}. {row.why}".strip()
    todo = f"Train it anew on what has come since: arcuate train {row.name}."
    return replace(made, mark=Mark.LOOK, tone="look", here_tone="look", why=why, todo=todo)


def shadow(known: Known, told: Mapping[str, Any]) -> Model:
    """Return the row of a pipeline that ships in shadow, with the newest of its readings counted."""
    readings = [r for r in told.get("readings") or [] if r.get("pipeline") == known.name]
    names = {str(p.get("name")) for p in told.get("pipelines") or []}
    if known.name not in names:
        return Model(
            known, "not known", Mark.UNKNOWN, why="Imaging names no such pipeline in shadow.", here="not known"
        )
    installed: Mapping[str, Any] = next(
        (m for p in told.get("pipelines") or [] for m in p.get("installed") or [] if m.get("name") == known.name), {}
    )
    if not installed:
        return Model(
            known,
            "not here",
            Mark.UNKNOWN,
            why="It is not installed, or its description cannot be read.",
            todo=_INSTALL,
        )
    judged = sum(bool(r.get("outcomes")) for r in readings)
    refused = sum(bool(r.get("refusal")) for r in readings)
    statement = str((told.get("switched_on") or {}).get(known.name) or "")
    row = Model(
        known, "live" if statement else "shadow", Mark.DONE if statement else Mark.WAITING, version=str(installed.get("version") or ""),
        here=count(len(readings), "reading") if readings else "no reading yet",
        here_more=f"{refused} refused, {judged} with an outcome" if readings else "",
        why=f"Switched on after validation: {statement}." if statement else "It tells nobody what it reads.",
    )  # fmt: skip
    return replace(_as_made(row, installed), todo=_after(row, len(readings), judged, live=bool(statement)))


def _after(row: Model, readings: int, judged: int, *, live: bool) -> str:
    if live:
        return (
            "A reader looks at each value; a site that loses trust takes the name out of ARCUATE_IMAGING_SWITCHED_ON."
        )
    if readings > judged:
        return f"{count(readings - judged, 'reading')} without an outcome: compare with the signed report. {row.known.person}"
    if readings:
        return (
            "Every reading shown has an outcome. Whether it may speak is the site's decision, with a name and a date."
        )
    return "Nothing yet: readings come with the next head CT."


def _day(text: Any) -> str:
    try:
        day = date.fromisoformat(str(text))
    except ValueError:
        return ""
    return f"{day.day} {day:%b} {day.year}"
