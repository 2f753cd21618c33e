"""Transactions of Prefect's server in SQLite that queue for the database, where they would fail each other.

Prefect begins most of them deferred: they read first and ask for the right to write when they come to it. Where another
one has written in between, SQLite ends them at once, whatever the time-out (SQLITE_BUSY_SNAPSHOT, https://sqlite.org/
isolation.html), and the server answers 503. Prefect's client asks again; its pages don't, and whoever presses "Submit"
reads "Something went wrong". Begun as writers, they wait their turn.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import set_database_config
from prefect.settings import PREFECT_API_DATABASE_CONNECTION_URL

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncSession, AsyncSessionTransaction


class Queueing(AioSqliteConfiguration):
    """Prefect's own SQLite, but each transaction is a writer from its first statement."""

    @asynccontextmanager
    async def begin_transaction(
        self, session: AsyncSession, with_for_update: bool = True
    ) -> AsyncGenerator[AsyncSessionTransaction, None]:
        """What a session does in its block, whether or not it asked for the right to write at first."""
        async with super().begin_transaction(session, with_for_update=True) as transaction:
            yield transaction


def queue_for_sqlite() -> None:
    """Make this process's server use it; other databases have locks by row and stay as they are."""
    address = PREFECT_API_DATABASE_CONNECTION_URL.value()
    if address and address.startswith("sqlite"):
        set_database_config(Queueing(connection_url=address))
