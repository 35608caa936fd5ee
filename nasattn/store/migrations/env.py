"""alembic's entry: runs the migrations on the connection that the store hands over."""

from __future__ import annotations

from alembic import context

from nasattn.store.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=context.config.get_main_option("version_table"),
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
