"""sending halted

Revision: 0003, after 0002
"""

import sqlalchemy as sa
import sqlmodel
from alembic import op

import arcuate.kernel.db.types

revision = '0003'
down_revision = '0002'
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table('halt',
    sa.Column('id', sa.Integer(), nullable=False),
    sa.Column('since', arcuate.kernel.db.types.UtcDateTime(), nullable=False),
    sa.Column('reason', sqlmodel.sql.sqltypes.AutoString(), nullable=False),
    sa.PrimaryKeyConstraint('id')
    )


def downgrade() -> None:
    op.drop_table('halt')
