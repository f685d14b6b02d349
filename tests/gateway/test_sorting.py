"""After the acknowledgement: what cannot be written of one frame holds up no other."""

from pathlib import Path

import pytest
from tests.gateway.conftest import Site, open_site
from tests.gateway.messages import order

from arcuate.gateway.settings import GatewaySettings

HEAD = b"MSH|^~\\&|A|B|C|D|2026||"


@pytest.mark.parametrize(
    "sent",
    [
        HEAD + b"AD\x81^A\x9d1|7|P|2.5\rPID|1\r",  # bytes of no character set
        b"BHS|^~\\&|x\r" + HEAD + b"ADT^A01|7|P|2.5\rPID|1\r" + HEAD + b"AD\x00T^\x00|8|P|2.5\rPID|1\rBTS|9\x81\r",
        HEAD + b"\xed\xa0\x80\x81^\xed\xb3\xbf|7|P|2.5\rPID|1\r",
    ],
)
async def test_a_message_whose_type_is_no_text_waits_for_a_person_and_the_next_is_applied(
    site: Site, sent: bytes
) -> None:
    assert await site.send(sent) == ["AA"]
    await site.apply(order("ACC1"))
    assert (await site.order("ACC1"))["status"] == "active"
    assert {one["journal"] for one in await site.errors()} == {1}


async def test_postgresql_takes_what_its_text_cannot_hold(tmp_path: Path, postgres_url: str) -> None:
    async with open_site(tmp_path / "data", GatewaySettings(port=0), postgres_url) as site:
        assert await site.send(HEAD + b"ADT^A01|7|P|2.5\rPID|1\r" + HEAD + b"A\x00T^\x00|8|P|2.5\rPID|1\r") == ["AA"]
        await site.apply(order("ACC1"))
        assert (await site.order("ACC1"))["status"] == "active"
