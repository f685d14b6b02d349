"""A report's text as PDF (ISO 32000-1): pages of lines in Courier, nothing that moves, calls or changes.

The fonts that every reader has hold the characters of Windows-1252. Where the text holds others, the page says so, and whoever asks
for the PDF must send the text as well.
"""

import textwrap
from collections.abc import Sequence

_COLUMNS, _ROWS = 88, 66
_SIZE, _LEADING, _LEFT, _TOP = 9, 11.5, 56, 786
_NOTICE = "Some characters cannot be shown in this PDF (?); the text of the report comes with it."


def document(lines: Sequence[str]) -> tuple[bytes, bool]:
    """Return the PDF, and whether all characters of the text are shown in it. The same text gives the same bytes."""
    complete = all(_encoded(line).decode("cp1252") == line for line in lines)
    rows = [row for line in ([*lines] if complete else [_NOTICE, "", *lines]) for row in _wrapped(line)]
    pages = [rows[start : start + _ROWS] for start in range(0, len(rows), _ROWS)] or [[]]
    kids = " ".join(f"{4 + 2 * place} 0 R" for place in range(len(pages)))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        f"<< /Type /Pages /Count {len(pages)} /Kids [{kids}] >>".encode(),
        b"<< /Type /Font /Subtype /Type1 /BaseFont /Courier /Encoding /WinAnsiEncoding >>",
    ]
    for place, page in enumerate(pages):
        objects += [_page(5 + 2 * place), _stream(page)]
    return _file(objects), complete


def _encoded(text: str) -> bytes:
    return text.encode("cp1252", "replace")


def _wrapped(line: str) -> list[str]:
    """Rows of a line; spaces at its beginning are the writer's layout."""
    return textwrap.wrap(line.expandtabs(4), _COLUMNS, drop_whitespace=False, break_on_hyphens=False) or [""]


def _page(content: int) -> bytes:
    box = "/MediaBox [0 0 595 842] /Resources << /Font << /F1 3 0 R >> >>"
    return f"<< /Type /Page /Parent 2 0 R {box} /Contents {content} 0 R >>".encode()


def _stream(rows: Sequence[str]) -> bytes:
    shown = b"".join(b"(%s) Tj T*\n" % _literal(row) for row in rows)
    content = f"BT /F1 {_SIZE} Tf {_LEADING} TL {_LEFT} {_TOP} Td\n".encode() + shown + b"ET"
    return b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content)


def _literal(row: str) -> bytes:
    """A literal string (7.3.4.2): its signs escaped; control characters are no text."""
    plain = "".join(sign if sign.isprintable() else " " for sign in row)
    return _encoded(plain).replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)")


def _file(objects: Sequence[bytes]) -> bytes:
    made = b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n"
    places = []
    for number, content in enumerate(objects, 1):
        places.append(len(made))
        made += b"%d 0 obj\n%s\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % place for place in places)
    size = len(objects) + 1
    trailer = b"trailer\n<< /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (size, len(made))
    return made + b"xref\n0 %d\n0000000000 65535 f \n%s%s" % (size, table, trailer)
