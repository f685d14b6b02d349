"""Templates as data (`templates/NAME/template.toml` and `body.jinja`): read, checked, matched with an exam."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from arcuate.kernel.codes import Json
from arcuate.kernel.errors import BadInput
from arcuate.reporting.domain import Field
from arcuate.reporting.rendering import Body

_SECTION = re.compile(r"[a-z][a-z\-]{0,30}\Z")
_RESERVED = frozenset({"impression", "conclusion"})


@dataclass(frozen=True)
class Match:
    """Which exams a template is for.

    Attributes:
        codes: Exam codes (`urn:arcuate:cs:exam`).
        words: Groups of words; the order's text must hold one of each group.
        never: Words that rule it out.
        measured: It also fits when values for its fields were measured.
        rank: Of several that fit, the highest is taken.
    """

    codes: frozenset[str]
    words: tuple[re.Pattern[str], ...]
    never: re.Pattern[str] | None
    measured: bool
    rank: int

    def fits(self, codes: Sequence[str], text: str, measured: bool) -> bool:
        """Return whether it is for an order with these codes and this text (lower case)."""
        if self.codes & set(codes) or (measured and self.measured):
            return True
        if self.never is not None and self.never.search(text):
            return False
        return all(group.search(text) for group in self.words) and not (self.codes and not self.words)


@dataclass(frozen=True)
class Template:
    """One template.

    Attributes:
        code: Coding of the report (LOINC).
        sections: Names of the blocks of its body, in order; the impression is never among them.
    """

    name: str
    version: str
    title: str
    code: Json
    sections: tuple[str, ...]
    fields: tuple[Field, ...]
    match: Match
    body: Body


@dataclass(frozen=True)
class Shelf:
    """The templates that can be used, and why others cannot."""

    templates: tuple[Template, ...]
    faults: tuple[str, ...]


def load_templates(folder: Path) -> Shelf:
    """Read every template; one that cannot be used is left out and named, so that one slip does not stop all drafts."""
    found, faults = [], []
    for path in sorted(folder.glob("*/template.toml")):
        try:
            found.append(read_template(path))
        except BadInput as error:
            faults.append(str(error))
    return Shelf(tuple(found), tuple(faults))


def choose(templates: Sequence[Template], order: Json, structures: frozenset[str]) -> Template | None:
    """Return the template for an order; `structures` are the codes of the values that were measured."""
    code = order.get("code") or {}
    codings = [c for c in code.get("coding") or [] if isinstance(c, dict)]
    codes = [str(c["code"]) for c in codings if c.get("code")]
    text = " ".join([str(code.get("text") or ""), *(str(c.get("display") or "") for c in codings)]).lower()
    fits = [t for t in templates if t.match.fits(codes, text, any(f.structure in structures for f in t.fields))]
    return max(fits, key=lambda t: t.match.rank, default=None)


def read_template(path: Path) -> Template:
    """Read one template. A bad body only leaves its sections out.

    Raises:
        BadInput: The template.toml cannot be used, with file and reason.
    """
    where = f"{path.parent.name}/{path.name}"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
        head, match = tables["template"], tables.get("match", {})
        sections = tuple(str(name) for name in head["sections"])
        made = Template(
            name=path.parent.name,
            version=str(head["version"]),
            title=str(head["title"]),
            code=dict(head["code"]),
            sections=sections,
            fields=tuple(_field(row) for row in tables.get("field", [])),
            match=_match(match),
            body=Body((path.parent / "body.jinja").read_text(encoding="utf-8")),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, ArithmeticError, OSError) as error:
        raise BadInput(
            f"The template cannot be used: {type(error).__name__} {error}", where=where, todo="Mend the entry it names."
        ) from None
    _check(made, where)
    return made


def _check(made: Template, where: str) -> None:
    if bad := [s for s in made.sections if not _SECTION.match(s) or s in _RESERVED]:
        raise BadInput(
            f"'{bad[0]}' is no section that a template may fill", where=where, todo="The impression is the reader's."
        )
    keys = [f.key for f in made.fields]
    if twice := {key for key in keys if keys.count(key) > 1}:
        raise BadInput(f"The field '{sorted(twice)[0]}' stands twice", where=where)
    for field in made.fields:
        if field.side and field.side not in field.label.lower():
            raise BadInput(
                f"The label of '{field.key}' does not say its side in full",
                where=where,
                todo=f"Write {field.side} into it.",
            )


def _field(row: Mapping[str, Any]) -> Field:
    low, high = row["plausible"]
    side = str(row.get("side", ""))
    if side not in {"", "left", "right"}:
        raise ValueError(f"side '{side}' is neither left nor right")
    return Field(
        str(row["key"]),
        str(row["label"]),
        str(row["structure"]),
        side,
        str(row["unit"]),
        int(row["digits"]),
        (Decimal(str(low)), Decimal(str(high))),
    )


def _match(row: Mapping[str, Any]) -> Match:
    return Match(
        frozenset(row.get("codes", [])),
        tuple(_words(group) for group in row.get("words", [])),
        _words(row["never"]) if row.get("never") else None,
        bool(row.get("measured", False)),
        int(row.get("rank", 0)),
    )


def _words(words: Sequence[str]) -> re.Pattern[str]:
    parts = (re.escape(word.lower()).replace(r"\*", r"\w*").replace(r"\ ", r"[\s\-]+") for word in words)
    return re.compile(r"(?<!\w)(?:" + "|".join(parts) + r")(?!\w)")
