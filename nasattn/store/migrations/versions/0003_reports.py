"""Reports about a study as a whole, such as how far its proxy can be trusted, and what a training's device made necessary.

Revision ID: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("nasattn_evaluation", sa.Column("notes", sa.JSON(), nullable=True))
    op.create_table(
        "nasattn_report",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=64), nullable=False),
        sa.Column("content", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["nasattn_study.id"], name=op.f("fk_nasattn_report_study_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_nasattn_report")),
    )
    op.create_index(op.f("ix_nasattn_report_study_id"), "nasattn_report", ["study_id"], unique=False)
