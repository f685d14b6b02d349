"""The `arcuate` command."""

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
import uvloop
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from arcuate.kernel.clock import SystemClock
from arcuate.kernel.errors import ArcuateError, BadInput

app = typer.Typer(
    help="Carries one imaging order from the moment it is placed to a signed report.", no_args_is_help=True, add_completion=False,
    pretty_exceptions_enable=False,
)  # fmt: skip
journal_app = typer.Typer(help="What came in over HL7, byte for byte.", no_args_is_help=True)
app.add_typer(journal_app, name="journal")
profile_app = typer.Typer(help="How senders speak HL7.", no_args_is_help=True)
app.add_typer(profile_app, name="profile")


@profile_app.callback()
def profile_commands() -> None:
    """Work with the profiles of senders."""


console = Console(highlight=False, soft_wrap=True)

DataDir = Annotated[Path | None, typer.Option("--data", help="Folder of all data (default: ./data).")]


@app.command()
def up(
    data: DataDir = None,
    port: Annotated[int | None, typer.Option(help="Port of the pages and interfaces (default 8080).")] = None,
    mllp_port: Annotated[int | None, typer.Option(help="Port of HL7 over MLLP (default 2575).")] = None,
    dicom_port: Annotated[int | None, typer.Option(help="Port of DICOM C-STORE (default 11112).")] = None,
) -> None:
    """Run all rooms in one program on SQLite, on loopback."""
    from arcuate.programs import run_house

    uvloop.run(run_house(_house_settings(data, port), mllp_port=mllp_port, dicom_port=dicom_port, say=_say))


@app.command()
def demo(
    data: DataDir = None,
    exit_: Annotated[
        bool,
        typer.Option("--exit", help="End with a summary; non-zero if a journey did not end as scripted."),
    ] = False,
    port: Annotated[int | None, typer.Option(help="Port of the pages (default 8080).")] = None,
    mllp_port: Annotated[int | None, typer.Option(help="Port of HL7 over MLLP (default 2575).")] = None,
    dicom_port: Annotated[int | None, typer.Option(help="Port of DICOM C-STORE (default 11112).")] = None,
    seed: Annotated[int, typer.Option(help="Seed of the synthetic morning.")] = 7,
) -> None:
    """Run the house with a synthetic morning played through its real doors."""
    from arcuate.demo import run_demo

    settings = _house_settings(data or Path("data/demo"), port)
    ended_well = uvloop.run(
        run_demo(settings, mllp_port=mllp_port, dicom_port=dicom_port, seed=seed, ends=exit_, console=console)
    )
    raise typer.Exit(0 if ended_well else 1)


@app.command()
def serve(
    room: Annotated[str, typer.Argument(help="Which room.")],
    data: DataDir = None,
    port: Annotated[int | None, typer.Option(help="Port of the room's web interface.")] = None,
) -> None:
    """Run one room as a program of its own (ARCUATE_HOUSE_URL names the proxy to the others)."""
    from arcuate.house import ROOMS
    from arcuate.programs import run_house

    if room not in ROOMS:
        raise BadInput(f"There is no room {room!r}", todo=f"Rooms are: {', '.join(ROOMS)}.")
    uvloop.run(run_house(_house_settings(data, port), rooms=[room], say=_say))


@app.command()
def signin(data: DataDir = None) -> None:
    """Print a new one-time sign-in link."""
    from arcuate.programs import sign_in_link

    console.print(asyncio.run(sign_in_link(_house_settings(data, None))))


@app.command()
def token(
    role: Annotated[str, typer.Option(help="Role of the token, for example integration.")],
    data: DataDir = None,
    hours: Annotated[float, typer.Option(help="How long it is valid.")] = 8.0,
) -> None:
    """Print a bearer token for scripts against the local house."""
    from arcuate.programs import script_token

    sys.stdout.write(script_token(_house_settings(data, None), role, timedelta(hours=hours)) + "\n")


@app.command()
def send(
    paths: Annotated[list[Path], typer.Argument(help="HL7 files, or folders of them.")],
    host: Annotated[str, typer.Option(help="Receiver.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Its MLLP port.")] = 2575,
) -> None:
    """Send HL7 files over MLLP, one frame a file; print each acknowledgement and a count by code."""
    from arcuate.gateway.sending import send_files

    counts = asyncio.run(send_files(_hl7_files(paths), host, port, _say))
    _say("  ".join(f"{code} {count}" for code, count in sorted(counts.items())))


