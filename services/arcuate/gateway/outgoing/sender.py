"""Sending, stop-and-wait, one line a receiver: acknowledged, refused, or tried again when the receiver is back."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlmodel import Session

from arcuate.gateway.outgoing import halt, queue
from arcuate.gateway.settings import GatewaySettings, Receiver
from arcuate.gateway.tables import Outgoing
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import MllpClient
from arcuate.kernel.log import get_logger
from arcuate.kernel.work import Apply, Job, Later

_FIRST_PAUSE_S = 1.0
_HALTED_S = 5.0


class Sender:
    """Sends what the queue holds.

    Attributes:
        down: Receivers that do not answer, and since when; one alert is raised for each, and one when it is back.
    """

    def __init__(
        self, database: Database, settings: GatewaySettings, clock: Clock, receivers: Sequence[Receiver]
    ) -> None:
        self._database, self._settings, self._clock = database, settings, clock
        self._clients = {one.name: MllpClient(one.host, one.port, settings.send_timeout_s) for one in receivers}
        self._pauses: dict[str, float] = {}
        self._alerted: dict[str, bool] = {}
        self.down: dict[str, datetime] = {}
        self._log = get_logger("gateway")

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.close()

    @property
    def clients(self) -> Mapping[str, MllpClient]:
        """Return the connections by receiver."""
        return self._clients

    async def send(self, job: Job) -> Apply | None:
        """Send one message and wait for what the receiver says (handler of work).

        Raises:
            Later: The receiver does not answer, or could not keep the message; or sending is halted.
        """
        number = int(job.payload["outgoing"])
        if stopped := await self._database.read(halt.standing):
            raise Later(_HALTED_S, stopped.reason)
        row, behind = await self._database.read(lambda s: self._load(s, number))
        if row.state != queue.WAITING:
            return None
        if behind:
            return lambda session: queue.hold(session, number)
        client = self._clients.get(row.receiver)
        if client is None:
            return self._settled(number, queue.PARKED, None, "This receiver is not in the settings any more")
        try:
            answer = await client.send(row.raw, application=True)
        except Unavailable as error:
            await self._is_down(row)
            raise Later(self._pause(row.receiver), error.what) from error
        await self._is_up(row.receiver)
        return await self._heard(row, number, answer)

    def _load(self, session: Session, number: int) -> tuple[Outgoing, bool]:
        row = queue.load(session, number)
        return row, queue.is_behind_parked(session, row)

    async def _heard(self, row: Outgoing, number: int, answer: bytes) -> Apply:
        said = ack.read(answer)
        code = said.code if said else ""
        if code == "AA":
            return self._settled(number, queue.DELIVERED, answer, "")
        if code == "CA":
            return self._settled(number, queue.ACCEPTED, answer, "Received, not yet acknowledged as processed")
        words = said.text if said else ""
        reason = f"The receiver answered {code or 'without MSA'}" + (f": {words[:200]}" if words else "")
        if code in ("AR", "CE") and row.tries + 1 < self._settings.send_tries:
            await self._database.write(lambda s: queue.note_try(s, number, reason, answer))
            raise Later(self._pause(row.receiver), f"the receiver answered {code}")
        return self._settled(number, queue.PARKED, answer, reason)

    def _settled(self, number: int, state: str, answer: bytes | None, reason: str) -> Apply:
        now = self._clock.now()
        return lambda session: queue.settle(session, number, state, now, answer, reason)

    def _pause(self, receiver: str) -> float:
        pause = min(self._pauses.get(receiver, _FIRST_PAUSE_S / 2) * 2, self._settings.send_backoff_s)
        self._pauses[receiver] = pause
        return pause

    async def _is_down(self, row: Outgoing) -> None:
        now = self._clock.now()
        self.down.setdefault(row.receiver, now)
        age = (now - row.created).total_seconds()
        if age >= self._settings.alert_age_s and await self._tell(row.receiver, True):
            self._log.error(
                "alert: a receiver does not answer, its messages wait", receiver=row.receiver, oldest_s=round(age)
            )

    async def _is_up(self, receiver: str) -> None:
        self._pauses.pop(receiver, None)
        self.down.pop(receiver, None)
        if await self._tell(receiver, False):
            self._log.error("recovered: the receiver answers again", receiver=receiver)

    async def _tell(self, receiver: str, alert: bool) -> bool:
        """Say whether this is news: an alert stands until the recovery, whatever program noticed it."""
        if self._alerted.get(receiver) is alert:
            return False
        self._alerted[receiver] = alert
        return await self._database.write(lambda s: queue.tell_once(s, receiver, alert))
