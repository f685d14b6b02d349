"""The CapabilityStatement says what runs, and the search parameters what the types hold."""

import re
from pathlib import Path

import pytest

from arcuate.kernel.errors import Defect
from arcuate.kernel.fhir import types
from arcuate.record import parameters
from arcuate.record.app import open_room  # noqa: F401 - the room must import on its own
from arcuate.record.parameters import Parameter

from .record_world import Replica, patient

HOLDS = {
    "token": {"code", "CodeableConcept", "Coding", "Identifier", "boolean", "ContactPoint", "id", "oid", "string", "uri"},
    "reference": {"Reference"}, "date": {"date", "dateTime", "instant", "Period", "Timing"},
    "string": {"string", "markdown", "HumanName", "Address"}, "uri": {"uri", "url", "canonical"}, "number": {"decimal"},
    "quantity": {"Quantity", "Duration"},
}  # fmt: skip


def kinds_at(parameter: Parameter) -> set[str]:
    """Return the FHIR types of the elements that a parameter's path names."""
    found: set[str] = set()
    for branch in parameter.branches:
        shapes, kinds = [types.shape_of(parameter.resource_type)], set[str]()
        for step in branch:
            if step.where or step.target:
                continue
            elements = [
                element for shape in shapes for name, element in shape.elements.items()
                if (name == step.element if not step.choice else re.fullmatch(f"{step.element}[A-Z].*", name))
            ]  # fmt: skip
            assert elements, f"{parameter.key}: no element {step.element}"
            kinds = {element.kind for element in elements}
            shapes = [types.shape_of(e.kind, e.path) for e in elements if e.form == "object"]
        found |= kinds
    return found


def test_every_search_parameter_names_elements_of_its_kind() -> None:
    for listed in parameters.load().by_type.values():
        for parameter in listed.values():
            assert kinds_at(parameter) <= HOLDS[parameter.kind], parameter.key


@pytest.mark.parametrize("path", ["subject.where(", "a..b", "where(x=1)", "a b"])
def test_a_path_that_is_not_understood_stops_the_start(path: str) -> None:
    line = {"type": "Patient", "parameter": "x", "kind": "token", "path": path, "origin": "arcuate"}
    with pytest.raises(Defect):
        parameters.build([line])
    with pytest.raises(Defect):
        parameters.build([{**line, "path": "name", "kind": "colour"}])


async def test_every_parameter_and_type_that_it_names_works(replica: Replica) -> None:
    http = replica.http()
    await replica.fhir().create(patient("1"))
    statement = (await http.get("/fhir/metadata")).json()

    rest = statement["rest"][0]
    assert {"transaction", "batch", "history-system", "search-system"} == {one["code"] for one in rest["interaction"]}
    values = {"date": "2026-01-01", "number": "1", "quantity": "1"}
    for resource in rest["resource"]:
        if resource["type"] == "AuditEvent":
            continue
        query = "&".join(f"{p['name']}={values.get(p['type'], 'x')}" for p in resource["searchParam"])
        includes = "".join(f"&_include={one}" for one in resource.get("searchInclude", []))
        answer = await http.get(f"/fhir/{resource['type']}?{query}{includes}", headers={"Prefer": "handling=strict"})
        assert answer.status_code == 200, answer.text


async def test_the_openapi_description_names_every_door_with_what_it_takes(replica: Replica) -> None:
    app = replica.app
    described = app.openapi()

    assert described == app.openapi()
    for route in app.routes:
        for method in getattr(route, "methods", None) or ():
            path = getattr(route, "path", "")
            if path.startswith("/fhir") and path != "/fhir/" and method != "HEAD":
                operation = described["paths"][path][method.lower()]
                asked = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
                assert asked == set(re.findall(r"{(\w+)}", path)), path
                assert method not in ("POST", "PUT", "PATCH") or "requestBody" in operation, (method, path)


def test_the_readme_names_every_file_of_the_room() -> None:
    room = Path(parameters.__file__).parent
    readme = (room / "README.md").read_text("utf-8")

    for path in sorted(room.glob("*.py")):
        if path.name != "__init__.py":
            assert f"`{path.name}`" in readme, path.name
