"""What-if: verdicts from stored metrics equal those of curating again, rule by rule, for every preset."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from datalake.curate import curate
from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.curate.judge import COLUMNS, judge, rules_in_use, stored
from datalake.curate.rules_file import PRESETS, compats
from datalake.curate.schema import CURATION
from datalake.curate.what_if import NeedsRerunError, ask, check_edits, columns_needed, draw, tell
from datalake.document import Document, document_id
from datalake.tables import RAW, to_table

GIVEN = (
    "quality",
    "perplexity",
    "pii",
    "toxic_words",
    "toxic_ratio",
)  # missing unless the recipe gives a model or a list
READINGS = [(preset, compat) for preset in PRESETS for compat in ("", *compats(preset))]


def document(text: str, language: str, source: str, score: float, attributes: dict[str, str] | None = None) -> Document:
    name = document_id(source, language, text)
    return Document(name, text, source, f"test:{name.hex()}", language, score, attributes=attributes or {})


def _english(rng: random.Random, lines: int) -> str:
    """Lines of every kind that English rules look at: sentences, bullets, counters, citations, repeats, code."""
    common = ("the", "of", "and", "to", "that", "with", "have", "be")
    made: list[str] = []
    for _ in range(lines):
        words = [rng.choice(common) if rng.random() < 0.4 else _word(rng) for _ in range(rng.randint(4, 20))]
        sentence = " ".join(words).capitalize() + rng.choice(("", ".", ".", ".", "?", "...", " …", "'"))
        kind = rng.random()
        if kind < 0.1 and made:
            made.append(rng.choice(made))
        elif kind < 0.15:
            made.append(f"- {sentence}")
        elif kind < 0.18:
            made.append(f"{sentence} [12] [edit]")
        elif kind < 0.20:
            made.append(rng.choice(("[1] [2] [3]", "1,024 likes", "Read more...", "SHOUTING IN THE STREET", "# # # #")))
        elif kind < 0.21:
            made.append(rng.choice(("Lorem ipsum dolor sit amet.", "if (a) { b }", "Please turn javascript on now.")))
        else:
            made.append(sentence)
        if rng.random() < 0.2:
            made.append("")
    return "\n".join(made)


def _word(rng: random.Random) -> str:
    return "".join(rng.choices("abcdefghijklmnop", k=rng.randint(1, 12)))


def _asian(rng: random.Random, alphabet: str, lines: int, stop: str) -> str:
    made: list[str] = []
    for _ in range(lines):
        if made and rng.random() < 0.15:
            made.append(rng.choice(made))
            continue
        made.append("".join(rng.choices(alphabet, k=rng.randint(3, 40))) + rng.choice(("", stop, stop, "...")))
    return "\n".join(made)


def _code(rng: random.Random, lines: int) -> str:
    made = ["<?xml version='1.0'?>"] if rng.random() < 0.1 else []
    for _ in range(lines):
        made.append(
            rng.choice((f"    {_word(rng)} = {rng.randint(0, 9)}", f"# {_word(rng)} {_word(rng)}", "}}));;" * 20))
        )
    return "\n".join(made)


def documents(seed: int, amount: int) -> pa.Table:
    """Documents in several languages and of several kinds, about half of them kept by any preset."""
    rng = random.Random(seed)
    hans, hant = "的我你在是有人年月日了为与后而学中国北京大水火山石田土一二三", "的我你在是有人年月日為與後學國們來這"
    kana = "のにをはたてがとでしれさアイウエオカキクケコ日本東京人年"
    hangul = "가나다라마바사의는에을한하은를했고 인월로되 서울 사람 "
    made: dict[bytes, Document] = {}
    for _ in range(amount):
        kind = rng.choice(
            ("en", "en", "en", "zh", "ja", "ko", "fr", "th", "code", "wikipedia", "books", "pydoc", "und")
        )
        score, lines = rng.choice((0.3, 0.55, 0.7, 0.95)), rng.choice((1, 2, 5, 12, 25, 40))
        attributes = {}
        language, source = kind, "common_crawl"
        if kind == "zh":
            text = _asian(rng, rng.choice((hans, hans, hant)), lines, "。")
        elif kind == "ja":
            text = _asian(rng, kana, lines, "。")
        elif kind in ("ko", "th"):
            text = _asian(rng, hangul if kind == "ko" else "กขคงจฉชซญดตถทธนบปผฝพ ", lines, ".")
        elif kind == "code":
            language, source, text = "und", rng.choice(("code", "mine")), _code(rng, lines)
            attributes = {"programming_language": rng.choice(("Python", "HTML", "JSON", "Java"))}
        else:
            text = _english(rng, lines)
            if kind in ("wikipedia", "books", "pydoc"):
                language, source = "en", kind
        one = document(text, language, source, score, attributes)
        made[one.id] = one
    for text in ("", " \n\n ", "[1] [2] [3]\n[4] [5] [6]", "[edit] [1] [2]"):
        for language in ("en", "zh"):
            one = document(text, language, "common_crawl", 0.9)
            made[one.id] = one
    return to_table(list(made.values()), RAW)


@pytest.fixture(scope="module", autouse=True)
def measured_once() -> Iterator[None]:
    """Metrics don't depend on thresholds: each text is measured once, however often it is curated again."""
    measure = cache(curate.measure_array)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(curate, "measure_array", lambda *text: tuple(part.copy() for part in measure(*text)))
        yield


