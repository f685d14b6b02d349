"""What is wrong with the head of a message, named by segment and field; reading itself never fails."""

from dataclasses import dataclass

from arcuate.kernel.hl7v2.message import Message

VERSIONS = frozenset(
    ("2.1", "2.2", "2.3", "2.3.1", "2.4", "2.5", "2.5.1", "2.6", "2.7", "2.7.1", "2.8", "2.8.1", "2.8.2", "2.9", "2.9.1")
)  # fmt: skip
PROCESSING_IDS = frozenset("PTD")


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault. `code` is of table 0357; `grave`: the content can't be understood with certainty."""

    location: str
    code: str
    words: str
    grave: bool = False


def faults(message: Message) -> list[Fault]:
    """Faults of character set, delimiters and MSH (2.15.9), the gravest first."""
    found = []
    if not message.charset.readable:
        found.append(Fault("MSH-18", "102", "The bytes fit no character set that this sender may use", grave=True))
    header = message.header
    if header is None:
        found.append(Fault("MSH", "100", "There is no MSH segment", grave=True))
        return found
    doubt = header.context.delimiters.doubt
    if doubt:
        found.append(Fault("MSH-2", "102", doubt, grave=True))
    if not header[9].value.strip():
        found.append(Fault("MSH-9", "101", "MSH-9 names no message type", grave=True))
    for number, what in ((10, "no control id"), (11, "no processing id"), (12, "no version")):
        if not header[number]:
            found.append(Fault(f"MSH-{number}", "101", f"MSH-{number} is empty: {what}"))
    # A line without a segment id behind MSH belongs to its last field; the version is what stands before it.
    version = next(iter(header[12].value.strip().splitlines()), "").strip()
    if version and version not in VERSIONS:
        found.append(Fault("MSH-12", "203", "MSH-12 is no version that is known here", grave=True))
    processing = header[11].value.strip()
    if processing and processing[:1] not in PROCESSING_IDS:
        found.append(Fault("MSH-11", "202", "MSH-11 is not P, T or D", grave=True))
    return found
