"""What the use cases of the imaging room need, built once by `app.py`."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path

from arcuate.imaging.parsing import Parser
from arcuate.imaging.pipelines import SHADOW, Infer, Pipeline
from arcuate.imaging.settings import ImagingSettings
from arcuate.imaging.spool import Spool
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.fhir.client import FhirClient
from arcuate.kernel.settings import SiteSettings
from arcuate.kernel.work import Apply, Worker


@dataclass
class Imaging:
    """What the use cases need.

    Attributes:
        reader: The reading process for measuring; the doors have one of their own, so that they never wait for it.
        running: Measurements that this process is making, by key; the durable job only waits for them.
        turn: Held by the one that is being made: a volume in memory at a time.
    """

    database: Database
    clock: Clock
    site: SiteSettings
    settings: ImagingSettings
    spool: Spool
    fhir: FhirClient
    infer: Infer
    models_dir: Path
    reader: Parser
    running: dict[str, "asyncio.Task[Apply]"] = field(default_factory=dict)
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    worker: Worker | None = None

    def speaks(self, pipeline: Pipeline) -> bool:
        """Whether a pipeline's values go out: a shadow's do once the site has named it."""
        return pipeline.mode != SHADOW or pipeline.name in self.settings.switched_on.split()

    def wake(self) -> None:
        """Tell the worker that there may be work."""
        if self.worker is not None:
            self.worker.wake()