@pytest.fixture(scope="module")
def raw() -> pa.Table:
    return documents(5, 150)


def config(preset: str, **more: object) -> CurateConfig:
    return CurateConfig.model_validate({"preset": preset, "kinds": {"mine": "code"}, **more})


def assert_equal(curation: pa.Table, raw: pa.Table, base: CurateConfig, changed: CurateConfig) -> int:
    """The answer is that of a rerun in every column; returns how many documents change sides."""
    before, after = ask(curation, base, changed)
    again, kept = curate_batch(raw, changed)
    found = after.columns()
    for name in COLUMNS:
        assert found[name].to_pylist() == again[name].to_pylist(), name
    ids = curation["id"].filter(pa.array(after.kept)).to_pylist()
    assert ids == kept["id"].to_pylist()
    return int(np.sum(before.kept != after.kept))


def moved(values: list[float], threshold: float) -> list[float]:
    """Thresholds on both sides of some documents' values, those values themselves among them."""
    other = sorted({value for value in values if value != threshold})
    return [other[0], other[len(other) // 2], other[-1] + 1] if other else []


def opened(base: CurateConfig, but: tuple[str, str]) -> dict[str, float]:
    """Thresholds that let everything pass, for all rules but one."""
    wide = {"<": 1e9, "<=": 1e9, ">": -1e9, ">=": -1e9}
    rules = [(s, rule) for s, rule in rules_in_use(base) if (s, rule.name) != but]
    return {f"{s}/{rule.name}": wide.get(rule.op, rule.threshold) for s, rule in rules}


@pytest.mark.parametrize(
    ("preset", "compat"),
    [
        pytest.param(preset, compat, marks=[pytest.mark.slow] if compat or preset in ("dclm", "fineweb2") else [])
        for preset, compat in READINGS
    ],
)
def test_every_rule_of_every_preset_is_answered_as_by_a_rerun(raw: pa.Table, preset: str, compat: str) -> None:
    base = config(preset, compat=compat)
    curation, _ = curate_batch(raw, base)
    assert stored(curation).columns().to_pylist() == curation.select(COLUMNS).to_pylist()
    for rule_set, rule in rules_in_use(base):
        name = f"{rule_set}/{rule.name}"
        own = pc.equal(curation["rule_set"], rule_set)
        mine, here = raw.filter(own), curation.filter(own)
        of_rule = here.filter(pc.is_in(here["language"], pa.array(rule.languages))) if rule.languages else here
        values = [value for value in of_rule[rule.metric].to_pylist() if value is not None]
        # With the other rules as they are, and alone: then some document must change sides.
        others = opened(base, (rule_set, rule.name))
        alone = config(preset, compat=compat, thresholds=others)
        alone_here, _ = curate_batch(mine, alone)
        changes = 0
        for threshold in moved(values, rule.threshold):
            assert_equal(here, mine, base, config(preset, compat=compat, thresholds={name: threshold}))
            changed = config(preset, compat=compat, thresholds=others | {name: threshold})
            changes += assert_equal(alone_here, mine, alone, changed)
        assert changes or len(set(values)) < 2, name
        assert values or rule.metric in GIVEN or rule.languages, f"no document has {rule.metric}"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"preset": "auto"}, {"preset": "auto", "languages": ["en", "ja"]}),
        ({"preset": "auto", "languages": ["zh"]}, {"preset": "auto"}),
        ({"preset": "auto", "languages": ["zh"]}, {"preset": "auto", "languages": ["fr", "und"]}),
        ({"preset": "gopher"}, {"preset": "dolma"}),
        ({"preset": "ccnet"}, {"preset": "chinesewebtext"}),
        ({"preset": "gopher"}, {"preset": "gopher", "compat": "datatrove"}),
        ({"preset": "fineweb"}, {"preset": "fineweb", "compat": "paper"}),
        ({"preset": "code"}, {"preset": "code", "compat": "starcoder"}),
        ({"preset": "refinedweb"}, {"preset": "dclm", "thresholds": {"max_removed": 0.5, "min_words": 5}}),
        ({"preset": "auto", "thresholds": {"wiki/min_words": 100}}, {"preset": "auto", "thresholds": {"min_words": 5}}),
        (
            {"preset": "auto", "kinds": {"mine": "code"}, "thresholds": {"wiki/min_words": 5}},
            {
                "preset": "auto",
                "kinds": {"mine": "code", "books": "wikipedia"},
                "thresholds": {"wiki/min_words": 5},
            },
        ),
    ],
)
def test_presets_languages_and_kinds_are_answered_as_by_a_rerun(
    raw: pa.Table, before: dict[str, object], after: dict[str, object]
) -> None:
    base, changed = (CurateConfig.model_validate(c) for c in (before, after))
    curation, _ = curate_batch(raw, base)
    assert assert_equal(curation, raw, base, changed) > 0


