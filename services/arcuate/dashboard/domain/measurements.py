"""Measured values as people judge them: number, range, side, comparison with its limit, and what a person said of it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation

from arcuate.dashboard import facts
from arcuate.dashboard.domain.frame import Mark
from arcuate.dashboard.words import Wording, volume
from arcuate.kernel.codes import CS_SNOMED, CS_STRUCTURE, Json

CS_COMPARISON = "urn:arcuate:cs:comparison"
CS_UNCERTAINTY = "urn:arcuate:cs:uncertainty"
SIDES = {"24028007": "right", "7771000": "left", "51440002": "both"}
_RANK = {"right": 0, "left": 1, "both": 2, "": 3}
_BEYOND = "beyond-measurement-error"
_DECIDED = {"final": "accepted", "amended": "corrected", "corrected": "corrected", "entered-in-error": "rejected"}
WITHIN = "within measurement error"


@dataclass(frozen=True)
class Comparison:
    """Left against right, or now against an earlier date, beside what measurement error alone explains.

    Attributes:
        percent: Above 0: the right side, or today, is larger.
        limit: Per cent up to which measurement error explains it, and where that limit comes from.
        since: The earlier day; None for an asymmetry.
        before: The earlier value, where the record states it.
    """

    percent: Decimal
    limit: Decimal
    source: str
    beyond: bool
    since: date | None = None
    before: Decimal | None = None

    @property
    def mark(self) -> Mark:
        """Return its mark."""
        return Mark.LOOK if self.beyond else Mark.SAME


@dataclass(frozen=True)
class Review:
    """What a person said of a value.

    Attributes:
        act: accepted, corrected or rejected.
        machine: What the machine had given, where it was corrected.
        was: The version of the Observation before (`Observation/id/_history/n`).
    """

    act: str
    by: str
    at: datetime | None = None
    machine: Decimal | None = None
    reason: str = ""
    was: str = ""


@dataclass(frozen=True)
class Range:
    """Between what a value lies, in its unit. checked: in 8 of 10 synthetic heads of known volumes, else by what the network is sure of."""

    low: Decimal
    high: Decimal
    checked: bool


@dataclass(frozen=True)
class Value:
    """One measured value of one structure and side.

    Attributes:
        side: right, left, both, or empty for a structure in the middle.
        range: None where none was stated.
        models: Versions and weights by which it was measured.
        review: None while no person has judged it.
    """

    id: str
    version: str
    structure: str
    name: str
    side: str
    amount: Decimal
    unit: str
    day: date | None
    model: str
    models: tuple[str, ...]
    scanner: str = ""
    range: Range | None = None
    asymmetry: Comparison | None = None
    change: Comparison | None = None
    notes: tuple[str, ...] = ()
    review: Review | None = None

    @property
    def title(self) -> str:
        """Return structure and side in words."""
        return f"{self.name}, {'both sides' if self.side == 'both' else self.side}" if self.side else self.name

    @property
    def state(self) -> str:
        """Return machine, accepted, corrected or rejected."""
        return self.review.act if self.review else "machine"

    @property
    def mark(self) -> Mark:
        """Return the mark of its state."""
        return {"accepted": Mark.DONE, "corrected": Mark.PERSON, "rejected": Mark.STOP}.get(self.state, Mark.MACHINE)

    @property
    def standing(self) -> bool:
        """Return whether the number is still the machine's: only then its comparisons hold."""
        return self.state in ("machine", "accepted")

    @property
    def beyond(self) -> bool:
        """Return whether a comparison of it cannot be explained by measurement error."""
        return any(c is not None and c.beyond for c in (self.asymmetry, self.change))

    def sides(self) -> str:
        """Return the asymmetry in words: "right 29 % smaller; error 15", "within measurement error", or nothing."""
        if self.asymmetry is None:
            return ""
        if not self.asymmetry.beyond:
            return WITHIN
        share = abs(self.asymmetry.percent)
        return f"right {share:.0f} % {'larger' if self.asymmetry.percent > 0 else 'smaller'}; error {self.asymmetry.limit:.0f}"

    def since(self) -> str:
        """Return the change in words, in the value's unit: "0.71 smaller; error 0.68", or nothing."""
        made = self.change
        if made is None:
            return ""
        if not made.beyond:
            return WITHIN
        word = "larger" if made.percent > 0 else "smaller"
        if made.before is None:
            return f"{abs(made.percent):.0f} % {word}; error {made.limit:.0f} %"
        error = made.before * made.limit / 100
        return f"{volume(abs(self.amount - made.before), '').strip()} {word}; error {volume(error, '').strip()}"

    def warnings(self, words: Wording) -> list[str]:
        """Return what measurement error does not explain, as sentences with their limits."""
        told = []
        if (sides := self.asymmetry) is not None and sides.beyond:
            word = "larger" if sides.percent > 0 else "smaller"
            told.append(f"Right {abs(sides.percent):.0f} % {word} than left; error up to {sides.limit.normalize():f} %")
        if (made := self.change) is not None and made.beyond:
            word, error = "larger" if made.percent > 0 else "smaller", f"error up to {made.limit.normalize():f} %"
            since = f" since {words.date(made.since)}" if made.since else ""
            size = f"{abs(made.percent):.0f} %"
            if made.before is not None:
                size = f"{volume(abs(self.amount - made.before), self.unit)} ({size})"
                error += f", {volume(made.before * made.limit / 100, self.unit)}"
            told.append(f"{size} {word}{since}; {error}")
        return told


