"""FHIR R4 types: the one place that imports fhir.resources (its R4B package), and the checks that it leaves out.

The checks follow the package's own description of each type. What the package lets pass they refuse too: codes outside a required
binding, references to a wrong type, empty arrays, null, decimals and objects sent as text, an id longer than 64 characters. They take a
tenth of the time of the package's models, which stand behind them as a second judge of what comes from outside.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any

from fhir.resources.R4B import get_fhir_model_class
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from arcuate.kernel.errors import BadInput, Json
from arcuate.kernel.fhir.primitives import INTEGER_RANGES, TEXT_FORMS, Check

_TYPE = re.compile(r"[A-Z][A-Za-z]{1,40}\Z")
_REFERENCE = re.compile(r"(?:^|/)([A-Z][A-Za-z]{1,40})/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?\Z")
_OWN_NAMES = {
    "EncodedBytes": "base64Binary",
    "UuidVersion": "uuid",
}  # where the package's name for a primitive is not FHIR's
_ABSTRACT = frozenset({"Resource", "DomainResource", "CanonicalResource", "MetadataResource"})


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
    """

    elements: Mapping[str, Element]
    required: tuple[str, ...] = ()
    choices: tuple[tuple[str, frozenset[str], bool], ...] = ()


def is_known(resource_type: str) -> bool:
    """Say whether FHIR R4 has a resource of that name."""
    return _model(resource_type) is not None


def validate(resource: Json, path: str = "", *, by_package: bool = True) -> None:
    """Refuse a resource that is not valid FHIR R4.

    Args:
        resource: A resource from the strict gate; it is not changed.
        path: Where it stands (`Bundle.entry[3].resource`); its own type when left out.
        by_package: Ask fhir.resources too; left out for what the house's own rooms built.

    Raises:
        BadInput: With the FHIRPath expression of the first element at fault.
    """
    name = resource.get("resourceType")
    where = path or (name if isinstance(name, str) and _TYPE.match(name) else "Resource")
    shape = _resource_shape(resource, where)
    _check_object(resource, shape, where, resource)
    if not by_package:
        return
    try:
        _model(str(name)).model_validate(resource)
    except ValidationError as error:
        raise _translate(error, where) from None
    except (RecursionError, TypeError, ValueError, KeyError, AttributeError):
        # The package's own validators can fail on forms that they did not expect; the input is at fault all the same.
        raise _fault("The resource has a form that FHIR does not know", where) from None


def _fault(what: str, where: str, todo: str = "", code: str = "structure") -> BadInput:
    return BadInput(what, where=where, todo=todo, code=code)


@cache
def _model(resource_type: str) -> Any:
    if not _TYPE.match(resource_type) or resource_type in _ABSTRACT:
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
    return Shape(elements, tuple(required), grouped)


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
    return Element(many, "object", kind, nested, targets=frozenset() if known & _ABSTRACT else known)


def _resource_shape(value: Any, where: str) -> Shape:
    if not isinstance(value, dict):
        raise _fault("A resource belongs here", where)
    name = value.get("resourceType")
    if not isinstance(name, str) or not is_known(name):
        raise _fault("The resourceType is missing or not one of FHIR R4", f"{where}.resourceType")
    logical_id = value.get("id")
    if isinstance(logical_id, str) and len(logical_id) > 64:
        raise _fault("An id is longer than 64 characters", f"{where}.id", code="value")
    return shape_of(name)


def _check_object(value: Json, shape: Shape, where: str, root: Json) -> None:
    if not value:
        raise _fault("An object is empty", where, "Leave the element out.")
    for name, inner in value.items():
        element = shape.elements.get(name)
        if element is None:
            if name == "resourceType" and "meta" in shape.elements:
                continue
            raise _fault("The element is not one of FHIR R4", f"{where}.{_printable(name)}")
        if element.many:
            _check_array(inner, element, f"{where}.{name}", root)
        else:
            _check_value(inner, element, f"{where}.{name}", root)
    for name in shape.required:
        if name not in value and f"_{name}" not in value:
            raise _fault("A required element is missing", f"{where}.{name}", code="required")
    for choice, names, needed in shape.choices:
        stand = len(names & value.keys())
        if stand > 1:
            raise _fault(f"Only one form of {choice}[x] may stand", f"{where}.{choice}")
        if needed and not stand and not any(f"_{name}" in value for name in names):
            raise _fault(f"{choice}[x] is missing", f"{where}.{choice}", code="required")


