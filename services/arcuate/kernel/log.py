"""Structured logging without patient data: events are words, values are ids of our own, counts and times."""

import logging
import sys
from typing import Any, cast

import structlog

# Names under which patient data could slip in; their values never reach an output.
_WITHHELD = frozenset({
    "address", "birth_date", "birthdate", "body", "content", "family", "given", "hl7", "indication", "message_text", "mrn", "name",
    "patient", "patient_id", "patient_name", "payload", "pid", "phone", "raw", "resource", "telecom", "text",
})  # fmt: skip

Logger = structlog.stdlib.BoundLogger


def _withhold(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    for key in event.keys() & _WITHHELD:
        event[key] = "(withheld)"
    return event


def configure_logging(level: str = "INFO", form: str = "json") -> None:
    """Send all logs to standard error, as JSON lines or (form `console`) as text for people."""
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _withhold,
    ]
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(colors=False) if form == "console" else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[*shared, structlog.processors.format_exc_info, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    # Libraries write request lines, DICOM headers and SQL parameters: only their warnings pass.
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s")
    for quiet in ("pynetdicom", "pydicom", "httpx", "httpcore", "uvicorn.access", "alembic", "highdicom"):
        logging.getLogger(quiet).setLevel(logging.ERROR)


def get_logger(room: str) -> Logger:
    """Return the logger of a room."""
    return cast(Logger, structlog.get_logger(room=room))


def origin(error: BaseException) -> str:
    """Return file and line where an error was raised; never its text, which could hold patient data."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename.rsplit('/', 2)[-1]}:{trace.tb_lineno}" if trace is not None else ""
