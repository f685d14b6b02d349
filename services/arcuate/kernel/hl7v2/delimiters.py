"""Delimiters of one message, read from MSH-1 and MSH-2 (HL7 v2.5.1 chapter 2.5.4)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

STANDARD = "^~\\&"
_ROLES = ("component", "repetition", "escape", "subcomponent", "truncation")


@dataclass(frozen=True, slots=True)
class Delimiters:
    """One character each; the empty string where the sender has none.

    `doubt` is a sentence when MSH-1 or MSH-2 cannot be meant as written and the standard characters were used instead.
    """

    field: str = "|"
    component: str = "^"
    repetition: str = "~"
    escape: str = "\\"
    subcomponent: str = "&"
    truncation: str = ""
    doubt: str = ""

    @property
    def encoding(self) -> str:
        """MSH-2 as these delimiters would be written."""
        return self.component + self.repetition + self.escape + self.subcomponent + self.truncation


DEFAULT = Delimiters()


@lru_cache(maxsize=256)
def read(field: str, encoding: str) -> Delimiters:
    """Delimiters for MSH-1 `field` and MSH-2 `encoding`; never fails.

    Senders lose or double characters of MSH-2 when they write it in a program text (`^~&`, `^~\\\\&`, `~\\&`). As long as only
    the standard characters occur, each keeps its standard meaning; otherwise the position decides, three to five characters.
    """
    if not _usable(field):
        return Delimiters(doubt="MSH-1 is not a usable field separator")
    if encoding == STANDARD:
        return Delimiters(field)
    if encoding and set(encoding) <= set(STANDARD):
        return _by_meaning(field, encoding)
    return _by_position(field, encoding)


def _usable(character: str) -> bool:
    return len(character) == 1 and character.isprintable() and not character.isalnum() and not character.isspace()


def _by_meaning(field: str, encoding: str) -> Delimiters:
    doubt = "" if set("^~") <= set(encoding) else "MSH-2 lacks the component or repetition separator"
    if len(encoding) != len(set(encoding)) and not doubt and encoding != "^~\\\\&":
        doubt = "MSH-2 repeats a character"
    return Delimiters(
        field,
        "^",
        "~",
        "\\" if "\\" in encoding else "",
        "&" if "&" in encoding else "",
        doubt=doubt,
    )


def _by_position(field: str, encoding: str) -> Delimiters:
    chosen: dict[str, str] = {}
    taken = {field}
    doubt = "" if 3 <= len(encoding) <= 5 else f"MSH-2 has {len(encoding)} characters, 3 to 5 are possible"
    for role, character in zip(_ROLES, encoding, strict=False):
        if character in taken or not _usable(character):
            doubt = doubt or f"MSH-2 cannot use character {_ROLES.index(role) + 1} as the {role} separator"
            continue
        chosen[role] = character
        taken.add(character)
    if doubt:
        return Delimiters(field, doubt=doubt)
    # Three characters: the third is the escape character, and the sender uses no subcomponents (2.5.4).
    return Delimiters(
        field,
        chosen["component"],
        chosen["repetition"],
        chosen["escape"],
        chosen.get("subcomponent", ""),
        chosen.get("truncation", ""),
    )
