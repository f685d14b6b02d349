"""The tokenizer against hl7apy (1.3.5): both read the same value at the same place, wherever hl7apy is right.

Where it is not, as measured: it takes leading zeros off numbers and blanks off ends, escapes sequences that it does not know a second
time, drops trailing empty parts and empty components behind the last one of a data type (what follows moves up), and puts a withdrawn
XTN-1 behind the others. These are the only differences that `disagreements` forgives.
"""

import os
import random
import warnings
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from typing import Any

from hl7apy.consts import VALIDATION_LEVEL
from hl7apy.exceptions import HL7apyException
from hl7apy.parser import parse_message

from arcuate.kernel.hl7v2 import escape
from arcuate.kernel.hl7v2.message import Message

# The acceptance run sets it to 10000; the sample takes some seconds.
MESSAGES = int(os.environ.get("ARCUATE_DIFFERENTIAL", "60"))
_SEGMENTS = {"PID": 30, "PV1": 44, "ORC": 16, "OBR": 36, "OBX": 16, "NTE": 3, "AL1": 5, "DG1": 6, "ZDS": 4}
_WORDS = (
    "",
    "a",
    "Müller",
    "李",
    "0012",
    "1.50",
    '""',
    "A & B",
    "4\\5",
    "x|y",
    "m^n",
    "p~q",
    "two words",
    "\\.br\\",
    "20260317100000+0100",
)


def theirs(text: str) -> Any:
    """What hl7apy reads, or None where it refuses."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return parse_message(text, validation_level=VALIDATION_LEVEL.TOLERANT, find_groups=False)
        except (HL7apyException, ValueError, AttributeError, IndexError, KeyError, TypeError):
            return None


def disagreements(ours: Message, other: Any) -> Iterator[str]:
    """Places at which both read and read differently; names segment and field, not the values."""
    chars = other.encoding_chars
    segments = [segment for segment in ours if segment.id]
    if [segment.id for segment in segments] != [child.name for child in other.children]:
        yield "segments"
        return
    for segment, child in zip(segments, other.children, strict=True):
        fields: dict[int, list[str]] = {}
        for field in child.children:
            number = (field.name or "").rsplit("_", 1)[-1]  # fields behind the last one of a segment have no name
            if number.isdigit():
                fields.setdefault(int(number), []).append(field.to_er7(chars))
        for number, values in fields.items():
            if segment.id == "MSH" and number < 3:
                continue
            mine = segment.raw(number).split(chars["REPETITION"])
            mine += [""] * (len(values) - len(mine))
            read = values + [""] * (len(mine) - len(values))
            if not all(_same(one, two, chars) for one, two in zip(mine, read, strict=True)):
                yield f"{segment.id}-{number}"


def _same(mine: str, other: str, chars: dict[str, str]) -> bool:
    empty = chars["COMPONENT"] + chars["SUBCOMPONENT"] + " "
    for separator in (chars["COMPONENT"], chars["SUBCOMPONENT"]):
        ones, twos = ([part for part in text.split(separator) if part.strip(empty)] for text in (mine, other))
        if len(ones) > 1 or len(twos) > 1:
            # Where an empty component vanished, the others are the same in the same order; a withdrawn XTN-1 goes to the end.
            return any(
                len(ones) == len(order) and all(_same(*pair, chars) for pair in zip(ones, order, strict=True))
                for order in (twos, twos[-1:] + twos[:-1])
            )
    sign = chars["ESCAPE"]
    mine, other = (text.strip(empty).replace(f"{sign}E{sign}", sign) for text in (mine, other))
    return mine == other or (_number(mine) is not None and _number(mine) == _number(other))


def _number(text: str) -> Decimal | None:
    try:
        return Decimal(text)
    except InvalidOperation:
        return None


def _tree(chance: random.Random) -> list[list[list[str]]]:
    """Repetitions of components of subcomponents, mostly simple."""
    deep = chance.random() < 0.3
    return [
        [
            [chance.choice(_WORDS) for _ in range(chance.randint(1, 2 if deep else 1))]
            for _ in range(chance.randint(1, 4))
        ]
        for _ in range(chance.choice((1, 1, 1, 2)))
    ]


def generated(chance: random.Random) -> tuple[str, dict[tuple[int, int], list[list[list[str]]]]]:
    """A message, and what was put where: (segment, field) to the tree of its values."""
    lines = ["MSH|^~\\&|RIS|HOSP|ARC|NEURO|20260317100000||ORU^R01^ORU_R01|1|P|2.5.1"]
    placed: dict[tuple[int, int], list[list[list[str]]]] = {}
    for place in range(1, chance.randint(2, 8)):
        id = chance.choice(list(_SEGMENTS))
        fields = [""] * _SEGMENTS[id]
        for number in chance.sample(range(1, _SEGMENTS[id] + 1), chance.randint(1, min(5, _SEGMENTS[id]))):
            if id == "OBX" and number in (2, 5):  # hl7apy reads OBX-5 by the type in OBX-2
                continue
            tree = placed[place, number] = _tree(chance)
            fields[number - 1] = "~".join("^".join("&".join(map(_written, subs)) for subs in parts) for parts in tree)
        lines.append("|".join([id, *fields]).rstrip("|"))
    return "\r".join(lines) + "\r", placed


def _written(text: str) -> str:
    return text if text == '""' else escape.encode(text)


def test_generated_messages_are_read_as_they_were_written_and_as_hl7apy_reads_them() -> None:
    chance = random.Random(2026)
    compared = 0
    for _ in range(MESSAGES):
        text, placed = generated(chance)
        ours = Message.parse(text.encode())
        assert ours.encode() == text.encode()
        for (place, number), tree in placed.items():
            field = ours.segments[place][number]
            parts = [part for part in tree if _rest(part)]
            read = [one for one in field.repetitions if one.raw.strip("^&")]
            assert len(read) == len(parts)
            for part, one in zip(parts, read, strict=True):
                for c, subs in enumerate(part, 1):
                    for s, value in enumerate(subs, 1):
                        assert one.component(c, s) == ("" if value == '""' else value)
        other = theirs(text)
        if other is not None:
            compared += 1
            assert list(disagreements(ours, other)) == []
    assert compared > MESSAGES * 0.9


def _rest(part: list[list[str]]) -> bool:
    return any(value for subs in part for value in subs)
