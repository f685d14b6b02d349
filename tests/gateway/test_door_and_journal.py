"""The door (rows 001 to 007, 011): whole frames are stored once and answered in order, and nothing else is."""

import asyncio
import contextlib
import socket

from arcuate.gateway.settings import GatewaySettings
from arcuate.kernel.hl7v2 import ack
from arcuate.kernel.hl7v2.mllp import Framed, FrameReader, MllpClient, frame
from tests.gateway.conftest import Site, open_site
from tests.gateway.messages import order


async def test_f001_an_order_sent_byte_by_byte_is_stored_once_and_answered_once(site: Site) -> None:
    assert await site.apply(order()) == ["AA"]
    print(await site.journal())
    print(await site.order("ACC1"))
    print(await site.errors())
