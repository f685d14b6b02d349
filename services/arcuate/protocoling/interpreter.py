"""The rule interpreter: small conditions over facts, in three-valued logic. Nothing else can be written in a rule.

A condition is an expression of Python's own syntax, cut down to: names of facts (`renal.egfr`), the functions `says`, `asks`, `has`,
`denies`, `takes` with concept names, `known(FACT)`, `absent(FACT)`, constants, comparisons, `in`, `and`, `or`, `not`. It is checked
when the rules are read, never executed by Python. A fact that nobody could look up makes a condition neither true nor false (Kleene).
"""

import ast
from collections.abc import Callable, Collection
from dataclasses import dataclass

from arcuate.kernel.errors import BadInput
from arcuate.protocoling.domain import Absent, Value
from arcuate.protocoling.facts import FUNCTIONS, NAMES, Facts

Verdict = bool | None
"""True, False, or None: a fact is missing that nobody could look up."""

_LENGTH = 2000
_TESTS = frozenset({"known", "absent"})
_COMPARE: dict[type[ast.cmpop], Callable[[float, float], bool]] = {
    ast.Lt: lambda a, b: a < b,
    ast.LtE: lambda a, b: a <= b,
    ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b,
}


@dataclass(frozen=True)
class Condition:
    """One checked condition of a rule."""

    source: str
    tree: ast.expr

    def holds(self, facts: Facts) -> Verdict:
        """Return whether it is true of these facts; None when that cannot be said."""
        return _truth(_value(self.tree, facts))


def parse(source: str, concepts: Collection[str], where: str) -> Condition:
    """Check and return a condition.

    Args:
        concepts: Names that `says` and the like may be asked for.
        where: File and rule, for the error.

    Raises:
        BadInput: It is no expression, or names a fact, function or concept that does not exist.
    """
    if not source.strip() or len(source) > _LENGTH:
        raise BadInput(
            f"A condition is empty or longer than {_LENGTH} characters",
            where=where,
            todo="Split it: all conditions of a rule must hold.",
        )
    try:
        tree = ast.parse(f"({source})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise BadInput(
            f"This is no condition: {source}", where=where, todo="Compare it with a rule that works."
        ) from None
    _check(tree, concepts, where)
    return Condition(source, tree)


def _check(node: ast.expr, concepts: Collection[str], where: str) -> None:  # noqa: PLR0912 - one case a kind of node
    match node:
        case ast.BoolOp(values=values):
            for value in values:
                _check(value, concepts, where)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            _check(operand, concepts, where)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            if not all(
                isinstance(op, ast.Eq | ast.NotEq | ast.Lt | ast.LtE | ast.Gt | ast.GtE | ast.In | ast.NotIn)
                for op in ops
            ):
                raise _unknown(node, where)
            for part in (left, *comparators):
                _check(part, concepts, where)
        case ast.Attribute(value=ast.Name(id=group), attr=name):
            if (group, name) not in NAMES:
                raise BadInput(
                    f"There is no fact '{group}.{name}'", where=where, todo="The facts are listed in the room's README."
                )
        case ast.Constant(value=value):
            if not isinstance(value, str | int | float | bool):
                raise _unknown(node, where)
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            for part in parts:
                _check(part, concepts, where)
        case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
            _check_call(name, arguments, concepts, where)
        case _:
            raise _unknown(node, where)


def _check_call(name: str, arguments: list[ast.expr], concepts: Collection[str], where: str) -> None:
    if name in _TESTS:
        if len(arguments) != 1 or not isinstance(arguments[0], ast.Attribute):
            raise BadInput(f"'{name}' asks for one fact", where=where, todo=f"Write for example {name}(renal.egfr).")
        _check(arguments[0], concepts, where)
        return
    if name not in FUNCTIONS:
        raise BadInput(
            f"There is no function '{name}'",
            where=where,
            todo=f"There are: {', '.join(sorted((*FUNCTIONS, *_TESTS)))}.",
        )
    if not arguments:
        raise BadInput(f"'{name}' needs the name of a concept", where=where)
    for argument in arguments:
        if not isinstance(argument, ast.Constant) or argument.value not in concepts:
            shown = ast.unparse(argument)[:60]
            raise BadInput(
                f"There is no concept {shown} in the lexicon", where=where, todo="Check its spelling in data/lexicon."
            )


def _unknown(node: ast.expr, where: str) -> BadInput:
    return BadInput(
        f"'{ast.unparse(node)[:60]}' cannot stand in a condition",
        where=where,
        todo="Use facts, concepts, comparisons, and, or, not.",
    )


def _value(node: ast.expr, facts: Facts) -> Value:
    match node:
        case ast.BoolOp(op=ast.And(), values=values):
            return _all([_truth(_value(v, facts)) for v in values])
        case ast.BoolOp(values=values):
            return _not(_all([_not(_truth(_value(v, facts))) for v in values]))
        case ast.UnaryOp(operand=operand):
            return _not(_truth(_value(operand, facts)))
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            parts = [_value(part, facts) for part in (left, *comparators)]
            return _all([_compared(parts[n], op, parts[n + 1]) for n, op in enumerate(ops)])
        case ast.Attribute(value=ast.Name(id=group), attr=name):
            return facts.value(group, name)
        case ast.Constant(value=value):
            return value if isinstance(value, str | int | float | bool) else None
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return tuple(str(_value(part, facts)) for part in parts)
        case ast.Call(func=ast.Name(id=name), args=arguments):
            return _called(name, arguments, facts)
    return None


def _called(name: str, arguments: list[ast.expr], facts: Facts) -> Verdict:
    if name in _TESTS:
        value = _value(arguments[0], facts)
        if value is None:
            return None
        return isinstance(value, Absent) is (name == "absent")
    return facts.function(name)(*(str(_value(a, facts)) for a in arguments))


def _compared(left: Value, op: ast.cmpop, right: Value) -> Verdict:
    if left is None or right is None:
        return None
    if isinstance(op, ast.In | ast.NotIn):
        inside = _inside(left, right)
        return inside if isinstance(op, ast.In) else not inside
    if isinstance(left, Absent) or isinstance(right, Absent):
        return isinstance(op, ast.NotEq)
    if isinstance(op, ast.Eq | ast.NotEq):
        return (left == right) is isinstance(op, ast.Eq)
    if isinstance(left, int | float) and isinstance(right, int | float):
        return _COMPARE[type(op)](left, right)
    return False


def _inside(left: Value, right: Value) -> bool:
    return not isinstance(left, Absent) and isinstance(right, tuple) and str(left) in right


def _truth(value: Value) -> Verdict:
    return None if value is None else bool(value)


def _not(verdict: Verdict) -> Verdict:
    return None if verdict is None else not verdict


def _all(verdicts: Collection[Verdict]) -> Verdict:
    """Kleene's conjunction: false as soon as one is false, else unknown as soon as one is unknown."""
    if any(v is False for v in verdicts):
        return False
    return None if any(v is None for v in verdicts) else True
