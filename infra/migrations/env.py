"""How alembic reaches the store: over the connection it is handed, or by address.

``services.store`` hands over a connection inside a transaction. By hand, for a new revision:
``alembic -c infra/migrations/alembic.ini revision --autogenerate -m "what changes"``.
"""

from alembic import context
from sqlalchemy import Connection

import services.store.alarms
import services.store.approvals
import services.store.ledger
import services.store.pool
import services.store.ratings
import services.store.removals
import services.store.retrainings
import services.store.webhooks  # noqa: F401 - their tables are part of the schema
from services.store.opening import open_engine_to_read, store_url
from services.store.schema import Base


def migrate(connection: Connection) -> None:
    """Run the revisions that are asked for on one connection."""
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


handed_over = context.config.attributes.get("connection")
if handed_over is not None:
    migrate(handed_over)
else:
    with open_engine_to_read(store_url()).connect() as own:
        migrate(own)
