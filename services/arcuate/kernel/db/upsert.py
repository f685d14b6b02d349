"""Insert or update in one statement: reading first and then writing loses against another writer on PostgreSQL."""

from collections.abc import Mapping
from typing import Any

from sqlalchemy.dialects import postgresql, sqlite
from sqlmodel import Session, SQLModel


def upsert(session: Session, table: type[SQLModel], key: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Write the row with this key, whether it stands already or not; with no `values` only its presence matters.

    Args:
        table: The table's class.
        key: The columns of its primary key, or of a unique constraint, with their values.
        values: The other columns.
    """
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    statement = insert(table).values(**key, **values)
    if values:
        session.execute(statement.on_conflict_do_update(index_elements=list(key), set_=dict(values)))
    else:
        session.execute(statement.on_conflict_do_nothing(index_elements=list(key)))