@app.command()
def backfill(
    paths: Annotated[list[Path], typer.Argument(help="HL7 archives, folders of FHIR Bulk Data (NDJSON), tables (CSV); zip, tar and gz too.")],
    columns: Annotated[Path | None, typer.Option(help="How the columns of tables are read (TOML; see docs/howto/backfill.md).")] = None,
    source: Annotated[str, typer.Option(help="What the server is called here that Bulk Data came from: always the same word.")] = "ehr",
    data: DataDir = None,
) -> None:  # fmt: skip
    """Read past years, marked as history: nothing is sent, nobody is alerted, no case begins. Run it again after any stop."""
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    from arcuate.programs import backfill as run

    shown = TextColumn(
        "{task.fields[file]}  read {task.fields[read]}  new {task.fields[new]}  to be mapped {task.fields[waiting]}"
    )
    with Progress(SpinnerColumn(), shown, TimeElapsedColumn(), console=console, transient=True) as progress:
        task = progress.add_task("backfill", total=None, file="", read=0, new=0, waiting=0)

        def watch(counts: Any) -> None:
            progress.update(task, file=counts.file[-40:], read=counts.read, new=counts.new, waiting=counts.waiting)

        counts, standing = asyncio.run(run(_house_settings(data, None), paths, columns, source, watch))
    _say(
        f"{counts.files} files; {counts.read} items read, {counts.new} new, {counts.known} stood in the journal already"
    )
    for what, number in counts.unused.most_common():
        _say(f"  not used: {number} {what}")
    states = "  ".join(f"{state} {number}" for state, number in sorted(standing.states.items()))
    _say(f"All of the past: {states or 'nothing'}")
    for cause, number in standing.causes.items():
        _say(f"  waits for a person: {number} {cause}")
    if standing.causes:
        _say("See the error queue in the pages, or: arcuate journal list")


@app.command()
def backup(folder: Annotated[Path, typer.Argument(help="New folder for the copy.")], data: DataDir = None) -> None:
    """Copy a house on SQLite files as it stands at one instant; it may run meanwhile. PostgreSQL: docs/howto/backup.md."""
    from arcuate.backup import backup as make

    make(_house_settings(data, None), folder, SystemClock().now(), _say)


@app.command()
def restore(folder: Annotated[Path, typer.Argument(help="The backup.")], data: DataDir = None) -> None:
    """Put a backup into an empty data folder. Nothing is sent afterwards until a person releases it."""
    from arcuate.backup import restore as put_back

    put_back(_house_settings(data, None), folder, SystemClock().now(), _say)


@app.command()
def halt(data: DataDir = None) -> None:
    """Send no HL7 message until a person releases it on the page Connections: before the first start on a restored PostgreSQL."""
    from arcuate.backup import halt_sending

    halt_sending(_house_settings(data, None), SystemClock().now())
    _say("Nothing is sent until a person releases it on the page Connections.")


@journal_app.command("list")
def journal_list(data: DataDir = None) -> None:
    """List what came in."""
    from arcuate.programs import journal_lines

    for line in journal_lines(_house_settings(data, None)):
        _say(line)


@journal_app.command("show")
def journal_show(number: int, data: DataDir = None) -> None:
    """Write one message to standard output, byte for byte."""
    from arcuate.programs import journal_bytes

    sys.stdout.buffer.write(journal_bytes(_house_settings(data, None), number))


@journal_app.command("export")
def journal_export(folder: Path, data: DataDir = None) -> None:
    """Write every message that came in to a folder, byte for byte, one file a frame."""
    from arcuate.programs import journal_export

    _say(f"{journal_export(_house_settings(data, None), folder)} messages written to {folder}")


@profile_app.command("test")
def profile_test(
    profile: Annotated[str, typer.Argument(help="A profile (TOML file), or: default.")],
    paths: Annotated[list[Path], typer.Argument(help="HL7 files, or folders of them.")],
) -> None:
    """Show what a profile makes of sample messages (names and numbers included) before it goes live; nothing is stored or sent."""
    from arcuate.gateway import preview
    from arcuate.gateway.profile import read
    from arcuate.kernel.settings import SiteSettings

    chosen = read(None if profile == "default" else Path(profile))
    for line in preview.report(_hl7_files(paths), chosen, SiteSettings().zone):
        _say(line)


@app.command()
def quantify(
    path: Annotated[Path, typer.Argument(help="A folder with one DICOM study, or a NIfTI file.")],
    out: Annotated[
        Path | None, typer.Option(help="Folder for the results (default: beside the input, never inside it).")
    ] = None,
) -> None:
    """Measure a T1-weighted head: volumes as table and JSON; DICOM SEG and SR and a QC picture, or a label map."""
    from arcuate.measuring import quantify_path

    asyncio.run(quantify_path(path, out, console))


