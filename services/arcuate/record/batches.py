"""Batch Bundles: each entry by itself, its own status (FHIR R4, 3.1.0.11.1)."""

from collections.abc import Sequence
from itertools import groupby

from arcuate.kernel.auth import Principal
from arcuate.kernel.errors import ArcuateError, Json, operation_outcome
from arcuate.kernel.fhir import strict
from arcuate.record import service, transactions
from arcuate.record.answers import of_entries
from arcuate.record.driver import Driver
from arcuate.record.entries import Getter, Got
from arcuate.record.service import Record

_TOGETHER = 50  # reads on one snapshot: nobody else's reader waits for more

Placed = tuple[int, Json]
"""An entry and its position in the Bundle."""


async def batch(record: Record, principal: Principal, bundle: Json, base: str) -> bytes:
    """Do each entry of a batch and return what became of it; reads that stand side by side share one snapshot.

    Raises:
        BadInput: The Bundle itself is not valid.
    """
    limit = record.settings.room_bundle_entries if principal.is_room else record.settings.bundle_entries
    made: list[str] = []
    entries = transactions.entries_of(bundle, limit)
    for reads, group in groupby(enumerate(entries), key=lambda placed: placed[1]["request"].get("method") == "GET"):
        placed = list(group)
        if reads:
            for start in range(0, len(placed), _TOGETHER):
                made += await _read(record, principal, placed[start : start + _TOGETHER], base)
        else:
            made += [await _changed(record, principal, one) for one in placed]
    return of_entries("batch-response", made)


async def _changed(record: Record, principal: Principal, placed: Placed) -> str:
    position, entry = placed
    try:
        request = transactions.request_of(entry, position, record.parameters, by_package=not principal.is_room)
        return transactions.answer_entry(await service.change(record, principal, request, checked=True))
    except ArcuateError as error:
        return _refused(error)


async def _read(record: Record, principal: Principal, placed: Sequence[Placed], base: str) -> list[str]:
    def find(driver: Driver) -> list[Got | str]:
        getter = service.getter_of(record, driver, base)
        return [_got(record, getter, one) for one in placed]

    found = await record.readers.read(find)
    await service.noted_reads(
        record, principal, [(one.interaction, one.touched) for one in found if isinstance(one, Got)]
    )
    return [one.entry if isinstance(one, Got) else one for one in found]


def _got(record: Record, getter: Getter, placed: Placed) -> Got | str:
    position, entry = placed
    try:
        request = transactions.request_of(entry, position, record.parameters)
        return getter.get(request.url, request.if_match, f"{request.where}.request.url")
    except ArcuateError as error:
        return _refused(error)


def _refused(error: ArcuateError) -> str:
    """Return the entry of one that failed by its own fault; what is the server's ends the whole batch."""
    if error.status >= 500:
        raise error
    outcome = strict.dumps(operation_outcome(error)).decode()
    return f'{{"response":{{"status":"{error.status}","outcome":{outcome}}}}}'
