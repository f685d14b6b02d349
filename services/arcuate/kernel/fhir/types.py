"""FHIR R4 resources judged: by fhir.resources, and before it by the checks that it leaves out.

The checks follow the package's own description of each type. What the package lets pass they refuse too: codes outside a required
binding, references to a wrong type or to nothing contained, empty arrays, null, decimals and objects sent as text, an id longer than 64
characters, and the standard's invariants (`invariants.py`). They take a tenth of the time of the package's models, which stand behind them as
a second judge of what comes from outside.
"""

import re
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from arcuate.kernel.errors import BadInput, Json
from arcuate.kernel.fhir.contained import broken_containment, broken_narrative
from arcuate.kernel.fhir.invariants import Broken
from arcuate.kernel.fhir.shapes import TYPE_NAME, Element, Shape, is_known, model_of, shape_of

__all__ = ["is_known", "shape_of", "validate"]

_REFERENCE = re.compile(r"(?:^|/)([A-Z][A-Za-z]{1,40})/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?\Z")


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
    where = path or (name if isinstance(name, str) and TYPE_NAME.match(name) else "Resource")
    shape = _resource_shape(resource, where)
    _check_object(resource, shape, where, resource)
    if found := broken_containment(resource):
        raise _broken(*found, where)
    if not by_package:
        return
    try:
        model_of(str(name)).model_validate(resource)
    except ValidationError as error:
        raise _translate(error, where) from None
    except (RecursionError, TypeError, ValueError, KeyError, AttributeError):
        # The package's own validators can fail on forms that they did not expect; the input is at fault all the same.
        raise _fault("The resource has a form that FHIR does not know", where) from None


def _fault(what: str, where: str, todo: str = "", code: str = "structure") -> BadInput:
    return BadInput(what, where=where, todo=todo, code=code)


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
        elif element.form != "text" or not _is_good_text(inner, element):  # most are, and need no words for the place
            _check_value(inner, element, f"{where}.{name}", root)
    _check_shape(value, shape, where)


def _check_shape(value: Json, shape: Shape, where: str) -> None:
    """Refuse an object that lacks what it needs, or breaks a rule among its elements."""
    for name in shape.required:
        if name not in value and f"_{name}" not in value:
            raise _fault("A required element is missing", f"{where}.{name}", code="required")
    for choice, names, needed in shape.choices:
        stand = len(names & value.keys())
        if stand > 1:
            raise _fault(f"Only one form of {choice}[x] may stand", f"{where}.{choice}")
        if needed and not stand and not any(f"_{name}" in value for name in names):
            raise _fault(f"{choice}[x] is missing", f"{where}.{choice}", code="required")
    for rule in shape.rules:
        if broken := rule.check(value):
            raise _broken(rule.id, broken, where)


def _broken(rule: str, broken: Broken, where: str) -> BadInput:
    expression = f"{where}.{broken.element}" if broken.element else where
    return _fault(f"Invariant {rule}: {broken.what}", expression, code="invariant")


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
        if element.kind == "Reference":
            _check_local(value, where, root)
        elif element.kind == "Narrative" and (broken := broken_narrative(str(value["div"]))):
            raise _broken("txt-1", broken, where)
    elif element.form == "resource":
        inner = _resource_shape(value, where)
        contained = ".contained[" in where
        _check_object(value, inner, where, root if contained else value)
        if not contained and (found := broken_containment(value)):
            raise _broken(*found, where)
    elif element.form == "text":
        _check_text(value, element, where)
    elif not _is_primitive(value, element.form):
        raise _fault(f"A {element.kind} belongs here", where, "Check its JSON form.")
    elif element.form == "integer" and not element.span[0] <= value <= element.span[1]:
        raise _fault(f"The number is out of the range of {element.kind}", where, code="value")


def _is_good_text(value: Any, element: Element) -> bool:
    """Say whether a text has the form and is one of the codes that its element asks for."""
    if not isinstance(value, str) or not value:
        return False
    if element.codes is not None:
        return value in element.codes
    return element.check(value) if element.check is not None else not value.isspace()


def _check_text(value: Any, element: Element, where: str) -> None:
    if _is_good_text(value, element):
        return
    if not isinstance(value, str) or not value:
        raise _fault(f"A {element.kind} belongs here", where, "Check its JSON form.")
    if element.codes is not None:
        raise _fault("The code is not one that FHIR requires here", where, _choice(element.codes), "code-invalid")
    if element.check is not None:
        raise _fault(f"The text is no {element.kind}", where, code="value")
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


def _check_local(reference: Json, where: str, root: Json) -> None:
    """Refuse a reference into the resource itself that names nothing there (ref-1)."""
    text = reference.get("reference")
    if not isinstance(text, str) or not text.startswith("#") or text == "#":
        return
    if _contained(root, text[1:]) is None:
        raise _fault("Invariant ref-1: nothing of that id is contained", f"{where}.reference", code="invariant")


def _target_type(reference: Json, root: Json) -> str | None:
    """Return the type that a Reference names, or None when it does not say."""
    text = reference.get("reference")
    if not isinstance(text, str):
        return None
    if text.startswith("#"):
        inner = _contained(root, text[1:])
        return str(inner.get("resourceType")) if inner else None
    head, question, _ = text.partition("?")
    if question:
        return head if is_known(head) else None
    found = _REFERENCE.search(text)
    return found.group(1) if found and is_known(found.group(1)) else None


def _contained(root: Json, logical_id: str) -> Json | None:
    listed = root.get("contained")  # it may not have been judged yet, and be anything
    found = (c for c in listed if isinstance(c, dict) and c.get("id") == logical_id) if isinstance(listed, list) else ()
    return next(iter(found), None)


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