def test_numbers_of_the_recipes_own_rules_are_answered_as_by_a_rerun(raw: pa.Table, tmp_path: Path) -> None:
    texts = [text for text in raw["text"].to_pylist() if len(text.split()) > 40]
    rows = [{"text": " ".join(text.split()[: 14 + 6 * k])} for k, text in enumerate(texts[:12])]
    (tmp_path / "asked.jsonl").write_text("\n".join(map(json.dumps, rows)))

    def asked(share: float, **more: int) -> CurateConfig:
        return config("none", decontaminate={"paths": [str(tmp_path / "asked.jsonl")], "share": share, **more})

    curation, _ = curate_batch(raw, asked(0.0))
    assert sum(name == "contaminated" for name in curation["rule"].to_pylist()) >= 10
    shares = sorted({share for share in curation["contaminated_share"].to_pylist() if share})
    changes = [assert_equal(curation, raw, asked(0.0), asked(share)) for share in (*shares[::3], 1.0)]
    assert changes == sorted(changes)
    assert changes[-1] > changes[0] > 0
    with pytest.raises(NeedsRerunError, match=r"curate.decontaminate.ngram"):
        check_edits(curation, asked(0.0), asked(0.0, ngram=8))


@pytest.mark.parametrize("preset", ["c4", "fineweb", "auto"])
def test_a_document_that_edits_empty_is_known_without_its_text(raw: pa.Table, preset: str) -> None:
    strict = config(preset, thresholds={"min_sentences": 1e6} if preset == "c4" else {"min_words": 1e6})
    everything = opened(config(preset), ("", ""))
    curation, _ = curate_batch(raw, strict)
    changed = config(preset, thresholds=everything)
    assert_equal(curation, raw, strict, changed)
    _, after = ask(curation, strict, changed)
    emptied = {row["rule"] for row in after.columns().to_pylist()}
    assert "empty_after_edits" in emptied
    lines = curation.filter(pa.array([rule == "empty_after_edits" for rule in after.columns()["rule"].to_pylist()]))
    if preset != "c4":
        kept_lines = [row["fw_lines"] for row in lines.to_pylist() if row["language"] == "en" and row["chars"] > 5]
        assert max(kept_lines, default=0) > 0, "lines of citations alone were kept and are nothing without them"


def test_snippets_that_may_leave_nothing_need_a_rerun_unless_the_row_tells() -> None:
    gone = document("Read more...\nRead more...", "en", "common_crawl", 0.9)
    table = to_table([gone], RAW)
    wide = opened(config("refinedweb"), ("", ""))
    strict = config("refinedweb", thresholds=wide | {"refinedweb/min_words": 50})
    curation, _ = curate_batch(table, strict)
    with pytest.raises(NeedsRerunError, match="line edits of refinedweb leave of 1 document that"):
        ask(curation, strict, config("refinedweb", thresholds=wide))
    passed, _ = curate_batch(table, config("refinedweb", thresholds=wide))
    assert passed["rule"].to_pylist() == ["empty_after_edits"]
    assert_equal(
        passed,
        table,
        config("refinedweb", thresholds=wide),
        config("refinedweb", thresholds=wide | {"refinedweb/min_words": 1}),
    )


@pytest.mark.parametrize(
    ("before", "after", "why"),
    [
        ({"preset": "auto"}, {"preset": "none"}, "curate.preset repairs text in another way"),
        ({"preset": "gopher"}, {"preset": "refinedweb"}, "curate.preset repairs text in another way"),
        ({"preset": "gopher"}, {"preset": "c4"}, "curate.preset edits lines in another way"),
        ({"preset": "c4"}, {"preset": "c4", "compat": "paper"}, "curate.compat edits lines in another way"),
        ({"preset": "ccnet"}, {"preset": "ccnet", "kinds": {"mine": "code"}}, "curate.kinds measures a source as code"),
    ],
)
def test_what_edits_text_needs_a_rerun(
    raw: pa.Table, before: dict[str, object], after: dict[str, object], why: str
) -> None:
    base, changed = (CurateConfig.model_validate(c) for c in (before, after))
    curation, _ = curate_batch(raw, base)
    with pytest.raises(NeedsRerunError, match=why) as caught:
        ask(curation, base, changed)
    assert "\n" not in str(caught.value)


