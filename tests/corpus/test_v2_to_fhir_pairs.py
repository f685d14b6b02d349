"""65 messages beside the bundles that another converter makes of them: field by field, every difference explained in a data file.

Compared are the values under each element, over all resources of a type, without ids, references, systems and extensions; times as
instants. A difference that `v2_to_fhir_differences.toml` does not explain fails, and so does an explanation of nothing.
"""

import gzip
import json
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from arcuate.gateway import preview, profile
from arcuate.gateway.mapping import plan
from arcuate.gateway.mapping.model import ContentFault
from arcuate.gateway.mapping.plan import Context
from arcuate.kernel.errors import Json
from arcuate.kernel.hl7v2.message import split

EXPLAINED = tomllib.loads(Path(__file__).with_name("v2_to_fhir_differences.toml").read_text("utf-8"))
TYPES = (
    "Patient", "Encounter", "ServiceRequest", "Appointment", "DiagnosticReport", "Observation", "AllergyIntolerance", "Condition", "Location",
    "Procedure",
)  # fmt: skip
NOT_COMPARED = ("id", "meta", "resourceType", "reference", "system", "extension")
VERDICTS = ("ours right", "theirs faulty", "open")
Values = dict[str, set[str]]


def comparable(value: Any) -> str:
    text = " ".join(str(value).lower().split() if isinstance(value, bool) else str(value).split())
    if len(text) >= 16 and text[4:5] == "-" and text[10:11] == "T":
        return datetime.fromisoformat(text).astimezone(UTC).isoformat()
    return f"{float(text):g}" if "." in text and text.replace(".", "", 1).isdigit() and len(text) < 10 else text


def leaves(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, inner in value.items():
            if name not in NOT_COMPARED and not (name == "text" and isinstance(inner, dict)):
                yield from leaves(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from leaves(inner, path)
    else:
        yield path, comparable(value)


def by_element(resources: list[Json]) -> Values:
    found: Values = defaultdict(set)
    for resource in resources:
        if resource["resourceType"] in TYPES:
            for path, value in leaves(resource, resource["resourceType"]):
                found[path].add(value)
    return found


def ours(raw: bytes) -> list[Json]:
    (one,) = split(raw).messages
    message = profile.read().parse(one)
    use = plan.use_of_message(message)
    if use not in plan.events()["use"].values():
        return []
    context = Context.of(message, profile.read(), ZoneInfo("UTC"), datetime(2026, 1, 1, tzinfo=UTC))
    try:
        mapped, _ = plan.apply(use, context, preview.standing(use, context))
    except ContentFault:
        return []
    return [entry.resource for entry in mapped.entries if entry.resource]


def explanation(path: str, side: str) -> int | None:
    listed = enumerate(EXPLAINED["difference"])
    return next((n for n, one in listed if one["side"] == side and fnmatchcase(path, one["path"])), None)


def test_every_difference_from_the_expected_bundles_is_explained(shared: Path) -> None:
    agreeing, unmade, used = 0, [], Counter[int]()
    unexplained: list[str] = []
    for path in sorted((shared / "data" / "fhir" / "v2-to-fhir-pairs").glob("*.hl7")):
        expected = json.loads(gzip.decompress(path.with_suffix(".expected.json.gz").read_bytes()))
        made = ours(path.read_bytes())
        if not made:
            unmade.append(path.name)
            continue
        mine, theirs = by_element(made), by_element([entry["resource"] for entry in expected["entry"]])
        for element in mine.keys() | theirs.keys():
            agreeing += len(mine[element] & theirs[element])
            for side, left in (("ours", mine[element] - theirs[element]), ("theirs", theirs[element] - mine[element])):
                if not left:
                    continue
                place = explanation(element, side)
                if place is None:
                    unexplained.append(f"{side:6} {element}: {min(left)[:60]} ({path.name})")
                else:
                    used[place] += len(left)
    verdicts = Counter[str]()
    for place, number in used.items():
        verdicts[EXPLAINED["difference"][place]["verdict"]] += number
    print(f"{agreeing} values agree; differing: {dict(verdicts)}; nothing made of {len(unmade)} messages")

    assert unexplained == []
    assert unmade == sorted(one["file"] for one in EXPLAINED["nothing_made"])
    assert agreeing >= EXPLAINED["agreeing"]
    idle = [one["path"] for place, one in enumerate(EXPLAINED["difference"]) if place not in used]
    assert idle == [], "these differences are none any more"
    assert all(one["verdict"] in VERDICTS and one["why"] for one in EXPLAINED["difference"])
