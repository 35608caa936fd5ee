"""The driver that writes to a study, and until when it has the study to itself.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nasattn_study", sa.Column("driver", sa.String(255), nullable=True))
    op.add_column("nasattn_study", sa.Column("driver_until", sa.BigInteger(), nullable=True))