@app.command()
def lesions(
    flair: Annotated[Path, typer.Argument(help="A folder with one DICOM study, or a FLAIR as NIfTI file.")],
    before: Annotated[Path | None, typer.Option(help="An earlier study or FLAIR of the same person.")] = None,
    t1: Annotated[Path | None, typer.Option(help="The T1 of the same head, where FLAIR is a NIfTI file.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the results (default: beside the input).")] = None,
) -> None:
    """Find white-matter lesions on a FLAIR; with --before also what is new, enlarged or resolved (research use)."""
    from arcuate.measuring import lesions_path

    asyncio.run(lesions_path(flair, before, t1, out, console))


@app.command()
def train(
    name: Annotated[str, typer.Argument(help="attendance, waiting, brain-t1, brain-any, head-ct or wm-lesions.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder of label maps, or of a history (FHIR NDJSON)."),
    ] = None,
    minutes: Annotated[
        float,
        typer.Option(
            help="How long a network is trained now; it goes on from its checkpoint. head-ct: how long synthetic scans are made."
        ),
    ] = 60.0,
    settle: Annotated[
        bool,
        typer.Option(help="Of a brain network: let the learning rate fall to nothing in these minutes, and ship that."),
    ] = False,
    seed: Annotated[int, typer.Option(help="Seed.")] = 7,
) -> None:
    """Train a model."""
    from arcuate.training import train_model

    train_model(name, source, minutes, seed, _say, settle)


@app.command()
def evaluate(
    name: Annotated[str, typer.Argument(help="attendance, waiting, brain-t1, brain-any, head-ct or wm-lesions.")],
    source: Annotated[Path | None, typer.Option("--from", help="Test data.")] = None,
    seed: Annotated[int, typer.Option(help="Seed.")] = 7,
    robust: Annotated[bool, typer.Option("--robust", help="Brain networks: on degraded copies of the scans.")] = False,
    quality: Annotated[
        bool, typer.Option("--quality", help="Brain networks: fit the quality score, on held-out label maps.")
    ] = False,
    balance: Annotated[
        bool, typer.Option("--balance", help="Brain networks: fit the weights of the classes, on synthetic heads.")
    ] = False,
    intervals: Annotated[
        bool, typer.Option("--intervals", help="Brain networks: fit the intervals of volumes, on synthetic heads.")
    ] = False,
    contrasts: Annotated[
        bool,
        typer.Option("--contrasts", help="Brain networks: each way of the choice on each weighting, on held-out maps."),
    ] = False,
    repeat: Annotated[
        tuple[Path, Path] | None,
        typer.Option(
            "--repeat", help="Brain networks: two scans of one person, folders or files, and how far they lie apart."
        ),
    ] = None,
) -> None:
    """Measure a model and write the figures into its card."""
    if repeat is not None:
        from arcuate import brain_checks

        brain_checks.repeat(name, repeat, _say)
        return
    from arcuate.training import evaluate_model

    chosen = {
        "robust": robust, "quality": quality, "balance": balance, "intervals": intervals, "contrasts": contrasts,
    }  # fmt: skip
    evaluate_model(name, source, seed, _say, next((check for check, asked in chosen.items() if asked), ""))


@app.command()
def settings(as_markdown: Annotated[bool, typer.Option("--markdown", help="As the reference page.")] = False) -> None:
    """Print every setting, its value, and where it came from."""
    from arcuate.programs import all_settings

    if as_markdown:
        _say("# Settings\n\nMade by `make docs`. Each is an environment variable.\n")
        for group, lines in all_settings():
            _say(f"## {group}\n\n| variable | default | what |\n|---|---|---|")
            for line in lines:
                _say(f"| `{line.variable}` | `{line.default}` | {line.sentence} |")
            _say("")
        return
    table = Table("setting", "value", "from", "what", box=None)
    for _, lines in all_settings():
        for line in lines:
            table.add_row(line.variable, line.value, line.source, line.sentence)
    console.print(table)


def _house_settings(data: Path | None, port: int | None) -> Any:
    from arcuate.house import HouseSettings

    given = {name: value for name, value in (("data_dir", data), ("port", port)) if value is not None}
    return HouseSettings(**given)  # type: ignore[arg-type]


def _hl7_files(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise BadInput(f"{path} does not exist")
        found += sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    return found


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Run the command; what goes wrong is said in a sentence, not as a trace."""
    try:
        app()
    except ArcuateError as error:
        sys.stderr.write(f"arcuate: {error}\n")
        raise SystemExit(2) from error
    except ValidationError as error:
        lines = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
        sys.stderr.write("arcuate: a setting is wrong: " + json.dumps(lines) + "\n")
        raise SystemExit(2) from error
    except KeyboardInterrupt:
        raise SystemExit(130) from None
