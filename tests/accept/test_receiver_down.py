"""A receiver that is away for hours while thousands of messages wait for it, and our own program that is started again meanwhile."""

import time
from pathlib import Path

import pytest
from sqlmodel import Session
from structlog.testing import capture_logs
from tests.accept.sizes import size
from tests.gateway.conftest import START, Sink, Site, open_site

from arcuate.gateway.outgoing import queue
from arcuate.gateway.outgoing.queue import NewOutgoing
from arcuate.gateway.settings import GatewaySettings, Receiver

MESSAGES = size(120, 20_000)


def _message(number: int) -> bytes:
    return (
        f"MSH|^~\\&|ARCUATE|X|report|X|20260317||ORU^R01|M{number}|P|2.5.1\rPID|1||{number % 50}^^^H\rOBX|1|TX|||{number}"
    ).encode()


async def _queued(site: Site, first: int, last: int) -> None:
    """Put messages into the line as `compose` does; what they say is not the matter here."""
    now = site.clock.now()

    def add(session: Session) -> None:
        for number in range(first, last):
            patient = f"Patient/{number % 50}"
            new = NewOutgoing(
                "report", "none", f"d{number}", patient, f"X/{number}", patient, (), f"M{number}", _message(number)
            )
            assert queue.add(session, new, now) is not None

    await site.parts.context.database.write(add)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_f012_thousands_wait_for_hours_through_two_restarts_and_all_go_in_order_with_one_alert(
    tmp_path: Path,
) -> None:
    sink = Sink()
    await sink.open()
    await sink.close()  # its port is known, and nobody listens there
    receiver = Receiver.model_validate({"name": "report", "kind": "report", "host": "127.0.0.1", "port": sink.port})
    settings, data = GatewaySettings(port=0, receivers=(receiver,), send_timeout_s=5), tmp_path / "data"
    at = START
    with capture_logs() as logs:
        for start in range(3):  # two restarts of our own
            async with open_site(data, settings, start=at) as site:
                await _queued(site, MESSAGES * start // 3, MESSAGES * (start + 1) // 3)
                for _ in range(24):  # 80 minutes each
                    site.clock.advance(200)
                    await site.settle()
                line = await site.parts.context.database.read(lambda s: queue.line(s, "report"))
                assert line.waiting == MESSAGES * (start + 1) // 3
                at = site.clock.now()
        await sink.open()
        async with open_site(data, settings, start=at) as site:
            site.clock.advance(70)
            began = time.monotonic()
            while len(sink.received) < MESSAGES:
                await site.settle()
                site.clock.advance(1)
            print(f"{MESSAGES} messages drained in {time.monotonic() - began:.0f} s")
            line = await site.parts.context.database.read(lambda s: queue.line(s, "report"))
            assert (line.waiting, line.parked) == (0, 0)
        await sink.close()
    assert sink.received == [_message(number) for number in range(MESSAGES)]
    assert [one["event"].split(":")[0] for one in logs if one["event"].startswith(("alert", "recovered"))] == [
        "alert", "recovered",
    ]  # fmt: skip
