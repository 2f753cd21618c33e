"""Thresholds from the corpus in whole runs: proposed, shown, taken by the next curation, and done once."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import pytest
import world
import yaml

from datalake.lake.lake import Lake
from datalake.lake.records import StageRecord, read_record

_WORDS = """我们 昨天 学校 老师 朋友 城市 河边 春天 图书 历史 音乐 画家 故事 孩子 母亲 早晨 天气 山上 花园 市场 火车
窗户 大海 研究 问题 发展 文化 经济 社会 生活 工作 时间 地方 世界 国家 人民 科学 技术 自然 语言 电影 新闻 医生
""".split()  # noqa: SIM905
_VERBS = """看见 喜欢 讨论 帮助 参加 学习 记得 描写 收集 保护 打开 完成 改变 发现 准备 介绍 离开 建造 相信 选择
""".split()  # noqa: SIM905


def chinese(seed: int, sentences: int) -> str:
    """Chinese sentences of common words."""
    draw = random.Random(seed)
    made = []
    for _ in range(sentences):
        a, b, c, d = draw.sample(_WORDS, 4)
        v, w = draw.sample(_VERBS, 2)
        made.append(f"{a}和{b}在{c}的时候{v}了{d}，后来他们也{w}了{draw.choice(_WORDS)}。")
    return "\n".join("".join(made[i : i + 3]) for i in range(0, len(made), 3))


@pytest.fixture(scope="module", autouse=True)
def _server(prefect_server: Any) -> None:
    """Every test here runs flows."""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """30 English and 24 Chinese documents of various lengths, and 3 in French."""
    folder = tmp_path_factory.mktemp("two")
    french = "Le vieux pont de la ville a été réparé par les habitants du village voisin après la grande crue. "
    rows = [{"id": f"en{n}", "text": world.prose(n, 4 + n)} for n in range(30)]
    rows += [{"id": f"zh{n}", "text": chinese(n, 3 + 2 * n)} for n in range(24)]
    rows += [{"id": f"fr{n}", "text": french * (n + 4)} for n in range(3)]
    files = [world.jsonl(folder / f"{k}.jsonl", rows[k::2]) for k in range(2)]
    section = {"method": "quantile", "cut": 0.1, "min_documents": 20}
    return world.tables(folder, files, curate={"preset": "auto"}, thresholds=section)


@pytest.fixture(scope="module")
def done(recipe: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    lake = tmp_path_factory.mktemp("lake") / "lake"
    return lake, world.run(recipe, lake, "thresholds")


def record(lake: Path, report: Any) -> StageRecord:
    found = read_record(Lake(lake), report.fingerprint)
    assert found is not None
    return found


def rules_of(done: tuple[Path, dict[str, Any]]) -> Path:
    lake, reports = done
    return world.folder_of(lake, reports["thresholds"], "thresholds") / "rules.yaml"


def test_the_file_holds_a_list_for_each_language_and_a_flat_mapping(done: tuple[Path, dict[str, Any]]) -> None:
    assert world.states(done[1]) == {"ingest": "ran", "curate": "ran", "thresholds": "ran"}
    data = yaml.safe_load(rules_of(done).read_text())
    assert set(data["rules"]) == {"en", "other", "zh"}
    assert data["pooled"] == {"any": {"fr": 3}}
    assert {entry["name"].split("/")[0] for entry in data["rules"]["zh"]} == {"chinese"}
    assert {entry["name"].split("/")[0] for entry in data["rules"]["en"]} == {"english"}
    assert {entry["method"] for entry in data["rules"]["other"]} == {"published"}
    keys = {"name", "metric", "op", "threshold", "published", "method", "documents", "cut_share", "source"}
    assert all(keys <= entry.keys() for entries in data["rules"].values() for entry in entries)
    assert data["documents"] == 57


def test_thresholds_are_quantiles_of_what_the_lake_holds(done: tuple[Path, dict[str, Any]]) -> None:
    data = yaml.safe_load(rules_of(done).read_text())
    for language in ("en", "zh"):
        words = sorted(
            n for (n,) in world.rows(done[0], f"SELECT words FROM small.curation WHERE language = '{language}'")
        )
        [low] = [entry for entry in data["rules"][language] if entry["name"].endswith("/min_words")]
        assert low["documents"] == len(words)
        assert low["threshold"] == words[len(words) // 20]
        assert low["cut_share"] == round((len(words) // 20) / len(words), 6)


def test_a_second_run_takes_it_from_the_cache_and_another_lake_writes_the_same_bytes(
    recipe: dict[str, Any], done: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    again = world.run(recipe, done[0], "thresholds")
    assert set(world.states(again).values()) == {"cached"}
    wide = recipe | {"runtime": world.inline() | {"workers": 3}}
    other = tmp_path / "lake", world.run(wide, tmp_path / "lake", "thresholds")
    assert rules_of(other).read_bytes() == rules_of(done).read_bytes()
    assert other[1]["thresholds"].outputs == done[1]["thresholds"].outputs


def test_the_next_curation_takes_the_file_language_by_language(
    recipe: dict[str, Any], done: tuple[Path, dict[str, Any]]
) -> None:
    path = rules_of(done)
    used = recipe | {"corpus": "next", "curate": {"preset": "auto", "rules": str(path)}, "thresholds": None}
    reports = world.run(used, done[0], "deduplicate")
    assert world.states(reports)["curate"] == "ran"
    assert "thresholds" not in world.states(reports)
    assert reports["thresholds"].note == "`thresholds` is null in the recipe"
    data = yaml.safe_load(path.read_text())
    for language in ("en", "zh"):
        [entry] = [entry for entry in data["rules"][language] if entry["name"].endswith("/min_words")]
        sql = f"SELECT count(*) FROM next.curation WHERE language = '{language}' AND list_contains(rules, 'min_words')"
        [(failed,)] = world.rows(done[0], sql)
        assert failed == round(entry["cut_share"] * entry["documents"])
    # The same content elsewhere is the same rule set: nothing is done again.
    copy = path.parent.parent / "copy.yaml"
    copy.write_bytes(path.read_bytes())
    again = world.run(used | {"curate": {"preset": "auto", "rules": str(copy)}}, done[0], "deduplicate")
    assert set(world.states(again).values()) == {"cached"}


def test_the_terminal_the_page_and_prefect_show_the_table(done: tuple[Path, dict[str, Any]]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

    from flows.report.summary import lines

    lake, reports = Lake(done[0]), done[1]
    text = "\n".join(lines(lake, list(reports.values())))
    assert "chinese/min_words" in text
    assert "any, pooled as `other`: fr 3" in text
    assert f"--set curate.rules={rules_of(done)}" in text
    page = world.report(done[0], "small")
    assert "Thresholds from the corpus" in page
    assert re.search(r"english en, \d+ of \d+ proposed rule keeps", page)
    assert re.search(r"min_words words >= \d+ 50 ", page)
    with get_client(sync_client=True) as client:
        wanted = ArtifactFilter(key=ArtifactFilterKey(like_="%thresholds-funnel"))
        shown = client.read_artifacts(artifact_filter=wanted)[0]
    for column in ("rule", "language", "published", "proposed", "share cut"):
        assert column in str(shown.data)


def test_real_pages_give_thresholds_for_each_language(samples: Path, tmp_path: Path) -> None:
    recipe = {
        "corpus": "pages",
        "sources": [{"kind": "common_crawl", "paths": [str(samples / "cc/pages/pages-dev-00000.warc.gz")]}],
        "thresholds": {"method": "quantile", "cut": 0.05, "min_documents": 40},
        "runtime": world.inline(),
    }
    lake = tmp_path / "lake"
    reports = world.run(recipe, lake, "thresholds")
    found = record(lake, reports["thresholds"]).report["thresholds"]
    assert {row["language"] for row in found} >= {"en", "zh", "other"}
    proposed = [row for row in found if row["method"] == "quantile"]
    assert len(proposed) > 30
    for row in proposed:
        assert 0 <= row["share cut"] <= 0.05
        name, (metric, op) = row["rule"].split("/")[0], row["keeps"].split()
        where = f"rule_set = '{name}' AND {metric} IS NOT NULL"
        if row["language"] != "other":
            where += f" AND language = '{row['language']}'"
            failing = f"count(*) FILTER (NOT {metric} {op} {row['proposed']!r})"
            sql = f"SELECT count(*), {failing} FROM pages.curation WHERE {where}"
            [(total, failed)] = world.rows(lake, sql)
            assert (row["documents"], row["share cut"]) == (total, round(failed / total, 6))