def _check_array(value: Any, element: Element, where: str, root: Json) -> None:
    if not isinstance(value, list):
        raise _fault("One value stands where an array belongs", where)
    if not value:
        raise _fault("An array is empty", where, "Leave the element out.")
    # In arrays of primitives and of their companions (`_given`), null keeps the two in step.
    null_may_stand = element.form not in ("object", "resource") or element.kind == "FHIRPrimitiveExtension"
    for position, one in enumerate(value):
        if one is not None or not null_may_stand:
            _check_value(one, element, f"{where}[{position}]", root)


def _check_value(value: Any, element: Element, where: str, root: Json) -> None:
    if element.form == "object":
        if not isinstance(value, dict):
            raise _fault(f"An object ({element.kind}) belongs here", where)
        _check_object(value, shape_of(element.kind, element.path), where, root)
        if element.targets:
            _check_target(value, element.targets, where, root)
    elif element.form == "resource":
        inner = _resource_shape(value, where)
        _check_object(value, inner, where, root if ".contained[" in where else value)
    elif element.form == "text":
        _check_text(value, element, where)
    elif not _is_primitive(value, element.form):
        raise _fault(f"A {element.kind} belongs here", where, "Check its JSON form.")
    elif element.form == "integer" and not element.span[0] <= value <= element.span[1]:
        raise _fault(f"The number is out of the range of {element.kind}", where, code="value")


def _check_text(value: Any, element: Element, where: str) -> None:
    if not isinstance(value, str) or not value:
        raise _fault(f"A {element.kind} belongs here", where, "Check its JSON form.")
    if element.codes is not None:
        if value not in element.codes:
            raise _fault("The code is not one that FHIR requires here", where, _choice(element.codes), "code-invalid")
    elif element.check is not None:
        if not element.check(value):
            raise _fault(f"The text is no {element.kind}", where, code="value")
    elif value.isspace():
        raise _fault("The text is blank", where, "Leave the element out.", "value")


def _is_primitive(value: Any, form: str) -> bool:
    if form == "boolean":
        return isinstance(value, bool)
    if form == "integer":
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool)


def _check_target(reference: Json, targets: frozenset[str], where: str, root: Json) -> None:
    named = _target_type(reference, root)
    if named and named not in targets:
        raise _fault(f"A reference to {named} may not stand here", f"{where}.reference", _choice(targets), "value")


def _target_type(reference: Json, root: Json) -> str | None:
    """Return the type that a Reference names, or None when it does not say."""
    text = reference.get("reference")
    if not isinstance(text, str):
        return None
    if text.startswith("#"):
        inner = (c for c in root.get("contained") or [] if isinstance(c, dict) and c.get("id") == text[1:])
        return next((str(c.get("resourceType")) for c in inner), None)
    head, question, _ = text.partition("?")
    if question:
        return head if is_known(head) else None
    found = _REFERENCE.search(text)
    return found.group(1) if found and is_known(found.group(1)) else None


def _choice(names: frozenset[str]) -> str:
    return f"One of: {', '.join(sorted(names))}."


def _translate(error: ValidationError, where: str) -> BadInput:
    """Turn the package's first complaint into an error that names the element and holds nothing of the input."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    expression = where
    for step in first["loc"]:
        if step == "root":
            break
        expression += f"[{step}]" if isinstance(step, int) else f".{_printable(str(step).replace('__ext', ''))}"
    if "missing" in first["type"]:
        return _fault("A required element is missing", expression, code="required")
    return _fault("The value does not have the form that FHIR R4 asks for", expression, code="value")


def _printable(name: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "?" for c in name[:60])
