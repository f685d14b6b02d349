"""Batch Bundles: each entry by itself, its own status (FHIR R4, 3.1.0.11.1)."""

from arcuate.kernel.auth import Principal
from arcuate.kernel.errors import ArcuateError, Json, operation_outcome
from arcuate.record import service, transactions
from arcuate.record.driver import Driver
from arcuate.record.entries import Getter, Got
from arcuate.record.requests import Request
from arcuate.record.service import Record


async def batch(record: Record, principal: Principal, bundle: Json, base: str) -> Json:
    """Do each entry of a batch and return what became of it.

    Raises:
        BadInput: The Bundle itself is not valid.
    """
    limit = record.settings.room_bundle_entries if principal.is_room else record.settings.bundle_entries
    made = [
        await _one(record, principal, entry, n, base) for n, entry in enumerate(transactions.entries_of(bundle, limit))
    ]
    answer: Json = {"resourceType": "Bundle", "type": "batch-response"}
    if made:
        answer["entry"] = made
    return answer


async def _one(record: Record, principal: Principal, entry: Json, position: int, base: str) -> Json:
    try:
        request = transactions.request_of(entry, position, record.parameters, by_package=not principal.is_room)
        if request.method == "GET":
            return await _get(record, principal, request, base)
        return transactions.answer_entry(await service.change(record, principal, request, checked=True))
    except ArcuateError as error:
        if error.status >= 500:
            raise
        return {"response": {"status": str(error.status), "outcome": operation_outcome(error)}}


async def _get(record: Record, principal: Principal, request: Request, base: str) -> Json:
    def find(driver: Driver) -> Got:
        limit_s = record.settings.search_limit_s
        getter = Getter(driver, record.indexer, record.reader, base, limit_s)
        return getter.get(request.url, request.if_match, f"{request.where}.request.url")

    got = await record.readers.read(find)
    await service.noted(record, principal, got.interaction, got.touched)
    return got.entry
