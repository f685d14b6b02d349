"""Durable work: rows with lease, attempt number and backoff in the room's own database (`table`, `lease`), and who does it (`worker`)."""

from arcuate.kernel.work.jobs import (
    DISCARDED,
    DONE,
    LEASED,
    PARKED,
    READY,
    Apply,
    Handler,
    Job,
    Later,
    LeaseLost,
    NewJob,
    Park,
    ParkedJob,
)
from arcuate.kernel.work.lease import Terms
from arcuate.kernel.work.table import WorkTable
from arcuate.kernel.work.worker import Worker

__all__ = [
    "DISCARDED", "DONE", "LEASED", "PARKED", "READY", "Apply", "Handler", "Job", "Later",
    "LeaseLost", "NewJob", "Park", "ParkedJob", "Terms", "WorkTable", "Worker",
]  # fmt: skip
