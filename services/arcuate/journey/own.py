"""What this replica wrote itself and has taken into account: news of it need not wake the case again."""

from collections import OrderedDict
from collections.abc import Iterable

from arcuate.kernel.errors import Json
from arcuate.kernel.fhir.feed import Change

_REMEMBERED = 4096


class OwnWrites:
    """Versions that a look at a case has written, by type, id and version.

    The job that wrote them looks on until nothing is left to do, so what it wrote brings nothing new to its case. It is remembered here
    alone: another replica that follows the feed wakes the case once more, and so does this one after a restart, which costs a look.
    """

    def __init__(self) -> None:
        self._cases: OrderedDict[tuple[str, str, str], str] = OrderedDict()

    def note(self, case_id: str, resources: Iterable[Json]) -> None:
        """Remember resources as they were stored for a case."""
        for one in resources:
            self._cases[one["resourceType"], str(one["id"]), str(one["meta"]["versionId"])] = case_id
        while len(self._cases) > _REMEMBERED:
            self._cases.popitem(last=False)

    def case_of(self, change: Change) -> str | None:
        """Return the case for which a version was written here; None for what others wrote."""
        return self._cases.get((change.type, change.id, change.version))
