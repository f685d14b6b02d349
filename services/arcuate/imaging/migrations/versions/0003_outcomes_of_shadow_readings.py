"""What people found where a pipeline had read in shadow mode.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

import arcuate.kernel.db.types

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "shadow_outcome",
        sa.Column("id", sa.Integer(), autoincrement=True, nullable=False),
        sa.Column("key", sa.String(), nullable=False),
        sa.Column("outcome", sa.String(), nullable=False),
        sa.Column("by", sa.String(), nullable=False),
        sa.Column("at", arcuate.kernel.db.types.UtcDateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["key"], ["measurement.key"]),
        sa.PrimaryKeyConstraint("id"),
    )
    with op.batch_alter_table("shadow_outcome", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_shadow_outcome_key"), ["key"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("shadow_outcome", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_shadow_outcome_key"))
    op.drop_table("shadow_outcome")
