"""What all tests share: the corpus folder, a real PostgreSQL, temporary databases."""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.internal.conjecture import providers

from arcuate.kernel.clock import ManualClock

# A busy machine is no fault of the code: examples are limited in number, not in time. No database of examples: CI starts from nothing.
settings.register_profile("arcuate", deadline=None, database=None, derandomize=True, print_blob=True)
# `make accept` looks fifty times as long, and elsewhere each time.
settings.register_profile("accept", deadline=None, database=None, derandomize=False, print_blob=True, max_examples=5000)
FULL = os.environ.get("ARCUATE_ACCEPT") == "1"
settings.load_profile("accept" if FULL else "arcuate")
if not FULL:
    # Hypothesis also draws constants from whichever modules are loaded by then, so the same test found other examples beside other files.
    # `make accept` keeps that; here the same examples come each time.
    assert callable(providers._get_local_constants)
    providers._get_local_constants = lambda: providers._local_constants

ROOT = Path(__file__).parent.parent
IN_CI = bool(os.environ.get("ARCUATE_CI"))


# The files that take longest, measured: begun first, so that no worker ends on one of them while the other has nothing left
# (pytest-xdist would begin with the files of most tests; these have few).
LONGEST = (
    "browser/test_pages_in_chromium.py", "journey/test_order_to_report.py", "imaging/test_quantify.py", "gateway/test_f008_kill.py",
    "journey/test_department_journeys.py", "corpus/test_journey_real.py", "corpus/test_hl7v2_messages.py", "contract/test_command.py",
    "hospital/test_heads_measured.py", "imaging/test_receiving.py", "journey/test_replicas.py", "journey/test_rooms_away.py",
    "inference/test_engine_process.py", "gateway/test_content.py", "gateway/test_outgoing.py", "record/test_export.py",
)  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files; everything else keeps its order."""
    place = {ROOT / "tests" / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: place.get(item.path, len(place)))


def _absent(what: str, todo: str) -> None:
    """Skip with the reason; in CI a missing part is a failure."""
    if IN_CI:
        pytest.fail(f"{what} is missing in CI; {todo}", pytrace=False)
    pytest.skip(f"{what} is missing; {todo}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The corpus of real messages and images beside the checkout; a stranger's checkout has none and skips."""
    folder = Path(os.environ.get("ARCUATE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip("the corpus folder is not beside this checkout (ARCUATE_SHARED names another place)")
    return folder


def program(name: str, package: str) -> str:
    """Return the path of a program that tests use for real."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/lib/chromium")
    if found is None:
        _absent(name, f"install it with scripts/install ({package})")
    return str(found)


@pytest.fixture(scope="session")
def storescu() -> str:
    """dcmtk's C-STORE sender."""
    return program("storescu", "dcmtk")


@pytest.fixture(scope="session")
def dciodvfy() -> str:
    """The DICOM verifier of dicom3tools."""
    return program("dciodvfy", "dicom3tools")


@pytest.fixture(scope="session")
def orthanc() -> str:
    """A real PACS."""
    return program("Orthanc", "orthanc")


@pytest.fixture(scope="session")
def chromium() -> str:
    """Debian's browser."""
    return program("chromium", "chromium")


@pytest.fixture(scope="session")
def caddy() -> str:
    """The reverse proxy of the deployment."""
    return program("caddy", "caddy")


class Cluster:
    """A private PostgreSQL cluster on a socket of its own."""

    def __init__(self) -> None:
        versions = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not versions:
            _absent("PostgreSQL", "install it with scripts/install (postgresql)")
        self._binaries = versions[-1].parent
        self.folder = Path(f"/tmp/arcuate-pg-{secrets.token_hex(4)}")
        self.folder.mkdir(mode=0o700)
        self._as_user: list[str] = []
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            shutil.chown(self.folder, "postgres", "postgres")
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
        self._run("initdb", "-U", "arcuate", "-A", "trust")

    @property
    def url(self) -> str:
        """The URL without a database name."""
        return f"postgresql+psycopg://arcuate@/{{name}}?host={self.folder}"

    def start(self) -> None:
        """Start the server and wait until it answers."""
        options = f"-k {self.folder} -c listen_addresses='' -c max_connections=200"
        self._run("pg_ctl", "-l", self.folder / "log", "-o", options, "-w", "start")

    def stop(self) -> None:
        """Stop the server at once, as a crash does: connections are cut, the log is played again at the next start."""
        self._run("pg_ctl", "-m", "immediate", "-w", "stop")

    def remove(self) -> None:
        """Stop the server and delete its files."""
        with contextlib.suppress(subprocess.CalledProcessError):
            self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str | Path) -> None:
        command = [*self._as_user, self._binaries / program, "-D", self.folder / "data", *arguments]
        subprocess.run(command, check=True, capture_output=True)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """A PostgreSQL server for all tests; yields its URL without a database name."""
    cluster = Cluster()
    try:
        cluster.start()
        yield cluster.url
    finally:
        cluster.remove()


@pytest.fixture
def postgres_url(postgres_server: str) -> Iterator[str]:
    """The URL of a fresh PostgreSQL database."""
    import psycopg

    name = f"t{secrets.token_hex(6)}"
    admin = postgres_server.format(name="postgres").replace("postgresql+psycopg", "postgresql")
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
    yield postgres_server.format(name=name)
    with psycopg.connect(admin, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Both kinds of database, one after the other."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/room.db"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def clock() -> ManualClock:
    """A clock that moves only when the test says so."""
    return ManualClock(datetime(2026, 3, 17, 9, 0, tzinfo=UTC))
