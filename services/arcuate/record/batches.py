"""Batch Bundles: each entry by itself, its own status (FHIR R4, 3.1.0.11.1)."""

from urllib.parse import parse_qsl

from arcuate.kernel.auth import Principal
from arcuate.kernel.errors import ArcuateError, Json, operation_outcome
from arcuate.kernel.fhir import strict
from arcuate.record import service, transactions
from arcuate.record.answers import searchset
from arcuate.record.domain import etag, version_in
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
        if entry["request"].get("method") == "GET":
            return await _get(record, principal, str(entry["request"].get("url")), base)
        request = transactions.request_of(entry, position, record.parameters, by_package=not principal.is_room)
        return transactions.answer_entry(await service.change(record, principal, request, checked=True))
    except ArcuateError as error:
        if error.status >= 500:
            raise
        return {"response": {"status": str(error.status), "outcome": operation_outcome(error)}}


async def _get(record: Record, principal: Principal, url: str, base: str) -> Json:
    path, _, query = url.partition("?")
    parts = path.strip("/").split("/")
    if len(parts) == 1 and parts[0] in record.parameters.by_type:
        asked, found = await service.search(record, principal, parts[0], parse_qsl(query, keep_blank_values=True))
        body = searchset(
            base, [], found.matches, found.included, found.total, [f"ignored: {name}" for name in asked.ignored]
        )
        return {"resource": strict.loads(body), "response": {"status": "200 OK"}}
    if len(parts) == 4 and parts[2] == "_history":
        version = version_in(f'"{parts[3]}"') or ""
        found_version = await service.vread(
            record, principal, parts[0], parts[1], int(version) if version.isdecimal() else 0
        )
    else:
        found_version = await service.read(record, principal, parts[0], parts[1] if len(parts) == 2 else "")
    resource = strict.loads((found_version.body or "").encode(), strict.HOUSE)
    return {"resource": resource, "response": {"status": "200 OK", "etag": etag(found_version.version)}}
