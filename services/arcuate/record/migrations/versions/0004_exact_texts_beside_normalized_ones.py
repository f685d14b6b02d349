"""exact texts beside normalized ones

Texts as they were written stood as tokens under `KEY:exact`; now they stand beside the normalized text, in one row for two. What is stored
is carried over, so that it is found as before.

Revision: 0004, after 0003
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_AT_ONCE = 2000  # resources
_LONGEST = 200
_KEPT = 120  # of a longer text, before the hash of the whole
_NO_WORD = re.compile(r"[^\w]+")
_SUFFIX = ":exact"
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

_FIND_TWINS = sa.text(
    "SELECT param, code, number FROM token_index WHERE number >= :low AND number < :high AND param LIKE :twin"
)
_FIND_TEXTS = sa.text("SELECT param, text, number FROM string_index WHERE number >= :low AND number < :high")


def upgrade() -> None:
    connection = op.get_bind()
    _create("string_index_new", with_exact=True)
    insert = sa.text("INSERT INTO string_index_new (param, text, exact, number) VALUES (:param, :text, :exact, :number)")
    for low, high in _ranges(connection):
        span = {"low": low, "high": high}
        texts: dict[tuple[str, int], list[str]] = {}
        for param, text, number in connection.execute(_FIND_TEXTS, span):
            texts.setdefault((param, number), []).append(text)
        rows = set()
        for twin, code, number in connection.execute(_FIND_TWINS, {**span, "twin": f"%{_SUFFIX}"}):
            param = twin.removesuffix(_SUFFIX)
            rows |= {(param, text, code, number) for text in _texts_of(code, texts.get((param, number), []))}
        _insert(connection, insert, [dict(zip(("param", "text", "exact", "number"), row, strict=True)) for row in rows])
    connection.execute(sa.text("DELETE FROM token_index WHERE param LIKE :twin"), {"twin": f"%{_SUFFIX}"})
    _replace(connection)


def downgrade() -> None:
    connection = op.get_bind()
    _create("string_index_new", with_exact=False)
    connection.execute(
        sa.text("INSERT INTO string_index_new (param, text, number) SELECT DISTINCT param, text, number FROM string_index")
    )
    connection.execute(
        sa.text(
            "INSERT INTO token_index (param, code, system, number) "
            "SELECT DISTINCT param || :suffix, exact, '', number FROM string_index"
        ),
        {"suffix": _SUFFIX},
    )
    _replace(connection)


def _create(name: str, *, with_exact: bool) -> None:
    exact = [sa.Column("exact", _TEXT, nullable=False)] if with_exact else []
    op.create_table(
        name,
        sa.Column("param", sa.String(), nullable=False),
        sa.Column("text", _TEXT, nullable=False),
        *exact,
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.PrimaryKeyConstraint("param", "text", *(["exact"] if with_exact else []), "number"),
        sqlite_with_rowid=False,
    )


def _replace(connection: sa.Connection) -> None:
    op.drop_table("string_index")
    op.rename_table("string_index_new", "string_index")
    if connection.dialect.name == "postgresql":
        op.execute("ALTER INDEX string_index_new_pkey RENAME TO string_index_pkey")
    op.create_index("ix_string_number", "string_index", ["number"], unique=False)


def _ranges(connection: sa.Connection) -> Iterator[tuple[int, int]]:
    lowest, highest = connection.execute(sa.text("SELECT min(number), max(number) FROM string_index")).one()
    if lowest is not None:
        yield from ((low, low + _AT_ONCE) for low in range(lowest, highest + 1, _AT_ONCE))


def _insert(connection: sa.Connection, statement: sa.TextClause, rows: Sequence[dict[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)


def _texts_of(code: str, texts: Sequence[str]) -> list[str]:
    """Return which of the normalized texts of a resource belong to a text as it was written."""
    if len(code) <= _LONGEST and (found := _normalized(code)) in texts:
        return [found]
    # Of a long text only the beginning was kept, and its last word may be cut.
    beginning = _normalized(code[:_KEPT])
    return [text for text in texts if beginning and text.startswith(beginning)]


def _normalized(text: str) -> str:
    plain = text.lower()
    if not text.isascii():
        plain = "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))
    if not plain.isalnum():
        plain = " ".join(_NO_WORD.sub(" ", plain).split())
    return plain[:_LONGEST]
