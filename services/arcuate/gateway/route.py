"""What all frames of one sender and kind have in common: worked out once, so that a frame costs little before its acknowledgement."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

from arcuate.gateway import domain
from arcuate.gateway.domain import Answer, Finding, Verdict
from arcuate.gateway.mapping import plan
from arcuate.gateway.profile import Profile, Profiles
from arcuate.kernel.hl7v2.header import Header

_MOST = 4096  # senders choose what stands in their headers: what is remembered must not grow without end
_OWN, _THEIRS, _TIME = b"\x01own\x01", b"\x01theirs\x01", datetime(1601, 1, 1, 1, 1, 1, tzinfo=UTC)
_WRITTEN = b"16010101010101"
_MARKS = re.compile(b"(" + b"|".join((_OWN, _THEIRS, _WRITTEN)) + b")")
_STORED = Finding(Verdict.STORED)
_CONTROL_ID = 10


@dataclass(frozen=True, slots=True)
class Route:
    """How frames with this header are journaled and, when they are simply stored, answered.

    Attributes:
        ordinary: Whatever the message holds, it is stored and answered positively: how, need not be looked for in it.
        code: The code of that answer.
        pieces: Its bytes, cut at the marks that stand for the answer's MSH-10, its time and the sender's MSH-10; None where the
            header itself holds a mark, or no MSH-10: such answers are built one by one.
    """

    profile: Profile
    sender: str
    kind: str
    ordinary: bool
    code: str = ""
    pieces: tuple[bytes, ...] | None = None

    def stored(self, header: Header, control_id: str, now: datetime) -> Answer:
        """Return the answer to a frame of this route that is simply stored."""
        if self.pieces is None:
            return domain.answer(header, _STORED, self.profile, control_id, now)
        values = {
            _OWN: control_id.encode("ascii"),
            _THEIRS: header.control_id,
            _WRITTEN: _written(now.replace(microsecond=0)),
        }
        return Answer(self.code, b"".join([values.get(piece, piece) for piece in self.pieces]))


class Routes:
    """The routes that were needed so far."""

    def __init__(self, profiles: Profiles) -> None:
        self._profiles = profiles
        self._known: dict[tuple[tuple[bytes, ...], ...], Route] = {}

    def of(self, header: Header | None) -> Route:
        """Return the route of a frame by its header."""
        if header is None:
            return Route(self._profiles.of_header(None), "", "", ordinary=False)
        fields = header.fields
        # All of MSH that says who speaks, what of, and how it is answered: not the time, the control id or a sequence number.
        key = (fields[1:7], fields[9:10], fields[11:13], fields[15:17], fields[18:19])
        route = self._known.get(key)
        if route is None:
            if len(self._known) >= _MOST:
                self._known.clear()
            route = self._known[key] = self._new(header)
        return route

    def _new(self, header: Header) -> Route:
        profile = self._profiles.of_header(header)
        sender, (kind, event) = latin(header.field(3) + b"|" + header.field(4)), header.type
        name = domain.storable(f"{kind}^{event}" if event else kind)
        use = plan.use_of(kind, event)
        if profile.content_fault != "AA" or use in ("unknown", "acknowledgement"):
            return Route(profile, sender, name, ordinary=False)
        if len(header.fields) <= _CONTROL_ID or any(_MARKS.search(one) for one in header.fields):
            return Route(profile, sender, name, ordinary=True)
        fields = (*header.fields[:_CONTROL_ID], _THEIRS, *header.fields[_CONTROL_ID + 1 :])
        answer = domain.answer(header._replace(fields=fields), _STORED, profile, _OWN.decode(), _TIME)
        return Route(profile, sender, name, True, answer.code, tuple(_MARKS.split(answer.wire)))


@lru_cache(8)
def _written(second: datetime) -> bytes:
    """Return a time as an answer carries it: worked out once a second."""
    return f"{second:%Y%m%d%H%M%S}".encode()


def latin(raw: bytes) -> str:
    """Return bytes as text that keeps them apart one by one and can be stored (no NUL)."""
    return domain.storable(raw.decode("latin-1"))
