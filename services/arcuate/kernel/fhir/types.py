"""FHIR R4 types: the one place that imports fhir.resources (its R4B package), and the checks that it leaves out.

The package judges cardinality, unknown elements, formats and choices. It lets pass, and this module refuses: codes outside a required
binding, references to a wrong type, empty arrays, null, decimals and objects sent as text, an id longer than 64 characters.
"""

import os
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

_TYPE = re.compile(r"[A-Z][A-Za-z]{1,40}\Z")
_REFERENCE = re.compile(r"(?:^|/)([A-Z][A-Za-z]{1,40})/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?\Z")
_ABSTRACT = frozenset({"Resource", "DomainResource", "CanonicalResource", "MetadataResource"})
_FORMS = {
    "boolean": "boolean", "Decimal": "decimal", "Integer": "integer", "UnsignedInt": "integer", "PositiveInt": "integer",
    "Integer64": "integer",
}  # fmt: skip


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
    """

    many: bool
    form: str
    kind: str
    path: str = ""
    codes: frozenset[str] | None = None
    targets: frozenset[str] = frozenset()


Shape = Mapping[str, Element]


def is_known(resource_type: str) -> bool:
    """Say whether FHIR R4 has a resource of that name."""
    return _model(resource_type) is not None


def validate(resource: Json, path: str = "") -> None:
    """Refuse a resource that is not valid FHIR R4.

    Args:
        resource: A resource from the strict gate; it is not changed.
        path: Where it stands (`Bundle.entry[3].resource`); its own type when left out.

    Raises:
        BadInput: With the FHIRPath expression of the first element at fault.
    """
    name = resource.get("resourceType")
    where = path or (name if isinstance(name, str) and _TYPE.match(name) else "Resource")
    shape = _resource_shape(resource, where)
    _check_object(resource, shape, where, resource)
    try:
        _model(str(name)).model_validate(resource)
    except ValidationError as error:
        raise _translate(error, resource, where) from None
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
    fields = get_fhir_model_class(kind).model_fields
    return {
        field.alias or name: _element(kind, path or kind, field.alias or name, field)
        for name, field in fields.items()
        if name != "fhir_comments"  # of the package, not of FHIR
    }


def _element(owner: str, path: str, name: str, field: FieldInfo) -> Element:
    annotation = str(field.annotation)
    many = "List[" in annotation
    extra = field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}
    root, _, inner = path.partition(".")
    found = re.search(r"abc\.(\w+)Type\b", annotation)
    if found is None:
        kind = "boolean" if "bool" in annotation else next(iter(re.findall(r"(\w+)\(", annotation)), "String")
        codes = _required_codes().get(root, {}).get(f"{inner}.{name}" if inner else name)
        return Element(
            many, _FORMS.get(kind, "text"), kind[0].lower() + kind[1:], codes=frozenset(codes) if codes else None
        )
    kind = found.group(1)
    if kind == "Resource":
        return Element(many, "resource", kind)
    targets = extra.get("enum_reference_types")
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
        element = shape.get(name)
        if element is None:
            if name == "resourceType":
                continue
            raise _fault("The element is not one of FHIR R4", f"{where}.{_printable(name)}")
        if not element.many:
            _check_value(inner, element, f"{where}.{name}", root)
        elif not isinstance(inner, list):
            raise _fault("One value stands where an array belongs", f"{where}.{name}")
        elif not inner:
            raise _fault("An array is empty", f"{where}.{name}", "Leave the element out.")
        else:
            for position, one in enumerate(inner):
                # In arrays of primitives and of their companions (`_given`), null keeps the two in step.
                if one is not None or (element.form in ("object", "resource") and not name.startswith("_")):
                    _check_value(one, element, f"{where}.{name}[{position}]", root)


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
    elif not _is_primitive(value, element.form):
        raise _fault(f"A {element.kind} belongs here", where, "Check its JSON form.")
    elif element.codes is not None and value not in element.codes:
        raise _fault("The code is not one that FHIR requires here", where, _choice(element.codes), "code-invalid")


def _is_primitive(value: Any, form: str) -> bool:
    if form == "text":
        return isinstance(value, str) and bool(value)
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


def _translate(error: ValidationError, resource: Json, where: str) -> BadInput:
    """Turn the package's first complaint into an error that names the element and holds nothing of the input."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    holder: Any = resource
    expression = where
    for step in first["loc"]:
        if step == "root":
            break
        expression += f"[{step}]" if isinstance(step, int) else f".{_printable(str(step).replace('__ext', ''))}"
        holder = _inside(holder, step)
    names = re.findall(r"'(\w+)'", first["msg"]) if "Any of one field" in first["msg"] else []
    if names:
        choice = os.path.commonprefix(names)  # noqa: RUF071 - of names, not of paths
        several = sum(name in holder for name in names) > 1 if isinstance(holder, dict) else False
        what = f"Only one form of {choice}[x] may stand" if several else f"{choice}[x] is missing"
        return _fault(what, f"{expression}.{choice}", code="structure" if several else "required")
    if "missing" in first["type"]:
        return _fault("A required element is missing", expression, code="required")
    return _fault("The value does not have the form that FHIR R4 asks for", expression, code="value")


def _inside(holder: Any, step: int | str) -> Any:
    if isinstance(holder, dict):
        return holder.get(str(step))
    if isinstance(holder, list) and isinstance(step, int) and step < len(holder):
        return holder[step]
    return None


def _printable(name: str) -> str:
    return "".join(c if c.isalnum() or c == "_" else "?" for c in name[:60])
