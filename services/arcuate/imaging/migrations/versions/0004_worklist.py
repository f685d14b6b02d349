"""The worklist: Unified Procedure Steps.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

import arcuate.kernel.db.types

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "workitem",
        sa.Column("uid", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("transaction_uid", sa.String(), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("dataset", sa.String(), nullable=False),
        sa.Column("created", arcuate.kernel.db.types.UtcDateTime(timezone=True), nullable=False),
        sa.Column("changed", arcuate.kernel.db.types.UtcDateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("uid"),
    )
    with op.batch_alter_table("workitem", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_workitem_state"), ["state"], unique=False)
        batch_op.create_index(batch_op.f("ix_workitem_created"), ["created"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("workitem", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_workitem_created"))
        batch_op.drop_index(batch_op.f("ix_workitem_state"))
    op.drop_table("workitem")
