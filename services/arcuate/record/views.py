"""Parts of a resource that a caller asks for: `_summary` and `_elements` (FHIR R4, 3.1.1.5.8 and 3.1.1.5.9)."""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import cache

from arcuate.kernel.errors import Json
from arcuate.kernel.fhir import shapes, strict

SUBSETTED = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "SUBSETTED"}

_ALWAYS = frozenset({"resourceType", "id", "meta"})


@dataclass(frozen=True)
class View:
    """What of each resource is shown.

    Attributes:
        summary: `true`, `text`, `data`, or `false` for everything.
        elements: Names of top elements; empty for all.
    """

    summary: str = "false"
    elements: tuple[str, ...] = ()

    @property
    def whole(self) -> bool:
        """Say whether resources are shown as they are stored."""
        return self.summary == "false" and not self.elements

    def of(self, resource_type: str, body: str) -> str:
        """Return the text of a resource as this view shows it, marked as incomplete."""
        if self.whole:
            return body
        resource = strict.loads(body.encode(), strict.HOUSE)
        if self.summary == "data":
            kept = {name: value for name, value in resource.items() if name != "text"}
        else:
            shown = self._shown(resource_type)
            kept = {name: value for name, value in resource.items() if name.lstrip("_") in shown}
        return strict.dumps(_marked(kept)).decode()

    def _shown(self, resource_type: str) -> AbstractSet[str]:
        if self.elements:
            return _ALWAYS | set(self.elements) | _required(resource_type)
        if self.summary == "text":
            return _ALWAYS | {"text"} | _required(resource_type)
        return _ALWAYS | shapes.summary_of(resource_type)


@cache
def _required(resource_type: str) -> frozenset[str]:
    return frozenset(shapes.shape_of(resource_type).required)


def _marked(resource: Json) -> Json:
    meta = resource.get("meta") or {}
    return {**resource, "meta": {**meta, "tag": [*(meta.get("tag") or []), SUBSETTED]}}
