"""What an origin gives its entries: ids, addresses, licences, languages."""

from __future__ import annotations

from datalake.archive import Archive
from datalake.document import document_id
from datalake.origin import Origin, Stretch
from datalake.sources.code.config import Code
from datalake.sources.tables.config import Table

HERE = Stretch(3, 5)
TEXT = "The river crossed the bridge near the quiet village, and nobody knew why."


def test_an_entry_says_where_it_comes_from() -> None:
    origin = Table(paths=["x"], name="mine", licence="MIT").origin(Archive("table", "a.jsonl", "/x/a.jsonl"))
    document = origin.document(HERE, "7", TEXT, {"k": "v"})
    assert (document.id, document.uri) == (document_id("table", "a.jsonl", "7"), "a.jsonl#7")
    assert (document.source, document.archive, document.offset, document.length) == ("mine", "a.jsonl", 3, 5)
    assert (document.language, document.licence, document.attributes) == ("en", "MIT", {"k": "v"})
    refused = origin.within("b.jsonl").refused(HERE, "7", "empty")
    assert (refused.id, refused.uri, refused.language) == (document_id("table", "b.jsonl", "7"), "b.jsonl#7", "und")
    lost = origin.quarantined(HERE, "json", "a brace too many")
    assert (lost.source, lost.archive, lost.reason, lost.offset, lost.length) == ("mine", "a.jsonl", "json", 3, 5)


def test_what_a_record_says_goes_before_what_its_origin_does() -> None:
    origin = Table(paths=["x"], licence="MIT").origin(Archive("table", "a", "/a"))
    document = origin.document(HERE, "7", TEXT, {}, uri="", licence=None, language=("de", 0.5))
    assert (document.uri, document.licence, document.language, document.language_score) == ("", None, "de", 0.5)


def test_dialogues_are_in_the_language_of_what_is_said_in_them() -> None:
    origin = Table(paths=["x"]).origin(Archive("table", "a", "/a"))
    system = {"role": "system", "content": "Antworte immer auf Deutsch, und zwar so, dass es jeder gut versteht."}
    question = {"role": "user", "content": TEXT}
    assert origin.conversation(HERE, "1", [system, question], {}).language == "en"
    assert origin.preference(HERE, "1", [system], TEXT, None, {}).language == "en"


def test_a_source_that_asks_for_no_language_has_none() -> None:
    document = Code(paths=["x"]).origin(Archive("code", "a", "/a")).document(HERE, "1", TEXT, {})
    assert (document.language, document.language_score) == ("und", 0.0)
    assert Origin("s", "k", "a").language_of(TEXT) == ("und", 0.0)
