"""The additive latency table, what a measurement says of itself, and the constraints of each trial.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def measured() -> list[sa.Column]:
    """What a paired measurement says of itself besides its ratio."""
    return [
        sa.Column("ms_p90", sa.Double(), nullable=True),
        sa.Column("baseline_ms_p90", sa.Double(), nullable=True),
        sa.Column("device_ms", sa.Double(), nullable=True),
        sa.Column("baseline_device_ms", sa.Double(), nullable=True),
        sa.Column("calibration", sa.Double(), nullable=True),
        sa.Column("contention", sa.Text(), nullable=True),
        sa.Column("environment", sa.JSON(), nullable=True),
    ]


def upgrade() -> None:
    for column in measured():
        op.add_column("nasattn_latency", column)
    op.add_column("nasattn_latency", sa.Column("method", sa.String(length=16), server_default="pair", nullable=False))
    op.add_column("nasattn_evaluation", sa.Column("constraints", sa.JSON(), nullable=True))
    op.create_table(
        "nasattn_latency_entry",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("device_key", sa.String(length=500), nullable=False),
        sa.Column("stage", sa.Integer(), nullable=False),
        sa.Column("attention", sa.String(length=255), nullable=False),
        sa.Column("ms", sa.Double(), nullable=False),
        sa.Column("baseline_ms", sa.Double(), nullable=False),
        sa.Column("ratio", sa.Double(), nullable=False),
        sa.Column("ratio_low", sa.Double(), nullable=False),
        sa.Column("ratio_high", sa.Double(), nullable=False),
        sa.Column("pairs", sa.Integer(), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("exclusive", sa.Boolean(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        *measured(),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nasattn_latency_entry")),
    )
    op.create_index(op.f("ix_nasattn_latency_entry_host"), "nasattn_latency_entry", ["host"], unique=False)
    op.create_index(op.f("ix_nasattn_latency_entry_device_key"), "nasattn_latency_entry", ["device_key"], unique=False)
