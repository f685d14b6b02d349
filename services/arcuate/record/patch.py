"""JSON Patch (RFC 6902) on a resource: operations read, judged and applied to a copy; decimals stay digit for digit."""

import copy
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from arcuate.kernel.errors import BadInput, Conflict, Json, TooLarge
from arcuate.kernel.fhir import strict

MEDIA = "application/json-patch+json"

_MOST = 200
_FROM = ("move", "copy")
_VALUE = ("add", "replace", "test")


def read(operations: Any, where: str = "") -> list[Json]:
    """Return the operations of a patch.

    Raises:
        BadInput: It is no JSON Patch.
    """
    if not isinstance(operations, list) or not operations:
        raise _fault("A JSON Patch is an array of operations", where)
    if len(operations) > _MOST:
        raise TooLarge(
            f"The patch has {len(operations)} operations; the limit is {_MOST}", where=where, code="too-costly"
        )
    for position, one in enumerate(operations):
        at = f"{where or 'the patch'}[{position}]"
        if not isinstance(one, dict) or one.get("op") not in (*_FROM, *_VALUE, "remove"):
            raise _fault("The operation is not one of add, remove, replace, move, copy and test", at)
        for name in ("path", *(("from",) if one["op"] in _FROM else ())):
            if not isinstance(one.get(name), str) or (one[name] and not one[name].startswith("/")):
                raise _fault(f"'{name}' is no JSON Pointer", at)
        if one["op"] in _VALUE and "value" not in one:
            raise _fault("The operation needs a value", at)
    return operations


def applied(resource: Json, operations: Sequence[Json], where: str = "") -> Json:
    """Return a copy of the resource with the operations applied in order.

    Raises:
        Conflict: A path names nothing in the resource as it stands, or a `test` fails.
        TooLarge: Copies grow over the limit of a body.
    """
    made: Any = copy.deepcopy(resource)
    grown = 0
    for position, one in enumerate(operations):
        at = f"{where or 'the patch'}[{position}]"
        if one["op"] == "copy":
            grown += len(strict.dumps({"copy": _get(made, one["from"], at)}))
            if grown > strict.OUTSIDE.size:
                raise TooLarge("The copies of the patch grow over the limit of a body", where=at, code="too-costly")
        made = _apply(made, one, at)
    if not isinstance(made, dict):
        raise _fault("A patch may not take the place of the resource", where)
    return made


def _apply(document: Any, one: Json, at: str) -> Any:
    kind, path = one["op"], one["path"]
    if kind == "test":
        if not same(_get(document, path, at), one["value"]):
            raise Conflict(
                "A test of the patch fails: the resource says something else", where=at, todo="Read it again."
            )
        return document
    if kind == "remove":
        return _remove(document, path, at)
    if kind == "add":
        return _add(document, path, copy.deepcopy(one["value"]), at)
    if kind == "replace":
        return _replace(document, path, copy.deepcopy(one["value"]), at)
    value = copy.deepcopy(_get(document, one["from"], at))
    if kind == "move":
        if path.startswith(one["from"] + "/"):
            raise _fault("A value cannot be moved into itself", at)
        document = _remove(document, one["from"], at)
    return _add(document, path, value, at)


def _steps(path: str) -> list[str]:
    return [step.replace("~1", "/").replace("~0", "~") for step in path.split("/")[1:]]


def _get(document: Any, path: str, at: str) -> Any:
    for step in _steps(path):
        document = document[_key(document, step, at)]
    return document


def _key(holder: Any, step: str, at: str, *, beyond: bool = False) -> Any:
    """Return the key or position that a step names; `beyond` admits a new key, or the place behind the last."""
    if isinstance(holder, dict) and (beyond or step in holder):
        return step
    if isinstance(holder, list):
        if beyond and step == "-":
            return len(holder)
        if step.isdecimal() and step.isascii() and len(step) < 7 and (step == "0" or step[0] != "0"):
            position = int(step)
            if position < len(holder) or (beyond and position == len(holder)):
                return position
    raise Conflict("A path of the patch names nothing in the resource as it stands", where=at, todo="Read it again.")


def _replace(document: Any, path: str, value: Any, at: str) -> Any:
    if not path:
        return value
    *before, last = _steps(path)
    holder = document
    for step in before:
        holder = holder[_key(holder, step, at)]
    holder[_key(holder, last, at)] = value
    return document


def _remove(document: Any, path: str, at: str) -> Any:
    if not path:
        return None
    *before, last = _steps(path)
    holder = document
    for step in before:
        holder = holder[_key(holder, step, at)]
    del holder[_key(holder, last, at)]
    return document


def _add(document: Any, path: str, value: Any, at: str) -> Any:
    if not path:
        return value
    *before, last = _steps(path)
    holder = document
    for step in before:
        holder = holder[_key(holder, step, at)]
    key = _key(holder, last, at, beyond=True)
    if isinstance(holder, list):
        holder.insert(key, value)
    else:
        holder[key] = value
    return document


def same(one: Any, other: Any) -> bool:
    """Say whether two JSON values are equal (RFC 6902, 4.6): numbers by value, objects without order; true is not 1."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, bool) or isinstance(other, bool):
        return one is other
    if isinstance(one, int | Decimal) and isinstance(other, int | Decimal):
        return one == other
    return type(one) is type(other) and bool(one == other)


def _fault(what: str, where: str) -> BadInput:
    return BadInput(what, where=where, todo="See RFC 6902.", code="structure")
