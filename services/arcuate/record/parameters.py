"""Search parameters: which words a search may use, and where in a resource their values stand (`search_parameters.csv`).

The paths are a small part of FHIRPath: `a.b`, `a|b`, `effective[x]` (every type of a choice), `where(name='value')` and
`where(resolve() is Type)`.
"""

import csv
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from types import MappingProxyType
from typing import Any

from arcuate.kernel.errors import Defect, Json

KINDS = ("token", "reference", "date", "string", "quantity", "number", "uri")
_STEP = re.compile(
    r"where\(resolve\(\) is (?P<type>\w+)\)|where\((?P<name>\w+)='(?P<value>[^']*)'\)|(?P<element>\w+)(?P<choice>\[x\])?"
)


@dataclass(frozen=True)
class Step:
    """One step of a path: an element, all types of a choice, or a filter."""

    element: str = ""
    choice: bool = False
    where: tuple[str, str] | None = None
    target: str = ""

    @cached_property
    def plain(self) -> bool:
        """Say whether it is an element and nothing else."""
        return bool(self.element) and not (self.choice or self.where or self.target)


@dataclass(frozen=True)
class Parameter:
    """One search parameter of one type.

    Attributes:
        key: `Type.parameter`, under which its index rows stand.
        kind: One of `KINDS`.
        official: It is one of FHIR R4; the others are the house's own.
    """

    resource_type: str
    name: str
    kind: str
    path: str
    official: bool
    branches: tuple[tuple[Step, ...], ...]

    @cached_property
    def key(self) -> str:
        """Return the name of its index rows."""
        return f"{self.resource_type}.{self.name}"

    @property
    def targets(self) -> frozenset[str]:
        """Return the types that the path itself restricts references to; empty when it does not."""
        return frozenset(step.target for branch in self.branches for step in branch if step.target)

    def may_name(self, resource_type: str) -> bool:
        """Say whether a reference parameter can lead to a type."""
        return not self.targets or resource_type in self.targets


Branch = tuple[Parameter, tuple[Step, ...]]


@dataclass(frozen=True)
class Parameters:
    """All search parameters; their types are the types that the record stores.

    Attributes:
        by_element: The same parameters by the element with which a branch of their path begins (`Type.element`).
        by_choice: Those whose path begins with a choice (`effective[x]`), by type.
    """

    by_type: Mapping[str, Mapping[str, Parameter]]
    by_element: Mapping[str, Sequence[Branch]]
    by_choice: Mapping[str, Sequence[Branch]]

    @property
    def types(self) -> tuple[str, ...]:
        """Return the stored types in alphabetical order."""
        return tuple(self.by_type)

    def find(self, resource_type: str, name: str) -> Parameter | None:
        """Return a parameter of a type, or None."""
        return self.by_type.get(resource_type, {}).get(name)

    def values(self, resource: Json) -> Iterator[tuple[Parameter, Any]]:
        """Yield every value that can be searched, with its parameter; only what the resource holds is looked at."""
        resource_type = resource["resourceType"]
        for name, value in resource.items():
            for parameter, steps in self.by_element.get(f"{resource_type}.{name}", ()):
                nodes = value if isinstance(value, list) else [value]
                for found in _follow(nodes, steps[1:]) if len(steps) > 1 else nodes:
                    yield parameter, found
        for parameter, steps in self.by_choice.get(resource_type, ()):
            for found in _follow([resource], steps):
                yield parameter, found


def load() -> Parameters:
    """Return the parameters of the data file."""
    text = resources.files(__package__).joinpath("search_parameters.csv").read_text("utf-8")
    return build(csv.DictReader(text.splitlines()))


def build(lines: Iterable[Mapping[str, str]]) -> Parameters:
    """Return the parameters that the lines state; those of `Resource` hold for every type.

    Raises:
        Defect: A line has an unknown kind or a path that is not understood.
    """
    listed = list(lines)
    common = [line for line in listed if line["type"] == "Resource"]
    by_type: dict[str, dict[str, Parameter]] = {}
    for line in sorted(listed, key=lambda line: line["type"]):
        if line["type"] != "Resource":
            by_type.setdefault(line["type"], {})[line["parameter"]] = _parameter(line["type"], line)
    for name, found in by_type.items():
        found.update((line["parameter"], _parameter(name, line)) for line in common)
    by_element: dict[str, list[Branch]] = {}
    by_choice: dict[str, list[Branch]] = {}
    for name, found in by_type.items():
        for parameter in found.values():
            for steps in parameter.branches:
                if steps[0].choice:
                    by_choice.setdefault(name, []).append((parameter, steps))
                else:
                    by_element.setdefault(f"{name}.{steps[0].element}", []).append((parameter, steps))
    frozen = MappingProxyType({name: MappingProxyType(found) for name, found in by_type.items()})
    return Parameters(frozen, by_element, by_choice)


def _parameter(resource_type: str, line: Mapping[str, str]) -> Parameter:
    if line["kind"] not in KINDS:
        raise Defect(f"Search parameter {resource_type}.{line['parameter']} has the unknown kind {line['kind']}")
    branches = tuple(_steps(branch.strip(), line["path"]) for branch in line["path"].split("|"))
    return Parameter(resource_type, line["parameter"], line["kind"], line["path"], line["origin"] == "R4", branches)


def _steps(branch: str, path: str) -> tuple[Step, ...]:
    steps, position = [], 0
    while position < len(branch):
        found = _STEP.match(branch, position)
        if found is None:
            raise Defect(f"The path '{path}' of a search parameter is not understood at '{branch[position:]}'")
        position = found.end()
        if position < len(branch) and branch[position] != ".":
            raise Defect(f"The path '{path}' of a search parameter is not understood at '{branch[position:]}'")
        position += 1
        where = (found["name"], found["value"]) if found["name"] else None
        steps.append(Step(found["element"] or "", bool(found["choice"]), where, found["type"] or ""))
    return tuple(steps)


def _follow(found: list[Any], steps: Sequence[Step]) -> list[Any]:
    for step in steps:
        if step.plain:  # most are: the others take a function call for each node
            values = [node[step.element] for node in found if isinstance(node, dict) and step.element in node]
            found = [one for value in values for one in (value if isinstance(value, list) else (value,))]
        else:
            found = [value for node in found for value in _take(node, step)]
        if not found:
            break
    return found


def _take(node: Any, step: Step) -> Iterator[Any]:
    if not isinstance(node, dict):
        return
    if step.where is not None:
        if node.get(step.where[0]) == step.where[1]:
            yield node
    elif step.target:
        if (
            str(node.get("reference", "")).rpartition("/")[0].rpartition("/")[2] == step.target
            or node.get("type") == step.target
        ):
            yield node
    else:
        for name, value in node.items():
            if name.startswith(step.element) and name[len(step.element) :][:1].isupper():
                yield from value if isinstance(value, list) else (value,)
