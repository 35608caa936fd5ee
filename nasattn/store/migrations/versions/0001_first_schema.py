"""The first schema.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "nasattn_architecture",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("host", sa.String(length=255), nullable=False),
        sa.Column("placement", sa.String(length=1000), nullable=False),
        sa.Column("params", sa.BigInteger(), nullable=False),
        sa.Column("macs", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nasattn_architecture")),
        sa.UniqueConstraint("host", "placement", name=op.f("uq_nasattn_architecture_host")),
    )
    op.create_table(
        "nasattn_study",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=255), nullable=False),
        sa.Column("config", sa.JSON(), nullable=False),
        sa.Column("versions", sa.JSON(), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nasattn_study")),
        sa.UniqueConstraint("name", name=op.f("uq_nasattn_study_name")),
    )
    op.create_table(
        "nasattn_front",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("tier", sa.String(length=16), nullable=False),
        sa.Column("p_member", sa.Double(), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["nasattn_study.id"], name=op.f("fk_nasattn_front_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nasattn_front")),
        sa.UniqueConstraint("study_id", "trial", name=op.f("uq_nasattn_front_study_id")),
    )
    op.create_index(op.f("ix_nasattn_front_study_id"), "nasattn_front", ["study_id"], unique=False)
    op.create_table(
        "nasattn_latency",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("architecture_id", sa.Integer(), nullable=False),
        sa.Column("device_key", sa.String(length=500), nullable=False),
        sa.Column("ms", sa.Double(), nullable=False),
        sa.Column("baseline_ms", sa.Double(), nullable=False),
        sa.Column("ratio", sa.Double(), nullable=False),
        sa.Column("ratio_low", sa.Double(), nullable=False),
        sa.Column("ratio_high", sa.Double(), nullable=False),
        sa.Column("pairs", sa.Integer(), nullable=False),
        sa.Column("settled", sa.Boolean(), nullable=False),
        sa.Column("exclusive", sa.Boolean(), nullable=False),
        sa.Column("measured_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["architecture_id"], ["nasattn_architecture.id"], name=op.f("fk_nasattn_latency_architecture_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nasattn_latency")),
    )
    op.create_index(op.f("ix_nasattn_latency_architecture_id"), "nasattn_latency", ["architecture_id"], unique=False)
    op.create_index(op.f("ix_nasattn_latency_device_key"), "nasattn_latency", ["device_key"], unique=False)
    op.create_table(
        "nasattn_evaluation",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("trial", sa.Integer(), nullable=False),
        sa.Column("architecture_id", sa.Integer(), nullable=False),
        sa.Column("latency_id", sa.Integer(), nullable=True),
        sa.Column("identity", sa.String(length=64), nullable=False),
        sa.Column("state", sa.String(length=16), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("fidelity", sa.JSON(), nullable=False),
        sa.Column("accuracy", sa.Double(), nullable=True),
        sa.Column("val_samples", sa.Integer(), nullable=True),
        sa.Column("curve", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=True),
        sa.Column("worker", sa.String(length=255), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("reused_from", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["architecture_id"], ["nasattn_architecture.id"], name=op.f("fk_nasattn_evaluation_architecture_id")),
        sa.ForeignKeyConstraint(["latency_id"], ["nasattn_latency.id"], name=op.f("fk_nasattn_evaluation_latency_id")),
        sa.ForeignKeyConstraint(["reused_from"], ["nasattn_evaluation.id"], name=op.f("fk_nasattn_evaluation_reused_from")),
        sa.ForeignKeyConstraint(["study_id"], ["nasattn_study.id"], name=op.f("fk_nasattn_evaluation_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nasattn_evaluation")),
        sa.UniqueConstraint("study_id", "trial", name=op.f("uq_nasattn_evaluation_study_id")),
    )
    op.create_index(op.f("ix_nasattn_evaluation_architecture_id"), "nasattn_evaluation", ["architecture_id"], unique=False)
    op.create_index(op.f("ix_nasattn_evaluation_identity"), "nasattn_evaluation", ["identity"], unique=False)
    op.create_index(op.f("ix_nasattn_evaluation_state"), "nasattn_evaluation", ["state"], unique=False)
    op.create_index(op.f("ix_nasattn_evaluation_study_id"), "nasattn_evaluation", ["study_id"], unique=False)
