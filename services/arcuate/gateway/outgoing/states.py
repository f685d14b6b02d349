"""Our statuses in the words of HL7 (`states.toml`)."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib import resources


@cache
def _tables() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(resources.files("arcuate.gateway.outgoing").joinpath("states.toml").read_text("utf-8"))


def said(table: str, status: str) -> str:
    """Return the word for a status, or the empty string where there is none."""
    return _tables()[table].get(status, "")
