"""FHIR R4 types as fhir.resources (its R4B package) describes them: the one place that imports it."""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from fhir.resources.R4B import get_fhir_model_class
from pydantic.fields import FieldInfo

from arcuate.kernel.fhir.invariants import Rule, rules_of
from arcuate.kernel.fhir.primitives import INTEGER_RANGES, TEXT_FORMS, Check

TYPE_NAME = re.compile(r"[A-Z][A-Za-z]{1,40}\Z")
_OWN_NAMES = {
    "EncodedBytes": "base64Binary",
    "UuidVersion": "uuid",
}  # where the package's name for a primitive is not FHIR's
ABSTRACT = frozenset({"Resource", "DomainResource", "CanonicalResource", "MetadataResource"})


@dataclass(frozen=True)
class Element:
    """What one element may hold.

    Attributes:
        many: It is an array.
        form: `decimal`, `integer`, `boolean`, `text`, `object` (a data type or backbone) or `resource`.
        kind: The FHIR type (`dateTime`, `CodeableConcept`), or fhir.resources' name of a backbone.
        path: For an object, the path under which its required codes are listed.
        codes: The codes of its required binding; None when there is none.
        targets: Types that a reference may name; empty when any may stand.
        check: Says whether a text has the form of its type.
        span: Least and greatest integer.
    """

    many: bool
    form: str
    kind: str
    path: str = ""
    codes: frozenset[str] | None = None
    targets: frozenset[str] = frozenset()
    check: Check | None = None
    span: tuple[int, int] = (-(2**31), 2**31 - 1)


@dataclass(frozen=True)
class Shape:
    """The elements of a type by their JSON names.

    Attributes:
        required: Elements that must stand, or at least their companions (`_status`).
        choices: For each `value[x]`: its name, its elements, and whether one must stand.
        rules: Its invariants.
    """

    elements: Mapping[str, Element]
    required: tuple[str, ...] = ()
    choices: tuple[tuple[str, frozenset[str], bool], ...] = ()
    rules: tuple[Rule, ...] = ()


def is_known(resource_type: str) -> bool:
    """Say whether FHIR R4 has a resource of that name."""
    return model_of(resource_type) is not None


@cache
def model_of(resource_type: str) -> Any:
    if not TYPE_NAME.match(resource_type) or resource_type in ABSTRACT:
        return None
    try:
        model = get_fhir_model_class(resource_type)
    except (ValueError, ImportError):
        return None
    return model if "meta" in model.model_fields else None  # data types have no meta


@cache
def _required_codes() -> dict[str, dict[str, list[str]]]:
    return tomllib.loads(resources.files(__package__).joinpath("required_codes.toml").read_text("utf-8"))


@cache
def shape_of(kind: str, path: str = "") -> Shape:
    """Return the elements of a resource, data type or backbone by their JSON names.

    Args:
        kind: As fhir.resources calls it (`Patient`, `Identifier`, `PatientContact`).
        path: For a backbone, the path of the element that it fills (`Patient.contact`).
    """
    fields = {
        field.alias or name: field
        for name, field in get_fhir_model_class(kind).model_fields.items()
        if name != "fhir_comments"  # of the package, not of FHIR
    }
    elements = {name: _element(kind, path or kind, name, field) for name, field in fields.items()}
    required = [name for name, field in fields.items() if field.is_required() or _extra(field).get("element_required")]
    choices: dict[str, set[str]] = {}
    for name, field in fields.items():
        if choice := _extra(field).get("one_of_many"):
            choices.setdefault(str(choice), set()).add(name)
    needed = {_extra(f).get("one_of_many") for f in fields.values() if _extra(f).get("one_of_many_required")}
    grouped = tuple((choice, frozenset(names), choice in needed) for choice, names in choices.items())
    return Shape(elements, tuple(required), grouped, rules_of(path or kind))


def _extra(field: FieldInfo) -> Mapping[str, Any]:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _element(owner: str, path: str, name: str, field: FieldInfo) -> Element:
    annotation = str(field.annotation)
    many = "List[" in annotation
    root, _, inner = path.partition(".")
    found = re.search(r"abc\.(\w+)Type\b", annotation)
    if found is None:
        kind = "boolean" if "bool" in annotation else next(iter(re.findall(r"(\w+)\(", annotation)), "String")
        kind = _OWN_NAMES.get(kind, kind[0].lower() + kind[1:])
        codes = _required_codes().get(root, {}).get(f"{inner}.{name}" if inner else name)
        form = "integer" if kind in INTEGER_RANGES else kind if kind in ("boolean", "decimal") else "text"
        return Element(
            many, form, kind, codes=frozenset(codes) if codes else None, check=TEXT_FORMS.get(kind),
            span=INTEGER_RANGES.get(kind, (0, 0)),
        )  # fmt: skip
    kind = found.group(1)
    if kind == "Resource":
        return Element(many, "resource", kind)
    targets = _extra(field).get("enum_reference_types")
    known = frozenset(str(t) for t in targets) if isinstance(targets, list) else frozenset()
    backbone = kind.startswith(root) and kind != root
    nested = path if kind == owner else f"{path}.{name}" if backbone else kind
    return Element(many, "object", kind, nested, targets=frozenset() if known & ABSTRACT else known)


@cache
def summary_of(kind: str) -> frozenset[str]:
    """Return the top elements of a resource that belong to its summary (`_summary=true`)."""
    fields = get_fhir_model_class(kind).model_fields.items()
    return frozenset(field.alias or name for name, field in fields if _extra(field).get("summary_element_property"))