def value_of(one: Json) -> Value | None:
    """Return the value of an Observation; None where it states none or was taken back by the machine."""
    amount = _number(one.get("valueQuantity"))
    if amount is None or one.get("status") == "cancelled":
        return None
    codings = (one.get("code") or {}).get("coding") or []
    own: Json = next((c for c in codings if c.get("system") == CS_STRUCTURE), {})
    sides = [SIDES[c] for c in facts.codes(one.get("bodySite"), CS_SNOMED) if c in SIDES]
    device: Json = next((c for c in one.get("contained") or [] if c.get("resourceType") == "Device"), {})
    shown = (one.get("device") or {}).get("display") or next(
        (n.get("name") for n in device.get("deviceName") or []), ""
    )
    quantity = one["valueQuantity"]
    scanner = facts.extension(one, "scanner") or {}
    return Value(
        id=str(one.get("id") or ""), version=facts.version(one), structure=str(own.get("code") or facts.text_of(one.get("code"))),
        name=str(own.get("display") or facts.text_of(one.get("code"))), side=sides[0] if sides else "", amount=amount,
        unit=str(quantity.get("unit") or quantity.get("code") or ""), day=_day(one.get("effectiveDateTime")), model=str(shown or ""),
        models=tuple(str(v.get("value")) for v in device.get("version") or []), scanner=str(scanner.get("valueString") or ""),
        range=_range(one), asymmetry=_comparison(one, "asymmetry"), change=_comparison(one, "change"),
        notes=tuple(str(n["text"]) for n in one.get("note") or [] if n.get("text")), review=_review(one),
    )  # fmt: skip


def values_of(observations: Sequence[Json], order: Sequence[str]) -> list[Value]:
    """Return the values, structures in the given order (then by name), right before left before both.

    The comparison of two sides is left out where a person has corrected or rejected one of them: it was of other numbers.
    """
    found = [value for one in observations if (value := value_of(one)) is not None]
    rank = {code: place for place, code in enumerate(order)}
    found.sort(key=lambda v: (rank.get(v.structure, len(rank)), v.name, _RANK[v.side]))
    touched = {v.structure for v in found if not v.standing}
    return [_without_sides(v) if v.structure in touched and v.side == "both" else v for v in found]


def _without_sides(value: Value) -> Value:
    return Value(**{**value.__dict__, "asymmetry": None, "change": None})


def comparable(now: Value, earlier: Value) -> bool:
    """Return whether two values may be compared: same place, and the same model, version and weights measured both."""
    return (now.structure, now.side) == (earlier.structure, earlier.side) and now.models == earlier.models != ()


def no_change_because(now: Value, earlier: Sequence[Value], words: Wording) -> str:
    """Return why no change is told: nothing earlier, or only by another model or version, or a person changed a number of it."""
    same = [e for e in earlier if (e.structure, e.side) == (now.structure, now.side) and _before(e, now)]
    if not now.standing:
        return "not compared"
    if not same:
        return "no earlier measurement"
    last = max(same, key=lambda e: e.day or date.min)
    day = words.date(last.day) if last.day else "no date"
    if not comparable(now, last):
        return f"cannot compare: {day} by {last.model or 'another model'}"
    return "not compared" if last.standing else f"cannot say: {day} was {last.state}"


def _before(earlier: Value, now: Value) -> bool:
    return earlier.day is not None and now.day is not None and earlier.day < now.day


def _number(quantity: Json | None) -> Decimal | None:
    try:
        made = Decimal(str((quantity or {}).get("value")))
    except InvalidOperation:
        return None
    return made if made.is_finite() else None


def _day(text: object) -> date | None:
    try:
        return date.fromisoformat(str(text)[:10])
    except ValueError:
        return None


def _components(one: Json, system: str, code: str) -> list[Json]:
    return [c for c in one.get("component") or [] if facts.has_code(c.get("code"), system, code)]


def _range(one: Json) -> Range | None:
    for codes, checked in ((("p10", "p90"), True), (("sure", "possible"), False)):
        ends = [
            number
            for code in codes
            for c in _components(one, CS_UNCERTAINTY, code)
            if (number := _number(c.get("valueQuantity"))) is not None
        ]
        if len(ends) == 2:
            return Range(ends[0], ends[1], checked)
    return None


def _comparison(one: Json, code: str) -> Comparison | None:
    for component in _components(one, CS_COMPARISON, code):
        percent = _number(component.get("valueQuantity"))
        limits = component.get("referenceRange") or [{}]
        limit = _number(limits[0].get("high"))
        if percent is None or limit is None:
            continue
        judged = [c for i in component.get("interpretation") or [] for c in facts.codes(i, CS_COMPARISON)]
        earlier = next(iter(_components(one, CS_COMPARISON, "earlier")), {}) if code == "change" else {}
        since = (facts.extension(component, "since") or {}).get("valueDate")
        return Comparison(
            percent, limit, str(limits[0].get("text") or ""), _BEYOND in judged, _day(since) if since else None,
            _number(earlier.get("valueQuantity")),
        )  # fmt: skip
    return None


def _review(one: Json) -> Review | None:
    """Return what a person said; a status beyond preliminary counts even where nobody wrote down who it was."""
    act = _DECIDED.get(str(one.get("status")))
    if act is None:
        return None
    said = {str(e.get("url")): e for e in (facts.extension(one, "review") or {}).get("extension") or []}
    by = next((str(p["display"]) for p in one.get("performer") or [] if p.get("display")), "a person not named")
    return Review(
        act, by, facts.instant(said.get("at", {}).get("valueInstant")), _number(said.get("machine", {}).get("valueQuantity")),
        str(said.get("reason", {}).get("valueString") or ""), str((said.get("was", {}).get("valueReference") or {}).get("reference") or ""),
    )  # fmt: skip
