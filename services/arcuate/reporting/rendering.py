"""Filling a template's sections: Jinja2, cut down so far that a template can neither reach anything nor grow without end.

A section may print values, ask `if`, and loop over lists that it is given (three deep at most). No call, no assignment, no macro, no
include, no arithmetic, no name or attribute with `_`: what is not on the list is refused when the template is read, so a bomb cannot be
written down. A clock and a size limit stand behind that. Each section is filled by itself: a bad one leaves the others alone.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from jinja2 import StrictUndefined, TemplateError, nodes
from jinja2.sandbox import ImmutableSandboxedEnvironment

from arcuate.kernel.errors import BadInput
from arcuate.reporting import markup
from arcuate.reporting.domain import Section

LIMIT_S = 1.0
LIMIT_CHARACTERS = 1024 * 1024
_SOURCE = 256 * 1024
_LOOPS = 3
_FILTERS = frozenset({"escape", "e", "join", "length", "upper", "lower", "first", "last", "default"})
_TESTS = frozenset({"defined", "undefined", "none"})
_PLAIN: tuple[type[nodes.Node], ...] = (
    nodes.Output,
    nodes.TemplateData,
    nodes.Name,
    nodes.Const,
    nodes.Getattr,
    nodes.Getitem,
    nodes.If,
    nodes.CondExpr,
    nodes.Compare,
    nodes.Operand,
    nodes.And,
    nodes.Or,
    nodes.Not,
    nodes.Tuple,
    nodes.List,
)
_UNDERSCORE = re.compile(r"\A_|__")


class OutOfBounds(BadInput):
    """A section took too long or grew too large."""


class _Environment(ImmutableSandboxedEnvironment):
    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return not _UNDERSCORE.search(attr) and not callable(value) and super().is_safe_attribute(obj, attr, value)

    def is_safe_callable(self, obj: Any) -> bool:
        return False


def _environment() -> _Environment:
    made = _Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, cache_size=0)
    made.globals.clear()
    made.filters = {name: f for name, f in made.filters.items() if name in _FILTERS}
    made.tests = {name: t for name, t in made.tests.items() if name in _TESTS}
    return made


class Watched(tuple[Any, ...]):
    """A list for templates that looks at the clock on every step of a loop."""

    __slots__ = ()
    tick: Callable[[], None] = staticmethod(lambda: None)

    def __iter__(self) -> Iterator[Any]:
        for item in super().__iter__():
            self.tick()
            yield item


class Body:
    """A template's body, read and checked.

    Attributes:
        faults: Why a section cannot be used, by its name.
    """

    def __init__(self, source: str) -> None:
        self._environment = _environment()
        self._sections: dict[str, Any] = {}
        self.faults: dict[str, str] = {}
        self.broken = ""
        try:
            self._read(source)
        except (TemplateError, BadInput, RecursionError) as error:
            self.broken = f"the template cannot be read ({type(error).__name__})"

    def _read(self, source: str) -> None:
        if len(source) > _SOURCE:
            raise BadInput("The template is too large")
        tree = self._environment.parse(source)
        for node in tree.body:
            if isinstance(node, nodes.Block):
                self._take(node)
            elif not (isinstance(node, nodes.Output) and all(_is_space(inner) for inner in node.nodes)):
                raise BadInput("Outside of its blocks a template holds nothing")

    def _take(self, block: nodes.Block) -> None:
        if block.name in self._sections or block.name in self.faults:
            self.faults[block.name] = "it stands twice"
            return
        try:
            _check(block.body, 0)
            template = nodes.Template(block.body, lineno=block.lineno)
            template.set_environment(self._environment)
            self._sections[block.name] = self._environment.from_string(template)
        except (TemplateError, BadInput) as error:
            self.faults[block.name] = str(error)

    def section(self, name: str, values: Mapping[str, Any], monotonic: Callable[[], float]) -> Section:
        """Return a section filled; a fault inside gives a section that names it."""
        fault = (
            self.broken or self.faults.get(name) or ("" if name in self._sections else "the template has no such block")
        )
        if not fault:
            try:
                tree = markup.parse(self._filled(name, values, monotonic))
                return Section(name, markup.to_html(tree), markup.to_text(tree))
            except (TemplateError, BadInput, TypeError, ValueError, RecursionError, MemoryError) as error:
                fault = (
                    error.what if isinstance(error, BadInput) else f"it could not be filled ({type(error).__name__})"
                )
        return Section(name, "", "", fault)

    def _filled(self, name: str, values: Mapping[str, Any], monotonic: Callable[[], float]) -> str:
        ends = monotonic() + LIMIT_S

        def tick() -> None:
            if monotonic() > ends:
                raise OutOfBounds(f"it took longer than {LIMIT_S:g} s")

        class Here(Watched):
            __slots__ = ()

        Here.tick = staticmethod(tick)
        parts: list[str] = []
        size = 0
        for part in self._sections[name].generate(**{key: _given(value, Here) for key, value in values.items()}):
            tick()
            size += len(part)
            if size > LIMIT_CHARACTERS:
                raise OutOfBounds(f"it grew over {LIMIT_CHARACTERS} characters")
            parts.append(part)
        return "".join(parts)


def _given(value: Any, lists: type[Watched]) -> Any:
    """Return a value as templates get it: texts, numbers, dicts and watched lists, no objects."""
    if isinstance(value, Mapping):
        return {key: _given(inner, lists) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return lists(_given(inner, lists) for inner in value)
    return value


def _is_space(node: nodes.Node) -> bool:
    return isinstance(node, nodes.TemplateData) and not node.data.strip()


def _check(body: list[nodes.Node], loops: int) -> None:
    for node in body:
        _check_node(node, loops)


def _check_node(node: nodes.Node, loops: int) -> None:
    if isinstance(node, nodes.For):
        if loops >= _LOOPS or node.recursive:
            raise BadInput(f"it loops more than {_LOOPS} deep")
        loops += 1
    elif isinstance(node, nodes.Filter):
        if node.name not in _FILTERS:
            raise BadInput(f"the filter '{node.name}' is not known here")
    elif isinstance(node, nodes.Test):
        if node.name not in _TESTS:
            raise BadInput(f"the test '{node.name}' is not known here")
    elif not isinstance(node, _PLAIN):
        raise BadInput(f"'{type(node).__name__}' may not stand in a template")
    name = getattr(node, "attr", None) or getattr(node, "name", None)
    if isinstance(name, str) and _UNDERSCORE.search(name):
        raise BadInput("names with _ at the begin may not stand in a template")
    if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Const) and str(node.arg.value).startswith("_"):
        raise BadInput("names with _ at the begin may not stand in a template")
    for child in node.iter_child_nodes():
        _check_node(child, loops)
