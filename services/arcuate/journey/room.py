"""What the use cases of this room work with."""

import asyncio
from dataclasses import dataclass, field

import httpx

from arcuate.journey.own import OwnWrites
from arcuate.journey.settings import JourneySettings
from arcuate.journey.table import Table
from arcuate.journey.turns import Turns
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.log import Logger


@dataclass(frozen=True)
class Journey:
    """What the use cases need.

    Attributes:
        turns: What only one replica at a time does.
        roster: Questions for readers take turns inside this program.
        own: What this program wrote itself.
    """

    database: Database
    fhir: FhirClient
    http: httpx.AsyncClient
    clock: Clock
    settings: JourneySettings
    table: Table
    log: Logger
    turns: Turns
    roster: asyncio.Lock = field(default_factory=asyncio.Lock)
    own: OwnWrites = field(default_factory=OwnWrites)
