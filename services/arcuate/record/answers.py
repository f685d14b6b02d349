"""Bundles that the record answers with; stored resources go into them as the text that they are kept as."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from json.encoder import encode_basestring

from arcuate.kernel.errors import issue, outcome_of
from arcuate.kernel.fhir import strict
from arcuate.record.domain import etag, instant
from arcuate.record.indexing import datetime_of
from arcuate.record.query import Search
from arcuate.record.search import Hit, Page
from arcuate.record.store import Version
from arcuate.record.views import View


@dataclass(frozen=True)
class Link:
    """A link of a Bundle."""

    relation: str
    url: str


def searchset(base: str, links: Sequence[Link], page: Page, asked: Search) -> bytes:
    """Return a Bundle of type searchset, its resources shown as the caller asked."""
    view = asked.view
    entries = [_found(base, hit, "match", view) for hit in page.matches]
    entries += [_found(base, hit, "include", view) for hit in page.included]
    if asked.ignored:
        issues = [
            issue(
                "not-supported",
                f"The search parameter '{name}' is not known here and was left out.",
                severity="warning",
            )
            for name in asked.ignored
        ]
        warning = strict.dumps(outcome_of(issues)).decode()
        entries.append(f'{{"resource":{warning},"search":{{"mode":"outcome"}}}}')
    return _bundle("searchset", links, entries, page.total)


def history(base: str, links: Sequence[Link], versions: Iterable[Version]) -> bytes:
    """Return a Bundle of type history; `entry.id` is the feed number."""
    return _bundle("history", links, [_version(base, version) for version in versions], None)


def of_entries(kind: str, entries: Sequence[str]) -> bytes:
    """Return the answer to a transaction or batch, whose entries are text already."""
    return _bundle(kind, [], entries, None)


def _found(base: str, hit: Hit, mode: str, view: View) -> str:
    body = view.of(hit.resource_type, hit.body)
    return f'{{"fullUrl":{encode_basestring(f"{base}/{hit.resource_type}/{hit.id}")},"resource":{body},"search":{{"mode":"{mode}"}}}}'


def _version(base: str, version: Version) -> str:
    place = f"{version.resource_type}/{version.id}"
    url = version.resource_type if version.method == "POST" else place
    status = "204 No Content" if version.body is None else "201 Created" if version.version == 1 else "200 OK"
    said = json.dumps(
        {
            "request": {"method": version.method, "url": url},
            "response": {
                "status": status, "location": f"{place}/_history/{version.version}", "etag": etag(version.version),
                "lastModified": instant(datetime_of(version.updated)),
            },
        },
        separators=(",", ":"),
    )  # fmt: skip
    resource = f'"resource":{version.body},' if version.body is not None else ""
    return f'{{"id":"{version.seq}","fullUrl":{encode_basestring(f"{base}/{place}")},{resource}{said[1:]}'


def _bundle(kind: str, links: Sequence[Link], entries: Sequence[str], total: int | None) -> bytes:
    head = f'{{"resourceType":"Bundle","type":"{kind}"'
    if total is not None:
        head += f',"total":{total}'
    if links:
        listed = ",".join(f'{{"relation":"{link.relation}","url":{encode_basestring(link.url)}}}' for link in links)
        head += f',"link":[{listed}]'
    if entries:
        head += f',"entry":[{",".join(entries)}]'
    return (head + "}").encode()
