"""The accuracy of a trial on the test images, which no search sees.

Revision ID: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nasattn_evaluation", sa.Column("held_out", sa.Double(), nullable=True))
