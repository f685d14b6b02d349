"""Texts from outside made fit for a report: one meaning on screen, on paper and in HL7."""

import unicodedata


def clean(text: str) -> str:
    """Return a text with line ends as LF and without control or direction characters; nothing else changes."""
    plain = (
        text.replace("\r\n", "\n")
        .replace("\r", "\n")
        .replace("\u2028", "\n")
        .replace("\u2029", "\n")
        .replace("\x85", "\n")
    )
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else " " for c in plain)


def one_line(text: str, length: int = 200) -> str:
    """Return a text on one line; what is cut off is shown as cut off."""
    line = " ".join(clean(text).split())
    return line if len(line) <= length else line[: length - 1] + "…"


def lines(text: str) -> tuple[str, ...]:
    """Return the non-empty lines of a text as typed."""
    return tuple(line.rstrip() for line in clean(text).split("\n") if line.strip())
