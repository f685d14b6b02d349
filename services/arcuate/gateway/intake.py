"""From a frame to a committed journal row and its answer. What a frame holds is read after the answer (`sorter`)."""

import asyncio
import hashlib
import itertools
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from arcuate.gateway import domain
from arcuate.gateway.domain import Answer, Finding, Verdict
from arcuate.gateway.keeper import Keeper, Kept, NewFrame
from arcuate.gateway.profile import Profile, Profiles
from arcuate.gateway.route import Route, Routes, latin
from arcuate.gateway.settings import GatewaySettings
from arcuate.gateway.verdict import finding_of
from arcuate.kernel.clock import Clock
from arcuate.kernel.errors import ArcuateError
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2 import header as headers
from arcuate.kernel.hl7v2.header import Header
from arcuate.kernel.log import get_logger

Reply = Callable[[Answer, bool], None]
_Pending = tuple[NewFrame, Header | None, Answer, Reply]
_TOGETHER = 256  # frames in one commit


class Intake:
    """Stores frames and says what to answer.

    All frames that arrived in one turn of the event loop are committed together, within that loop: while the disc works, more
    frames gather in the sockets, and the next commit is theirs. (A thread for the commits would cost two changes of thread a
    message, more than the commit itself.)

    Args:
        on_stored: Called after a commit: there is work.
        on_distrust: Called after the answers when the keeper is not to be trusted any more.
    """

    def __init__(
        self, keeper: Keeper, profiles: Profiles, settings: GatewaySettings, clock: Clock, on_stored: Callable[[], None],
        on_distrust: Callable[[], None],
    ) -> None:  # fmt: skip
        self.keeper = keeper
        self._routes, self._settings = Routes(profiles), settings
        self._clock, self._on_stored, self._on_distrust = clock, on_stored, on_distrust
        self._log = get_logger("gateway")
        self.storage_fault: str | None = None
        self._pending: list[_Pending] = []
        # Numbers of our answers: a part of its own for each start, then counted. (A call for random bytes each time lets go of the
        # interpreter's lock, and getting it back from a busy thread costs milliseconds.)
        self._start, self._count = secrets.token_hex(4), itertools.count(1)

    def _control_id(self) -> str:
        """MSH-10 of an answer, at most 18 characters."""
        return f"{self._start}{next(self._count):x}"

    def take(self, raw: bytes, peer: str, reply: Reply) -> None:
        """Journal one frame; `reply` gets its answer, and whether the journal holds a row of its own for it.

        Whatever fails, nothing positive is answered before the commit.
        """
        header = headers.read(raw)
        route, now = self._routes.of(header), self._clock.now()
        if header is not None and route.ordinary:
            answer = route.stored(header, self._control_id(), now)
        else:
            answer = domain.answer(
                header, self._looked(raw, header, route.profile), route.profile, self._control_id(), now
            )
        digest = headers.content_hash(raw, header)
        self._keep(header, route, answer, now, raw, None, len(raw), digest, peer, reply)

    def _looked(self, raw: bytes, header: Header | None, profile: Profile) -> Finding:
        try:
            return finding_of(raw, header, profile)
        except Exception as error:  # noqa: BLE001 - a fault of our reading must not keep a message out of the journal
            self._log.error("frame not read", error=type(error).__name__)
            return Finding(Verdict.STORED)

    def take_spooled(self, name: str, head: bytes, size: int, digest: bytes, peer: str, reply: Reply) -> None:
        """Journal a frame whose bytes lie in a spool file: parked as too large, answered as a content fault."""
        header = headers.read(head)
        error = ack.too_large(self._settings.processed_bytes)
        finding = Finding(Verdict.CONTENT_FAULT, error) if header else Finding(Verdict.NO_HEADER, ack.NO_HEADER)
        self._found(header, finding, None, name, size, digest, peer, reply)

    def refuse(self, head: bytes, size: int, peer: str, reply: Reply) -> None:
        """Journal the beginning of a frame over the limit for keeping, and refuse it."""
        finding = Finding(Verdict.TOO_LARGE, ack.too_large(self._settings.spooled_bytes))
        self._log.error("frame refused: over the limit for keeping", peer=peer, size=size)
        self._found(headers.read(head), finding, head, None, size, hashlib.sha256(head).digest(), peer, reply)

    def _found(
        self, header: Header | None, finding: Finding, raw: bytes | None, spool: str | None, size: int, digest: bytes, peer: str,
        reply: Reply,
    ) -> None:  # fmt: skip
        route, now = self._routes.of(header), self._clock.now()
        answer = domain.answer(header, finding, route.profile, self._control_id(), now)
        self._keep(header, route, answer, now, raw, spool, size, digest, peer, reply)

    def _keep(
        self, header: Header | None, route: Route, answer: Answer, now: datetime, raw: bytes | None, spool: str | None, size: int,
        digest: bytes, peer: str, reply: Reply,
    ) -> None:  # fmt: skip
        control_id = latin(header.control_id) if header else ""
        frame = NewFrame(
            now,
            peer,
            route.profile.name,
            route.sender,
            control_id,
            route.kind,
            size,
            digest,
            raw,
            spool,
            answer.code,
            answer.wire,
        )
        if not self._pending:
            asyncio.get_running_loop().call_soon(self._commit_pending)
        self._pending.append((frame, header, answer, reply))

    def _commit_pending(self) -> None:
        pending, self._pending = self._pending, []
        for start in range(0, len(pending), _TOGETHER):
            group = pending[start : start + _TOGETHER]
            window = group[0][0].received - timedelta(days=self._settings.resend_days)
            kept = self.keeper.keep([frame for frame, _, _, _ in group], window)
            self._reply(group, kept)
        if self.keeper.distrusted:
            self._on_distrust()

    def _reply(self, group: Sequence[_Pending], kept: Sequence[Kept | ArcuateError]) -> None:
        stored = False
        for (_, header, answer, reply), one in zip(group, kept, strict=True):
            try:
                if isinstance(one, Kept):
                    self.storage_fault, stored = None, True
                    reply(Answer(one.code, one.wire, answer.close), not one.repeated)
                else:
                    reply(self.not_stored(header, one), False)
            except Exception as error:  # noqa: BLE001 - one connection's fault must not cost the others their answers
                self._log.error("answer not written", error=type(error).__name__)
        if stored:
            self._on_stored()

    def not_stored(self, header: Header | None, error: Exception) -> Answer:
        """Return the answer to a frame that could not be kept (policy 2)."""
        self.storage_fault = error.what if isinstance(error, ArcuateError) else type(error).__name__
        self._log.error("frame not stored", error=type(error).__name__)
        finding = Finding(Verdict.NOT_STORED, ack.NOT_STORED)
        profile = self._routes.of(header).profile
        return domain.answer(header, finding, profile, self._control_id(), self._clock.now())
