"""What a Subscription asks for, read and judged: topic, filters, channel. Pure."""

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from importlib import resources
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from arcuate.kernel.errors import BadInput, Json, Refused
from arcuate.record.query import Pairs, Reader, Search

EXTENSIONS = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
TOPIC = "urn:arcuate:topic:"

_CONTENTS = ("empty", "id-only", "full-resource")
_STATES = ("requested", "off")
_MOST_EVENTS = 100
_SHORTEST_HEARTBEAT_S = 10
_LONGEST_TIMEOUT_S = 60
_FILTER = re.compile(r"([A-Z][A-Za-z]+)\?(.+)", re.DOTALL)


@dataclass(frozen=True)
class Topic:
    """One kind of fact that can be subscribed to."""

    url: str
    title: str
    types: tuple[str, ...]


@dataclass(frozen=True)
class Wish:
    """What a Subscription asks for.

    Attributes:
        filters: For a type, searches of which one must find the resource; a type without one is not narrowed.
        content: `empty`, `id-only` or `full-resource`.
        heartbeat_s: Say that nothing happened after so many seconds of silence; None: do not.
        timeout_s: How long the endpoint may take.
        most: Events in one notification.
        end: No notification after this.
    """

    topic: Topic
    filters: Mapping[str, tuple[Search, ...]]
    endpoint: str
    content: str
    heartbeat_s: int | None
    timeout_s: int
    most: int
    end: datetime | None


@cache
def topics() -> Mapping[str, Topic]:
    """Return the topics by their canonical address."""
    listed = tomllib.loads(resources.files(__package__).joinpath("topics.toml").read_text("utf-8"))
    made = [Topic(TOPIC + name, said["title"], tuple(said["types"])) for name, said in listed.items()]
    return {topic.url: topic for topic in made}


def wish_of(resource: Json, reader: Reader, where: str = "Subscription") -> Wish:
    """Return what a Subscription asks for.

    Raises:
        BadInput: Something that is not served, with its element.
    """
    topic = topics().get(str(resource.get("criteria")))
    if topic is None:
        raise _fault("The criteria is no topic of this record", f"{where}.criteria", f"One of: {', '.join(topics())}.")
    channel = resource.get("channel") or {}
    if channel.get("type") != "rest-hook":
        raise _fault("Only rest-hook channels are served", f"{where}.channel.type")
    if channel.get("header"):
        raise _fault(
            "Secrets do not stand in a resource that others can read", f"{where}.channel.header",
            "An administrator sets the endpoint's token (ARCUATE_RECORD_SUBSCRIPTION_TOKENS).",
        )  # fmt: skip
    if channel.get("payload") not in (None, "application/fhir+json", "application/json"):
        raise _fault("Notifications are FHIR JSON", f"{where}.channel.payload")
    content = _extension(channel.get("_payload"), "backport-payload-content", "empty")
    if content not in _CONTENTS:
        raise _fault("The content is empty, id-only or full-resource", f"{where}.channel.payload.extension")
    heartbeat = _number(channel, "backport-heartbeat-period", where)
    end = resource.get("end")
    return Wish(
        topic, _filters(resource, topic, reader, where), _endpoint(channel, where), content,
        None if not heartbeat else max(heartbeat, _SHORTEST_HEARTBEAT_S),
        max(1, min(_number(channel, "backport-timeout", where) or 10, _LONGEST_TIMEOUT_S)),
        max(1, min(_number(channel, "backport-max-count", where) or 20, _MOST_EVENTS)),
        datetime.fromisoformat(end.replace("Z", "+00:00")) if isinstance(end, str) else None,
    )  # fmt: skip


def judge(resource: Json, reader: Reader, hosts: Collection[str], where: str) -> None:
    """Refuse a Subscription that cannot be served.

    Raises:
        BadInput: It asks for something that is not known here.
        Refused: Its endpoint is not on the list of outside addresses.
    """
    wish = wish_of(resource, reader, where)
    if resource.get("status") not in _STATES:
        raise _fault(
            "A caller sets requested or off; the record sets the rest",
            f"{where}.status",
            "Send requested.",
            "business-rule",
        )
    if place_of(wish.endpoint) not in hosts:
        raise Refused(
            "The endpoint is not on the list of outside addresses", where=f"{where}.channel.endpoint",
            todo="An administrator adds host:port to ARCUATE_RECORD_SUBSCRIPTION_HOSTS.",
        )  # fmt: skip


def place_of(address: str) -> str:
    """Return host:port of an address."""
    parts = urlsplit(address)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return f"{parts.hostname}:{port}".lower()


def _endpoint(channel: Json, where: str) -> str:
    address = channel.get("endpoint")
    try:
        parts = urlsplit(str(address))
        fits = parts.scheme in ("http", "https") and parts.hostname and not parts.username and (parts.port or 1) > 0
    except ValueError:
        fits = False
    if not fits:
        raise _fault("The endpoint is no http or https address", f"{where}.channel.endpoint", code="value")
    return str(address)


def _filters(resource: Json, topic: Topic, reader: Reader, where: str) -> dict[str, tuple[Search, ...]]:
    found: dict[str, list[Search]] = {}
    for position, said in enumerate(_extensions(resource.get("_criteria"), "backport-filter-criteria")):
        at = f"{where}.criteria.extension[{position}]"
        parts = _FILTER.fullmatch(str(said))
        if parts is None or parts[1] not in topic.types:
            raise _fault("The filter is no search of a type of the topic", at, f"Write {topic.types[0]}?status=…")
        pairs: Pairs = parse_qsl(parts[2], keep_blank_values=True)
        try:
            found.setdefault(parts[1], []).append(reader.read(parts[1], pairs, strict=True))
        except BadInput as error:
            raise _fault(f"{error.what} ({error.where})", at, error.todo, error.code) from None
    return {kind: tuple(searches) for kind, searches in found.items()}


def _extensions(holder: Any, name: str) -> list[Any]:
    listed = holder.get("extension", []) if isinstance(holder, dict) else []
    return [
        next((value for key, value in one.items() if key.startswith("value")), None)
        for one in listed
        if isinstance(one, dict) and one.get("url") == f"{EXTENSIONS}/{name}"
    ]


def _extension(holder: Any, name: str, otherwise: Any) -> Any:
    return next(iter(_extensions(holder, name)), otherwise)


def _number(channel: Json, name: str, where: str) -> int:
    value = _extension(channel, name, 0)
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _fault("A whole number belongs here", f"{where}.channel.extension", code="value")
    return value


def _fault(what: str, where: str, todo: str = "", code: str = "not-supported") -> BadInput:
    return BadInput(what, where=where, todo=todo, code=code)