def test_edits_of_english_matter_to_no_one_where_there_is_none(raw: pa.Table) -> None:
    others = raw.filter(pc.not_equal(raw["language"], "en"))
    base, changed = config("gopher"), config("c4")
    curation, _ = curate_batch(others, base)
    assert_equal(curation, others, base, changed)


def test_verdicts_of_other_rules_than_the_recipes_are_found_out(raw: pa.Table) -> None:
    curation, _ = curate_batch(raw, config("gopher", thresholds={"min_words": 49}))
    with pytest.raises(NeedsRerunError, match="another version of the rules"):
        ask(curation, config("gopher", thresholds={"min_words": 20}), config("gopher"))


def test_the_answer_counts_by_source_language_and_rule(raw: pa.Table) -> None:
    base, changed = config("auto"), config("auto", thresholds={"min_words": 5, "max_char_dup": 0.0})
    curation, _ = curate_batch(raw, base)
    again, _ = curate_batch(raw, changed)
    answer = tell(curation, *ask(curation, base, changed), examples=3, seed=1)
    old, new = curation.to_pylist(), again.to_pylist()
    assert (answer["documents"], answer["before"], answer["after"]) == (
        len(old),
        sum(row["verdict"] == "kept" for row in old),
        sum(row["verdict"] == "kept" for row in new),
    )
    both = list(zip(old, new, strict=True))
    gained = [(o, n) for o, n in both if o["rule"] and not n["rule"]]
    lost = [(o, n) for o, n in both if n["rule"] and not o["rule"]]
    assert gained
    assert lost
    assert (answer["gained"], answer["lost"]) == (len(gained), len(lost))
    for column, key in (("source", "sources"), ("language", "languages")):
        for row in answer[key]:
            assert row["documents"] == sum(o[column] == row["name"] for o in old)
            assert row["before"] == sum(o[column] == row["name"] and not o["rule"] for o in old)
            assert row["after"] == sum(n[column] == row["name"] and not n["rule"] for n in new)
            assert row["gained"] == sum(o[column] == row["name"] for o, _ in gained)
            assert row["lost"] == sum(o[column] == row["name"] for o, _ in lost)
    for row in answer["rules"]:
        name = row["rule"]
        assert row["rejects_before"] == sum(o["rule"] == name for o in old)
        assert row["rejects_after"] == sum(n["rule"] == name for n in new)
        assert row["fails_before"] == sum(name in o["rules"] for o in old)
        assert row["fails_after"] == sum(name in n["rules"] for n in new)
        assert row["gained"] == sum(o["rule"] == name for o, _ in gained)
        assert row["lost"] == sum(n["rule"] == name for _, n in lost)
    for side, pairs in (("gained", gained), ("lost", lost)):
        shown = answer["examples"][side]
        assert len(shown) == min(3, len(pairs))
        known = {(o if side == "gained" else n)["id"]: (o if side == "gained" else n)["rules"] for o, n in pairs}
        assert all(known[one["id"]] == one["rules"] for one in shown)


def test_a_sample_is_of_the_documents_whatever_their_order(raw: pa.Table) -> None:
    chosen = np.ones(raw.num_rows, np.bool_)
    ids = raw["id"]
    first = {ids[row].as_py() for row in draw(ids, chosen, 7, 3)}
    assert len(first) == 7
    turned = pa.chunked_array([ids.combine_chunks()[50:], ids.combine_chunks()[:50]])
    assert {turned[row].as_py() for row in draw(turned, chosen, 7, 3)} == first
    assert {ids[row].as_py() for row in draw(ids, chosen, 7, 4)} != first


def test_only_the_columns_that_rules_ask_for_are_needed(raw: pa.Table) -> None:
    base, changed = config("auto"), config("auto", thresholds={"wiki/min_words": 10})
    curation, _ = curate_batch(raw, base)
    pairs = list(zip(curation["source"].to_pylist(), curation["language"].to_pylist(), strict=True))
    few = curation.select(columns_needed(base, changed, groups=set(pairs)))
    assert few.num_columns < len(CURATION) - 20
    for found, whole in zip(ask(few, base, changed), ask(curation, base, changed), strict=True):
        assert found.columns().equals(whole.columns())
    with pytest.raises(NeedsRerunError, match="no metric words"):
        judge(few.drop(["words"]), base)


def test_an_empty_table_has_an_answer() -> None:
    empty = CURATION.empty_table()
    answer = tell(empty, *ask(empty, config("auto"), config("auto", thresholds={"min_words": 5})))
    assert (answer["documents"], answer["gained"], answer["rules"]) == (0, 0, [])
    check_edits(empty, config("auto"), config("none"))
