"""Code tables of the mapping (`codes.toml`) and the forms of LOINC and SNOMED CT codes."""

import re
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources
from typing import Any

CLASS_SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-ActCode"
MARITAL_SYSTEM = "http://terminology.hl7.org/CodeSystem/v3-MaritalStatus"
CANCELLATION_SYSTEM = "http://terminology.hl7.org/CodeSystem/appointment-cancellation-reason"

_LOINC = re.compile(r"(?:L[APG])?(\d{1,7})-(\d)\Z")
_SNOMED = re.compile(r"[1-9]\d{5,17}\Z")
# Verhoeff's dihedral multiplication and permutation tables, by which SNOMED CT computes its check digit.
_D = [[(i + j) % 5 if j < 5 else 5 + (i + j) % 5 for j in range(10)] for i in range(5)] + [
    [5 + (i - j) % 5 if j < 5 else (i - j) % 5 for j in range(10)] for i in range(5, 10)
]
_P = [list(range(10)), [1, 5, 7, 6, 2, 8, 3, 0, 9, 4]]
for _ in range(6):
    _P.append([_P[-1][place] for place in _P[1]])


@cache
def table(name: str) -> Mapping[str, Any]:
    """Return a table of `codes.toml`."""
    text = resources.files("arcuate.gateway.mapping").joinpath("codes.toml").read_text("utf-8")
    data: dict[str, Any] = tomllib.loads(text)
    return data[name]


@cache
def codes(name: str) -> frozenset[str]:
    """Return the list `codes` of a table."""
    return frozenset(table(name)["codes"])


def is_loinc(code: str) -> bool:
    """Say whether a code has the form of a LOINC code and the right check digit (mod 10)."""
    found = _LOINC.match(code)
    if found is None:
        return False
    if code.startswith("L"):
        return True
    total = 0
    for place, digit in enumerate(reversed(found.group(1))):
        doubled = int(digit) * (2 if place % 2 == 0 else 1)
        total += doubled - 9 if doubled > 9 else doubled
    return (10 - total % 10) % 10 == int(found.group(2))


def is_snomed(code: str) -> bool:
    """Say whether a code has the form of a SNOMED CT concept id and the right check digit (Verhoeff)."""
    if not _SNOMED.match(code) or code[-3:-1] not in ("00", "10"):
        return False
    check = 0
    for place, digit in enumerate(reversed(code)):
        check = _D[check][_P[place % 8][int(digit)]]
    return check == 0


def system_of(code: str, mnemonic: str) -> str | None:
    """Return the URI of a coding system, or None when it is local or the code can't be one of that system."""
    name = mnemonic.strip().upper()
    if name == "LN":
        return table("code_systems")["LN"] if is_loinc(code) else None
    if name in ("SCT", "SNM"):
        return table("code_systems")["SCT"] if is_snomed(code) else None
    return table("code_systems").get(name)
