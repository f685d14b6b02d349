"""The passport of a value: which series, which network, how good on whom, how uncertain, accepted by whom. Pure, but for reading cards."""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from arcuate.kernel.codes import Json
from arcuate.reporting.domain import Passport
from arcuate.reporting.wording import one_line

NOT_STATED = "not stated"
EXT_REVIEW = "urn:arcuate:ext:review"
CORRECTED = frozenset({"amended", "corrected"})
_ACCEPTED = CORRECTED | {"final"}
_SERIES = "Measured on "


@dataclass(frozen=True)
class Card:
    """What a model's card states (`models/NAME/model.toml`)."""

    name: str
    version: str
    population: str
    dice: str
    hashes: frozenset[str]

    def sentence(self) -> str:
        """Return how good it is, and on whom."""
        dice = f"mean Dice {self.dice} on held-out data" if self.dice else "no figure on its card"
        return f"{self.name} {self.version}: {dice}; made for: {self.population or NOT_STATED}"


def load_cards(folder: Path) -> tuple[Card, ...]:
    """Read the cards of all models; one that cannot be read counts as not there."""
    return tuple(card for path in sorted(folder.glob("*/model.toml")) if (card := _card(path)) is not None)


def _card(path: Path) -> Card | None:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        return None
    parts = [part for part in table.values() if isinstance(part, dict)]
    hashes = {str(part["sha256"]) for part in parts if part.get("sha256")}
    dice = table.get("held_out_dice")
    shown = f"{float(dice):.2f}" if isinstance(dice, int | float) else ""
    return Card(
        str(table.get("name") or path.parent.name),
        str(table.get("version", "")),
        str(table.get("population", "")),
        shown,
        frozenset(hashes),
    )


def passport_of(observation: Json, devices: Mapping[str, Json], cards: Sequence[Card]) -> Passport:
    """Return the passport of a measured Observation.

    Args:
        devices: Devices of the request by `Device/id`; contained ones are found in the Observation.
        cards: Cards of the models of this house; only one with the same hash speaks for a value.
    """
    device = _device(observation, devices)
    versions = [v for v in _objects(device.get("version")) if v.get("value")]
    hashes = {str(v["value"]) for v in versions if _is_hash(str(v["value"]))}
    speaking = [card for card in cards if card.hashes & hashes]
    notes = [one_line(str(note["text"]), 400) for note in _objects(observation.get("note")) if note.get("text")]
    series = next((n.removeprefix(_SERIES).rstrip(".") for n in notes if n.startswith(_SERIES)), "")
    warnings = tuple(n for n in notes if not n.startswith(_SERIES) and not n.lower().startswith("research use"))
    return Passport(
        series=series or NOT_STATED,
        models=_models(device, versions, observation),
        quality="; ".join(card.sentence() for card in speaking) or "not stated for this version",
        uncertainty=_uncertainty(observation),
        reviewer=_reviewer(observation),
        warnings=warnings,
        machine=_machine(observation) if observation.get("status") in CORRECTED else "",
    )


def _device(observation: Json, devices: Mapping[str, Json]) -> Json:
    reference = str((observation.get("device") or {}).get("reference") or "")
    for contained in _objects(observation.get("contained")):
        if contained.get("resourceType") == "Device" and reference in {"", f"#{contained.get('id')}"}:
            return contained
    return devices.get(reference, {})


def _models(device: Json, versions: list[Json], observation: Json) -> tuple[str, ...]:
    """Return one phrase a network: its name with version, and the begin of its hash."""
    named: dict[str, list[str]] = {}
    for version in versions:
        label = str((version.get("type") or {}).get("text") or "")
        value = str(version["value"])
        name = label.removesuffix(" version").removesuffix(" weights SHA-256") or "model"
        named.setdefault(name, []).append(
            f"(weights SHA-256 {value[:12]}…)" if _is_hash(value) else one_line(value, 40)
        )
    if named:
        return tuple(
            " ".join([one_line(name, 60), *sorted(parts, key=lambda p: p.startswith("("))])
            for name, parts in named.items()
        )
    shown = [str(n.get("name")) for n in _objects(device.get("deviceName")) if n.get("name")]
    display = (observation.get("device") or {}).get("display")
    return tuple(one_line(n, 60) for n in shown) or ((one_line(str(display), 60),) if display else ())


def _is_hash(value: str) -> bool:
    return len(value) == 64 and all(c in "0123456789abcdef" for c in value.lower())


def _uncertainty(observation: Json) -> str:
    """Return the interval that an Observation states as components p10 and p90, and of what, or that it states none."""
    found: dict[str, str] = {}
    interval = "80 % interval"
    for component in _objects(observation.get("component")):
        codes = {str(c.get("code")) for c in _objects((component.get("code") or {}).get("coding"))}
        quantity = component.get("valueQuantity")
        if isinstance(quantity, dict) and quantity.get("value") is not None:
            found |= {
                code: f"{quantity['value']} {quantity.get('unit') or quantity.get('code') or ''}".strip()
                for code in codes
            }
            if "p10" in codes:
                interval = str((component.get("code") or {}).get("text") or interval)
    if "p10" in found and "p90" in found:
        return f"{interval}: {found['p10']} to {found['p90']}"
    if "sure" in found and "possible" in found:
        return (
            f"the network is at least 90 % sure of {found['sure']} and at least 10 % sure of {found['possible']}; these are its own "
            "probabilities, not checked against errors; its map of doubt shows where, not why"
        )
    return NOT_STATED


def _reviewer(observation: Json) -> str:
    """Return who accepted the value; only a status beyond preliminary counts."""
    if observation.get("status") not in _ACCEPTED:
        return ""
    return _who(observation)


def _who(observation: Json) -> str:
    names = [str(p.get("display")) for p in _objects(observation.get("performer")) if p.get("display")]
    return one_line(names[0], 80) if names else "a person whom the record does not name"


def _review(observation: Json) -> dict[str, Json]:
    """Return what the person who judged a value wrote down, by name."""
    said = (e for e in _objects(observation.get("extension")) if e.get("url") == EXT_REVIEW)
    return {str(part.get("url")): part for e in said for part in _objects(e.get("extension"))}


def _machine(observation: Json) -> str:
    quantity = _review(observation).get("machine", {}).get("valueQuantity") or {}
    return (
        one_line(f"{quantity.get('value')} {quantity.get('unit') or ''}".strip(), 40) if quantity else "another number"
    )


def rejection_of(observation: Json) -> str:
    """Return by whom and why a value was rejected."""
    reason = _review(observation).get("reason", {}).get("valueString")
    return f"rejected by {_who(observation)}" + (f": {one_line(str(reason), 200)}" if reason else "")


def _objects(value: Any) -> list[Json]:
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def lines_of(passport: Passport) -> Iterator[str]:
    """Yield the passport as short lines for people."""
    yield f"Series: {passport.series}."
    yield f"Model: {'; '.join(passport.models) or NOT_STATED}."
    yield f"How good, on whom: {passport.quality}."
    yield f"Uncertainty: {passport.uncertainty}."
    yield f"Reviewed: {passport.state if passport.reviewer else 'no'}."
    if passport.warnings:
        yield f"Said by the measurement: {' '.join(passport.warnings)}"
