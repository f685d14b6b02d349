"""Numbers in context: left against right, now against an earlier date, each beside what measurement error alone explains.

No percentile is given: see `comparison.toml` for why there are no norms, and where the limits come from.
"""

import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib.resources import files

from arcuate.imaging.resources import EXT_SCANNER
from arcuate.imaging.structures import SIDE_CODES
from arcuate.kernel.codes import CS_SNOMED, CS_STRUCTURE, Json, Laterality, Ucum, coding, quantity

CS_COMPARISON = "urn:arcuate:cs:comparison"
EXT_SINCE = "urn:arcuate:ext:since"
WITHIN, BEYOND = "within measurement error", "beyond measurement error"
_STANDING = frozenset({"preliminary", "final"})  # a value that a person corrected is not the model's any more


@dataclass(frozen=True)
class Limits:
    """Smallest detectable differences in per cent, and where they come from.

    Attributes:
        sides: Of two sides of one scan.
        same_scanner: Of two dates on one scanner.
        dates: Of two dates on different scanners, or on such as are not known.
    """

    sides: float
    same_scanner: float
    dates: float
    source: str


@cache
def limits(structure: str = "") -> Limits:
    """Return the limits of `comparison.toml`: a structure's own where it has some, else those for all."""
    table = tomllib.loads(files("arcuate.imaging").joinpath("comparison.toml").read_text("utf-8"))
    rows = {row.pop("code"): row for row in table.pop("structure", [])}
    return Limits(**(table | rows.get(structure, {})))


def asymmetry(left: float, right: float) -> float:
    """Return 100 (right - left) / mean of both, in per cent: above 0 where the right side is larger."""
    return 200 * (right - left) / (left + right)


def change(before: float, now: float) -> float:
    """Return 100 (now - before) / before, in per cent."""
    return 100 * (now - before) / before


def in_context(made: Sequence[Json], earlier: Iterable[Json]) -> list[Json]:
    """Return the Observations of one measurement with their comparisons as components.

    Args:
        made: Volumes as `resources.observations` makes them.
        earlier: What the record holds of the same patient; of it count volumes of an earlier day by the same model,
            version and weights.
    """
    ml = {_place(o): float(o["valueQuantity"]["value"]) for o in made}
    before = list(earlier)
    return [_compared(o, ml, before) for o in made]


def _compared(one: Json, ml: dict[tuple[str, str], float], earlier: Sequence[Json]) -> Json:
    """Return a volume with its comparisons; what is stated in another unit has no limits here."""
    if one["valueQuantity"]["code"] != Ucum.MILLILITRE:
        return one
    found = [*(one.get("component") or []), *_sides(one, ml), *_dates(one, earlier)]
    return one | ({"component": found} if found else {})


def _sides(one: Json, ml: dict[tuple[str, str], float]) -> list[Json]:
    structure, side = _place(one)
    left, right = (ml.get((structure, SIDE_CODES[s][0]), 0.0) for s in (Laterality.LEFT, Laterality.RIGHT))
    if side != SIDE_CODES[Laterality.BILATERAL][0] or left <= 0 or right <= 0:
        return []
    words, known = "Asymmetry, 100 (right - left) / mean of both", limits(structure)
    return [_component("asymmetry", "Asymmetry", words, asymmetry(left, right), known.sides, known.source)]


def _dates(one: Json, earlier: Sequence[Json]) -> list[Json]:
    """Return the change since the last comparable date, and the value that it is counted from."""
    last = last_comparable(one, [e for e in earlier if float((e.get("valueQuantity") or {}).get("value") or 0) > 0])
    if last is None:
        return []
    before, known = last["valueQuantity"], limits(_place(one)[0])
    percent = change(float(before["value"]), float(one["valueQuantity"]["value"]))
    day, same = str(last["effectiveDateTime"])[:10], scanner_of(one) == scanner_of(last) != ""
    where = f"same scanner ({scanner_of(one)})" if same else "scanners differ or are not known"
    since = {"extension": [{"url": EXT_SINCE, "valueDate": day}]}
    words = f"Change since {day}, same model and version, {where}"
    limit = known.same_scanner if same else known.dates
    return [
        since | _component("change", "Change", words, percent, limit, known.source),
        since
        | {
            "code": {"coding": [coding(CS_COMPARISON, "earlier", "Earlier value")], "text": f"Value of {day}"},
            "valueQuantity": quantity(before["value"], before["code"]),
        },
    ]


def scanner_of(one: Json) -> str:
    """Return the scanner that an Observation states, or an empty text."""
    found = (e.get("valueString") for e in one.get("extension") or [] if e.get("url") == EXT_SCANNER)
    return str(next(found, None) or "")


def last_comparable(one: Json, earlier: Iterable[Json]) -> Json | None:
    """Return the last value of the same part on an earlier day by the same model, version and weights, not changed by a person."""
    comparable = [e for e in earlier if _comparable(one, e)]
    return max(comparable, key=lambda e: str(e["effectiveDateTime"]), default=None)


def _comparable(one: Json, other: Json) -> bool:
    return (
        other.get("status") in _STANDING
        and "valueQuantity" in other
        and _place(one) == _place(other)
        and _models(one) == _models(other) != []
        and "" < str(other.get("effectiveDateTime") or "")[:10] < str(one.get("effectiveDateTime") or "")[:10]
    )


def _place(one: Json) -> tuple[str, str]:
    """Return structure and side by code; the side is empty for structures in the middle."""
    sides = {code for code, _ in SIDE_CODES.values()}
    structure = next((c["code"] for c in _codings(one, "code") if c.get("system") == CS_STRUCTURE), "")
    found = (c["code"] for c in _codings(one, "bodySite") if c.get("system") == CS_SNOMED and c.get("code") in sides)
    return str(structure), str(next(found, ""))


def _codings(one: Json, name: str) -> list[Json]:
    return list((one.get(name) or {}).get("coding") or [])


def _models(one: Json) -> list[str]:
    """Return versions and hashes of the models that measured."""
    devices = [c for c in one.get("contained") or [] if c.get("resourceType") == "Device"]
    return [str(v.get("value")) for device in devices for v in device.get("version") or []]


def _component(code: str, display: str, words: str, percent: float, limit: float, source: str) -> Json:
    judged = BEYOND if abs(percent) > limit else WITHIN
    return {
        "code": {"coding": [coding(CS_COMPARISON, code, display)], "text": words},
        "valueQuantity": quantity(Decimal(f"{percent:.1f}"), Ucum.PERCENT),
        "interpretation": [{"coding": [coding(CS_COMPARISON, judged.replace(" ", "-"), judged)], "text": judged}],
        "referenceRange": [
            {
                "low": quantity(-limit, Ucum.PERCENT),
                "high": quantity(limit, Ucum.PERCENT),
                "text": f"Measurement error. {source}",
            }
        ],
    }
