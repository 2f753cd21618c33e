"""The page of `headwater browse`: documents by verdict, rule, source, language; what another number would change.

It shows a lake's texts, which whoever wrote them may have written for this page: everything is escaped, nothing is
loaded from elsewhere and no script runs. It answers this machine's names alone (`flows.service.guard`), under a path
that whoever started it knows.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

from datalake.errors import UserError
from datalake.explain import curated_by, stories_in
from datalake.lake.corpora import corpora
from datalake.lake.lake import Lake
from datalake.lake.records import read_record
from datalake.printable import printable
from flows.browse.documents import LONGEST, Documents, Filter, paging
from flows.report.words import number
from flows.service.guard import Guard

if TYPE_CHECKING:
    from jinja2 import Environment
    from starlette.types import ASGIApp

    from datalake.curate.config import CurateConfig

CHANGED = 40  # documents shown that a change would gain, and lose
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",  # the address is the password
    "cache-control": "no-store",
}

Row = dict[str, Any]


def application(lake: Lake, token: str) -> ASGIApp:
    """The page of a lake under `/TOKEN/`; all else is refused or not there."""
    browser = Browser(lake, token)
    routes = [Route("/{token}/", browser.documents), Route("/{token}/document", browser.document)]
    return Guard(Starlette(routes=routes), HEADERS)


class Browser:
    """What is asked of one lake. A corpus is opened once for each run that it is shown by."""

    def __init__(self, lake: Lake, token: str):
        self.lake, self.token = lake, token
        self._open: dict[str, Documents] = {}

    def documents(self, request: Request) -> Response:
        """A page of documents, with what-if beside it."""
        return self._answer(request, self._documents)

    def document(self, request: Request) -> Response:
        """One document: its text and what became of it."""
        return self._answer(request, self._document)

    def _answer(self, request: Request, make: Any) -> Response:
        if not secrets.compare_digest(request.path_params["token"].encode(), self.token.encode()):
            return Response(status_code=404)
        try:
            return HTMLResponse(make(request.query_params))
        except UserError as error:
            return HTMLResponse(_templates().get_template("error.html.j2").render(error=str(error)), 400)

    def _corpus(self, name: str) -> tuple[Documents, list[str]]:
        """A corpus as its last run left it (the first one where none is named), and the names of all."""
        shown = {corpus.name: corpus for corpus in corpora(self.lake) if corpus.joined("raw")}
        if not shown:
            raise UserError("no finished run read any documents: run a recipe first")
        corpus = shown.get(name) or next(iter(shown.values()))
        key = f"{corpus.name} {corpus.manifest.run}"
        if key not in self._open:
            self._open[key] = Documents(self.lake, corpus)
        return self._open[key], list(shown)

    def _documents(self, query: Mapping[str, str]) -> str:
        corpus, names = self._corpus(query.get("corpus", ""))
        asked = Filter(**{name: query.get(name, "").strip() for name in Filter.__dataclass_fields__})
        page = int(text) if (text := query.get("page", "")).isdecimal() and len(text) < 9 else 1
        rows, total = corpus.page(asked, max(page, 1))
        config = curated_by(self.lake, corpus.corpus.earlier.get("curation", corpus.corpus.manifest))
        rules = _rules(config) if config and corpus.judged else []
        change = (query.get("change", "") or asked.rule, query.get("to", "").strip())
        return (
            _templates()
            .get_template("documents.html.j2")
            .render(
                corpus=corpus.corpus,
                corpora=names,
                asked=asked,
                facets=corpus.facets(),
                rows=rows,
                total=total,
                page=paging(total, max(page, 1)),
                rules=rules,
                change=change,
                answer=self._what_if(corpus, config, change) if config else None,
                link=lambda **more: _link({"corpus": corpus.corpus.name, **asked.parts, **more}),
            )
        )

    def _what_if(self, corpus: Documents, config: CurateConfig, change: tuple[str, str]) -> Row | None:
        """What another number of a rule would change, or why that can't be told; None where nothing is asked."""
        rule, text = change
        if not rule or not text:
            return None
        from flows.what_if import other_curation

        try:
            to = float(text)
        except ValueError:
            to = math.nan
        if not math.isfinite(to):
            return {"error": f"{text!r} is no number"}
        record = read_record(self.lake, corpus.corpus.tables["curation"].fingerprint)
        if record is None:
            return {"error": "the record of the curation is gone: run the recipe again"}
        changed = config.model_copy(update={"thresholds": {**config.thresholds, rule: to}})
        try:
            return other_curation(self.lake, record, config, changed, CHANGED) | {"to": to}
        except UserError as error:
            return {"error": str(error)}

    def _document(self, query: Mapping[str, str]) -> str:
        corpus, _ = self._corpus(query.get("corpus", ""))
        id = query.get("id", "")
        text, kept = corpus.texts(id)
        [story] = stories_in(self.lake, corpus.corpus, id)
        return (
            _templates()
            .get_template("document.html.j2")
            .render(
                corpus=corpus.corpus,
                story=story,
                text=text[:LONGEST],
                kept=kept[:LONGEST] if kept is not None and kept != text else None,
                longest=LONGEST,
                link=lambda **more: _link({"corpus": corpus.corpus.name, **more}),
            )
        )


def _rules(config: CurateConfig) -> list[Row]:
    """The rules with a number that documents are held to, by the name that `curate.thresholds` takes."""
    from datalake.curate.judge import rules_in_use

    return [
        {"name": f"{rules}/{rule.name}", "rule": rule}
        for rules, rule in rules_in_use(config)
        if rule not in config.own_rules  # their numbers stand in sections of their own
    ]


def _link(parts: Mapping[str, Any]) -> str:
    """A query of these parts, those that are empty left out."""
    return f"?{urlencode({name: value for name, value in parts.items() if value not in ('', None, 0)})}"


def _shown(value: Any) -> str:
    """A text whose marks turn nothing around and whose controls are seen, as in the terminal."""
    return printable(str(value).replace("\r\n", "\n"))


@cache
def _templates() -> Environment:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "shown": _shown}
    return environment
