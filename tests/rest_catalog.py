"""A server of Iceberg's REST catalog for tests: what its specification asks of one, over pyiceberg's catalog in SQLite.

Only what a client needs that keeps tables: configuration, namespaces, tables, commits. Whether a commit's requirements
hold is decided by pyiceberg's own catalog, one commit at a time.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from pyiceberg.catalog.rest import CreateTableRequest
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.exceptions import (
    CommitFailedException,
    NamespaceAlreadyExistsError,
    NoSuchNamespaceError,
    NoSuchTableError,
    TableAlreadyExistsError,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import CommitTableRequest, Table
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

STATUS = {
    NoSuchNamespaceError: 404,
    NoSuchTableError: 404,
    NamespaceAlreadyExistsError: 409,
    TableAlreadyExistsError: 409,
    CommitFailedException: 409,
}


class Server:
    """An ASGI application. While `broken` it answers 500 to everything; `conflicts` counts the commits it refused."""

    def __init__(self, folder: Path) -> None:
        options = {"py-io-impl": "datalake.lake.store_io.StoreIO", "warehouse": f"{folder}/warehouse"}
        self.catalog = SqlCatalog("server", uri=f"sqlite:///{folder}/rest.db", **options)
        self.broken = False
        self.conflicts = self.commits = 0
        self._one = threading.Lock()
        table = "/v1/namespaces/{namespace}/tables/{table}"
        routes = [
            ("/v1/config", "GET", self._config),
            ("/v1/namespaces", "GET", self._namespaces),
            ("/v1/namespaces", "POST", self._create_namespace),
            ("/v1/namespaces/{namespace}", "GET", self._namespace),
            ("/v1/namespaces/{namespace}/tables", "GET", self._tables),
            ("/v1/namespaces/{namespace}/tables", "POST", self._create_table),
            (table, "GET", self._load),
            (table, "POST", self._commit),
            (table, "DELETE", self._drop),
        ]
        self.app = Starlette(routes=[Route(path, self._answer(do), methods=[method]) for path, method, do in routes])

    def _answer(self, do: Any) -> Any:
        async def answer(request: Request) -> Response:
            if self.broken:
                return _error(500, RuntimeError("out of order"))
            body = await request.body()
            try:
                return await run_in_threadpool(do, request, body)
            except tuple(STATUS) as error:
                return _error(STATUS[type(error)], error)

        return answer

    def _config(self, request: Request, body: bytes) -> Response:
        return JSONResponse({"defaults": {}, "overrides": {}})

    def _namespaces(self, request: Request, body: bytes) -> Response:
        return JSONResponse({"namespaces": self.catalog.list_namespaces()})

    def _create_namespace(self, request: Request, body: bytes) -> Response:
        import json

        asked = json.loads(body)
        with self._one:
            self.catalog.create_namespace(tuple(asked["namespace"]), asked.get("properties", {}))
        return JSONResponse({"namespace": asked["namespace"], "properties": {}})

    def _namespace(self, request: Request, body: bytes) -> Response:
        name = request.path_params["namespace"]
        return JSONResponse({"namespace": [name], "properties": self.catalog.load_namespace_properties(name)})

    def _tables(self, request: Request, body: bytes) -> Response:
        names = self.catalog.list_tables(request.path_params["namespace"])
        return JSONResponse({"identifiers": [{"namespace": list(name[:-1]), "name": name[-1]} for name in names]})

    def _create_table(self, request: Request, body: bytes) -> Response:
        asked = CreateTableRequest.model_validate_json(body)
        with self._one:
            made = self.catalog.create_table(
                (request.path_params["namespace"], asked.name),
                asked.table_schema,
                asked.location,
                asked.partition_spec or UNPARTITIONED_PARTITION_SPEC,
                asked.write_order or UNSORTED_SORT_ORDER,
                asked.properties,
            )
        return _shown(made)

    def _load(self, request: Request, body: bytes) -> Response:
        return _shown(self.catalog.load_table(_name(request)))

    def _commit(self, request: Request, body: bytes) -> Response:
        asked = CommitTableRequest.model_validate_json(body)
        try:
            with self._one:
                found = self.catalog.load_table(_name(request))
                done = self.catalog.commit_table(found, asked.requirements, asked.updates)
        except CommitFailedException:
            self.conflicts += 1
            raise
        self.commits += 1
        return Response(done.model_dump_json(by_alias=True), media_type="application/json")

    def _drop(self, request: Request, body: bytes) -> Response:
        with self._one:
            self.catalog.drop_table(_name(request))
        return Response(status_code=204)


def _name(request: Request) -> tuple[str, str]:
    return request.path_params["namespace"], request.path_params["table"]


def _shown(table: Table) -> Response:
    metadata = table.metadata.model_dump_json(by_alias=True)
    body = f'{{"metadata-location": "{table.metadata_location}", "metadata": {metadata}}}'
    return Response(body, media_type="application/json")


def _error(status: int, error: Exception) -> Response:
    about = {"message": str(error), "type": type(error).__name__, "code": status}
    return JSONResponse({"error": about}, status)
