"""Sending HL7 files over MLLP from the command line, one frame a file, each acknowledgement shown."""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

from arcuate.gateway.mapping import plan
from arcuate.kernel.errors import Unavailable
from arcuate.kernel.hl7v2 import ack, header
from arcuate.kernel.hl7v2.message import Message, split
from arcuate.kernel.hl7v2.mllp import MllpClient, frame

_ANSWER_S = 30.0


async def send_files(
    paths: Sequence[Path], host: str, port: int, report: Callable[[str], None], *, silence_s: float = 0.25
) -> dict[str, int]:
    """Send each file as one frame and report its acknowledgement; returns how many of each code.

    Bytes go out as they stand; a file that holds framing bytes of its own is sent without another frame around it.
    Acknowledgements, and messages that ask for no answer or for one only in case of error (MSH-15, MSH-16), are listened after
    for `silence_s`.

    Raises:
        Unavailable: Nobody listens there.
    """
    counts: Counter[str] = Counter()
    async with MllpClient(host, port, _ANSWER_S) as client:
        for path in paths:
            content = path.read_bytes()
            try:
                code, words = await _send(client, content, silence_s)
            except Unavailable as error:
                if not counts and "reached" in error.what:
                    raise
                code, words = "closed", error.what
            counts[code] += 1
            report(f"{code:9}  {path.name}{f'  {words}' if words else ''}")
    return dict(counts)


async def _send(client: MllpClient, content: bytes, silence_s: float) -> tuple[str, str]:
    framed = content.startswith(b"\x0b")
    wire = content if framed else frame(content)
    if framed and content.endswith(b"\x1c"):
        wire += b"\r"
    raw = content.strip(b"\x0b\x1c\r\n") if framed else content
    expected, head = _expects_answer(raw), header.read(raw)
    answer = await client.exchange(wire, _ANSWER_S if expected else silence_s, head.control_id if head else b"")
    if answer is None:
        return ("no answer", "") if expected else ("none", "not to be answered")
    said = ack.read(answer)
    return (said.code, said.text) if said else ("unreadable", "")


def _expects_answer(raw: bytes) -> bool:
    messages = [Message.parse(one) for one in split(raw).messages]
    if messages and all(plan.use_of_message(one) == "acknowledgement" for one in messages):
        return False
    first = header.read(raw)
    silent = (b"NE", b"ER", b"")  # ER: an answer only when something is wrong
    return (
        first is None
        or not first.enhanced
        or first.field(15).strip() not in silent
        or first.field(16).strip() not in silent
    )
