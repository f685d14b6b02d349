"""Reading FHIR R4 resources without ever failing on them: whatever is not of the expected form counts as not there."""

from collections.abc import Iterator
from datetime import UTC, date, datetime
from math import isfinite
from typing import Any

Json = dict[str, Any]


def objects(value: Any) -> list[Json]:
    """Return the JSON objects in a value that should be an array of objects (or one)."""
    if isinstance(value, dict):
        return [value]
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def codings(concept: Any) -> list[Json]:
    """Return the codings of a CodeableConcept."""
    return objects(concept.get("coding")) if isinstance(concept, dict) else []


def text_of(concept: Any) -> str:
    """Return the text of a CodeableConcept."""
    text = concept.get("text") if isinstance(concept, dict) else None
    return text if isinstance(text, str) else ""


def words_of(concept: Any) -> str:
    """Return everything that a CodeableConcept says in words."""
    return " ; ".join(t for t in (text_of(concept), *(string(c.get("display")) for c in codings(concept))) if t)


def codes_of(concept: Any, system: str) -> list[str]:
    """Return the codes of one system in a CodeableConcept."""
    return [string(c.get("code")) for c in codings(concept) if c.get("system") == system and c.get("code")]


def first_code(concept: Any) -> str:
    """Return the first code of a CodeableConcept, of whatever system."""
    return next((string(c.get("code")) for c in codings(concept) if c.get("code")), "")


def string(value: Any) -> str:
    """Return a text, or nothing."""
    return value if isinstance(value, str) else ""


def notes_of(resource: Json) -> str:
    """Return the notes of a resource."""
    return " ; ".join(string(note.get("text")) for note in objects(resource.get("note")) if note.get("text"))


def number(value: Any) -> float | None:
    """Return a number as float; booleans and texts are none."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return None
    try:
        made = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return made if isfinite(made) and abs(made) < 1e12 else None


def reference_of(resource: Json) -> str:
    """Return `Type/id` of a resource that has an id, else nothing."""
    kind, logical = resource.get("resourceType"), resource.get("id")
    return f"{kind}/{logical}" if isinstance(kind, str) and isinstance(logical, str) and logical else ""


def moment(value: Any) -> datetime | None:
    """Return a FHIR date, dateTime or instant as an aware time; a partial date counts from its begin, no zone as UTC."""
    text = string(value)
    try:
        if len(text) == 4:
            return datetime(int(text), 1, 1, tzinfo=UTC)
        if len(text) == 7:
            return datetime(int(text[:4]), int(text[5:]), 1, tzinfo=UTC)
        made = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return (made if made.tzinfo else made.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def when(resource: Json, *elements: str) -> datetime | None:
    """Return the first of these elements that holds a time; a Period counts from its start, else its end."""
    for name in elements:
        value = resource.get(name)
        if isinstance(value, dict):
            value = value.get("start") or value.get("end")
        if (made := moment(value)) is not None:
            return made
    return None


def days_between(earlier: datetime | None, later: datetime) -> float | None:
    """Return the days from one time to another; negative when the first lies in the future."""
    return None if earlier is None else (later - earlier).total_seconds() / 86400


def age_years(birth: Any, now: datetime) -> float | None:
    """Return the age at a time, in years; partial birth dates count from their begin."""
    made = moment(birth)
    if made is None:
        return None
    born, today = made.date(), now.date()
    if born > today:
        return None
    years = today.year - born.year - ((today.month, today.day) < (born.month, born.day))
    if years >= 2:
        return float(years)
    return (today - date(born.year, born.month, born.day)).days / 365.25


def void(resource: Json) -> bool:
    """Return whether a resource says of itself that it is not true: entered in error, refuted, cancelled as a result."""
    if resource.get("status") == "entered-in-error":
        return True
    return first_code(resource.get("verificationStatus")) in {"entered-in-error", "refuted"}


def entries(bundle: Any) -> Iterator[Json]:
    """Yield the resources of a Bundle, or the resource itself."""
    if not isinstance(bundle, dict):
        return
    if bundle.get("resourceType") != "Bundle":
        yield bundle
        return
    for entry in objects(bundle.get("entry")):
        if isinstance(entry.get("resource"), dict):
            yield entry["resource"]
