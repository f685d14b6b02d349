"""What a room gets and what it gives: the seam between the house and its rooms."""

import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
from fastapi import FastAPI

from arcuate.kernel.auth import Authenticator
from arcuate.kernel.background import Loops
from arcuate.kernel.clock import Clock
from arcuate.kernel.db import Database
from arcuate.kernel.errors import Defect
from arcuate.kernel.settings import SiteSettings
from arcuate.kernel.web import unguarded_routes


@dataclass(frozen=True)
class RoomContext:
    """Everything that a room does not make by itself.

    Attributes:
        name: The room's name, as in its package.
        data_dir: The room's own folder; it exists.
        models_dir: The folder `models/`.
        templates_dir: The folder `templates/`.
        http: Reaches every room by its path, in process or through the proxy, with this room's token.
        database: The room's own database, not yet migrated.
        loops: Runs the room's inner loops; `/health` says when one of them does not go on.
    """

    name: str
    data_dir: Path
    models_dir: Path
    templates_dir: Path
    clock: Clock
    site: SiteSettings
    authenticator: Authenticator
    http: httpx.AsyncClient
    database: Database
    loops: Loops = field(default_factory=lambda: Loops("room"))


@contextlib.asynccontextmanager
async def idle() -> AsyncIterator[None]:
    """Be the `run` of a room that has no door or worker beside its web app."""
    yield


def always_ready() -> str | None:
    """Be the `ready` of a room that is ready once it is built."""
    return None


@dataclass(frozen=True)
class Room:
    """A built room.

    Attributes:
        paths: Path prefixes that it serves; its routes carry the full path.
        run: Opens the room's other doors and workers, and closes them at exit.
        ready: None, or the reason why not, as a sentence.
    """

    name: str
    paths: tuple[str, ...]
    app: FastAPI
    run: Callable[[], AbstractAsyncContextManager[None]] = idle
    ready: Callable[[], str | None] = always_ready

    def __post_init__(self) -> None:
        """Refuse a room with a route that nobody has guarded.

        Raises:
            Defect: Names the routes.
        """
        if unguarded := unguarded_routes(self.app):
            raise Defect(f"Routes of {self.name} neither name a role nor are declared open: {', '.join(unguarded)}")
