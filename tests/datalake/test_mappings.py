"""Rows of the named corpora give text, address, time, language, licence and part of the corpus."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from datalake.document import Document, Entry, Quarantined, Refused
from datalake.sources.tables.config import Table
from datalake.sources.tables.mappings import MAPPINGS, at, language_code, recognise, spdx, time_of
from datalake.sources.tables.table import archives, read

TEXT = "The tide came in over the flats, and with it the first boats of the year."
ZH = "春天的潮水漫过滩涂，今年的第一批渔船随之而来，岸上的人们放下手里的活计，纷纷跑到码头去看。"
URL = "https://example.org/tide"
DAY = datetime(2020, 1, 2, tzinfo=UTC)
MORNING = datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC)

# Rows made up in the shape that each corpus publishes: the row, and what must come out of it.
ROWS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("c4", {"text": TEXT, "timestamp": "2019-04-25T12:57:54Z", "url": URL},
     {"uri": URL, "created": datetime(2019, 4, 25, 12, 57, 54, tzinfo=UTC), "licence": "ODC-By-1.0", "language": "en"}),
    ("refinedweb", {"content": TEXT, "url": URL, "timestamp": "2023-02-01T00:00:00", "dump": "CC-MAIN-2023-06",
                    "segment": "1674", "image_urls": [["https://example.org/a.png", "boats"]]},
     {"uri": URL, "created": datetime(2023, 2, 1, tzinfo=UTC), "licence": "ODC-By-1.0", "subset": "CC-MAIN-2023-06",
      "segment": "1674"}),
    ("fineweb", {"text": TEXT, "id": "<urn:uuid:1>", "dump": "CC-MAIN-2024-10", "url": URL,
                 "date": "2024-02-20T01:02:03Z", "file_path": "s3://x.warc.gz", "language": "en",
                 "language_score": 0.93, "token_count": 18},
     {"uri": URL, "created": datetime(2024, 2, 20, 1, 2, 3, tzinfo=UTC), "licence": "ODC-By-1.0", "language": "en",
      "language_score": 0.93, "subset": "CC-MAIN-2024-10", "token_count": "18", "file_path": "s3://x.warc.gz"}),
    ("fineweb2", {"text": ZH, "id": "<urn:uuid:2>", "dump": "CC-MAIN-2019-30", "url": URL,
                  "date": "2019-07-01T00:00:00Z", "file_path": "s3://x", "language": "cmn",
                  "language_score": 0.99, "language_script": "Hani",
                  "minhash_cluster_size": 3, "top_langs": '{"cmn_Hani_score": 0.99}'},
     {"language": "zh", "licence": "ODC-By-1.0", "language_script": "Hani", "minhash_cluster_size": "3"}),
    ("dolma", {"id": "d1", "text": TEXT, "source": "reddit", "added": "2023-05-01T00:00:00.000Z",
               "created": "2020-01-02T03:04:05.000Z", "version": "v1", "metadata": {"url": URL, "subreddit": "tides"}},
     {"uri": URL, "created": datetime(2020, 1, 2, 3, 4, 5, tzinfo=UTC), "licence": "ODC-By-1.0", "subset": "reddit",
      "metadata.subreddit": "tides"}),
    ("dolma", {"id": "d2", "text": TEXT, "source": "stack", "added": "2023-05-01", "created": None,
               "metadata": {"max_stars_repo_licenses": ["MIT", "Apache-2.0"]}},
     {"licence": "Apache-2.0 AND MIT", "created": None}),
    ("pile", {"text": TEXT, "meta": {"pile_set_name": "Wikipedia (en)"}},
     {"licence": None, "subset": "Wikipedia (en)", "uri": "rows.jsonl#0"}),
    ("roots", {"text": TEXT, "meta": f"{{'url': '{URL}', 'source': 'roots_en_tides', 'license': 'cc-by-4.0'}}"},
     {"uri": URL, "licence": "CC-BY-4.0", "subset": "roots_en_tides"}),
    ("chinesewebtext", {"title": "潮", "score": 0.97, "text": ZH, "url": URL, "source_type": "web"},
     {"uri": URL, "licence": "Apache-2.0", "language": "zh", "title": "潮", "score": "0.97", "subset": "web"}),
    ("chinesewebtext", {"text": ZH, "domain": {"single_label": "news", "multi_label": ["news"]},
                        "toxicity": {"label": 0, "score": 1e-05}, "quality_score": 0.96},
     {"licence": "Apache-2.0", "subset": "news", "toxicity.label": "0", "quality_score": "0.96"}),
    ("chinesewebtext", {"url": URL, "date_download": "2022-05-19T09:45:36Z", "digest": "sha1:A", "title": "潮",
                        "raw_content": ZH, "cc_segment": "x.wet.gz", "language": "zh", "language_score": 0.9},
     {"uri": URL, "language": "zh", "created": datetime(2022, 5, 19, 9, 45, 36, tzinfo=UTC), "subset": "x.wet.gz"}),
    ("wanjuan", {"id": "w1", "content": ZH, "title": "潮"}, {"licence": "CC-BY-4.0", "title": "潮", "language": "zh"}),
]  # fmt: skip


def entries(path: Path, **options: object) -> list[Entry]:
    config = Table.model_validate({"paths": [str(path)], **options})
    return [entry for shard in archives(config) for entry in read(shard, config)]


def one(tmp_path: Path, row: Any, **options: object) -> Entry:
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    (entry,) = entries(tmp_path / "rows.jsonl", **options)
    return entry


@pytest.mark.parametrize("how", ["auto", "named"])
@pytest.mark.parametrize(("name", "row", "expected"), ROWS)
def test_a_corpus_is_read_by_name_and_by_its_keys(
    tmp_path: Path, name: str, row: dict[str, Any], expected: dict[str, Any], how: str
) -> None:
    document = one(tmp_path, row, format="auto" if how == "auto" else name)
    assert isinstance(document, Document)
    assert document.text in (TEXT, ZH)
    assert document.attributes["corpus"] == name
    for key, value in expected.items():
        found = getattr(document, key) if hasattr(document, key) else document.attributes.get(key)
        assert found == value, key
    of_collection = document.licence is not None and document.licence == MAPPINGS[name].of_collection
    assert (document.attributes.get("licence_of") == "collection") == of_collection


def test_every_mapping_has_a_row_here() -> None:
    assert {name for name, _, _ in ROWS} | {"openwebtext"} == set(MAPPINGS)


def test_pages_of_one_host_are_held_out_together(tmp_path: Path) -> None:
    document = one(tmp_path, ROWS[0][1], format="c4")
    assert isinstance(document, Document)
    assert document.attributes["group"] == "example.org"


def test_own_columns_and_an_own_licence_come_before_the_corpus(tmp_path: Path) -> None:
    row = {"body": TEXT, "text": "no", "timestamp": "2019-04-25T12:57:54Z", "url": URL}
    document = one(tmp_path, row, format="c4", columns={"text": "body"}, licence="CC0-1.0")
    assert isinstance(document, Document)
    assert (document.text, document.uri, document.licence) == (TEXT, URL, "CC0-1.0")
    assert "licence_of" not in document.attributes


def test_a_licence_that_is_no_spdx_is_kept_apart_and_nothing_takes_its_place(tmp_path: Path) -> None:
    row = {"text": TEXT, "licence": "free for friends of the harbour"}
    document = one(tmp_path, row, licence="MIT")
    assert isinstance(document, Document)
    assert document.licence is None
    assert document.attributes["licence_named"] == "free for friends of the harbour"


def test_openwebtext_texts_and_links(tmp_path: Path) -> None:
    (tmp_path / "0001-abc.txt").write_text(TEXT)
    (tmp_path / "RS_2017.bz2.deduped.txt").write_text(f"{URL}\nhttp://example.org/b\n")
    text, *links = entries(tmp_path, format="openwebtext")
    assert isinstance(text, Document)
    assert (text.text, text.licence) == (TEXT, "CC0-1.0")
    assert [(e.reason, e.uri) for e in links if isinstance(e, Refused)] == [
        ("link", URL),
        ("link", "http://example.org/b"),
    ]
    link = one(tmp_path, {"url": URL, "score": 5, "subreddit": "tides"}, format="openwebtext")
    assert isinstance(link, Refused)
    assert (link.reason, link.uri) == ("link", URL)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("a", 1), ("m.url", "u"), ("m.deep.x", 2), ("m.list.1", "q"), ("m.none", None), ("b", None), ("dot.ted", 3),
        ("b|m.url", "u"), ("none|empty|a", 1), ("title+body", "T\n\nB"), ("title+none", "T"), ("b+c", None),
        ("=en", "en"), ("json.k", "v"), ("python.k", "w"), ("pairs.k", "p"), ("", None), ("a.b", None),
        ("m.list.9", None),
    ],
)  # fmt: skip
def test_paths_lead_to_values(path: str, value: Any) -> None:
    row = {
        "a": 1, "m": {"url": "u", "deep": {"x": 2}, "list": ["p", "q"]}, "dot.ted": 3, "none": None, "empty": "",
        "title": "T", "body": "B", "json": '{"k": "v"}', "python": "{'k': 'w'}", "pairs": [("k", "p")],
    }  # fmt: skip
    assert at(row, path) == value


def test_columns_may_be_nested_constant_or_joined(tmp_path: Path) -> None:
    row = {"head": "Tides", "lines": ["One.", "Two."], "meta": {"key": 7, "lang": "deu_Latn"}}
    columns = {"text": "head+lines", "id": "meta.key", "language": "meta.lang", "licence": "=CC-BY-4.0"}
    document = one(tmp_path, row, columns=columns)
    assert isinstance(document, Document)
    assert (document.text, document.uri) == ("Tides\n\nOne.\nTwo.", "rows.jsonl#7")
    assert (document.language, document.licence) == ("de", "CC-BY-4.0")


@pytest.mark.parametrize(
    ("named", "code"),
    [("en", "en"), ("eng", "en"), ("cmn", "zh"), ("zh-Hans", "zh"), ("deu_Latn", "de"), ("arb", "ar"), ("nob", "no"),
     ("pt-BR", "pt"), ("not a language", None), ("und", None), ("", None), ("ekk", "et")],
)  # fmt: skip
def test_languages_are_named_as_lid_176_names_them(named: str, code: str | None) -> None:
    assert language_code(named) == code


@pytest.mark.parametrize(
    ("named", "licence"),
    [("mit", "MIT"), ("cc-by-sa-4.0", "CC-BY-SA-4.0"), ("CC BY 4.0", "CC-BY-4.0"), ("cc0-1.0", "CC0-1.0"),
     ("https://creativecommons.org/licenses/by-nc-nd/3.0/", "CC-BY-NC-ND-3.0"), ("odc-by", "ODC-By-1.0"),
     (["MIT", "Apache-2.0"], "Apache-2.0 AND MIT"), (["MIT", "ask me"], None), ("CC-BY", None), ("ask me first", None),
     ("GPL-3.0-only WITH Classpath-exception-2.0", "GPL-3.0-only WITH Classpath-exception-2.0"), (None, None),
     (5, None)],
)  # fmt: skip
def test_licences_are_told_in_spdx(named: Any, licence: str | None) -> None:
    assert spdx(named) == licence


@pytest.mark.parametrize(
    ("given", "time"),
    [("2020-01-02", DAY), ("2020-01-02T05:04:05+02:00", MORNING), (date(2020, 1, 2), DAY),
     (1_577_934_245, MORNING), (1_577_934_245_000, MORNING),
     ("yesterday", None), (None, None), (True, None),
     (10**400, None), (float("nan"), None), ("0001-01-01T00:00:00+23:00", None), ([], None)],
)  # fmt: skip
def test_times(given: Any, time: datetime | None) -> None:
    assert time_of(given) == time


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["{'a': 1}", '{"u": [']),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
KEYS = st.sampled_from(
    ["id", "text", "url", "uri", "content", "meta", "metadata", "timestamp", "date", "language", "language_score",
     "licence", "dump", "added", "source", "raw_content", "file_path", "segment", "date_download", "source_type",
     "score", "domain", "toxicity", "quality_score", "lang"]
)  # fmt: skip


@given(
    st.lists(st.dictionaries(KEYS, JSON, max_size=8) | JSON, max_size=5),
    st.sampled_from(["auto", *MAPPINGS, "columns"]),
)
def test_any_rows_give_one_entry_each(tmp_path_factory: pytest.TempPathFactory, rows: list[Any], format: str) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [{}, *rows]))
    found = entries(path, format=format)
    assert len(found) == len(rows) + 1
    assert all(isinstance(entry, Document | Refused | Quarantined) for entry in found)


def test_rows_of_no_corpus_are_not_taken_for_one() -> None:
    assert recognise({"text": "x", "id": 1}) is None
    assert recognise({"text": "x", "meta": "from a friend"}) is None
    assert recognise({}) is None
