"""How much an acceptance proof plays: a few seconds in the test run, the whole under `make accept` (ARCUATE_ACCEPT=1)."""

import os

FULL = os.environ.get("ARCUATE_ACCEPT") == "1"


def size(short: int, full: int) -> int:
    """Return the number for this run."""
    return full if FULL else short
