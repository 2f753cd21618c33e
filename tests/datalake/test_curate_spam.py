# ruff: noqa: E501  (a Chinese character counts as two columns)
"""Chinese spam is told by its terms, however they are written; reports about it, and all other Chinese, are kept."""

from __future__ import annotations

import csv
import gzip
import json
import tarfile
from pathlib import Path

import opencc
import pyarrow as pa
import pytest
import xxhash

from datalake.curate.checks.spam import MODEL, feature_names, model, spam_score, terms_of
from datalake.curate.config import CurateConfig
from datalake.curate.curate import curate_batch
from datalake.curate.languages import CHINESE
from datalake.curate.rules_file import choose, rule_sets
from datalake.curate.schema import CURATION
from datalake.document import RAW, Document, document_id, to_table

NEWS = "记者昨日从市交通局获悉，城北大桥的加固工程将于下月开工，工期约四个月。施工期间桥上只留两条车道，公交线路改走滨河路。"
SPAM = {
    "a name put into news": f"{NEWS}九天体育app下载，市民可以提前规划路线。九天体育官网认为，早晚高峰会更堵。九天体育手机版登录。",
    "a name at the end": f"{NEWS}\n本文摘要：大桥加固。\n{NEWS}\n本文关键词：云海体育app下载,大桥,加固,公交",
    "a club of guests": f"腾龙贵宾会召开年度会议。{NEWS}腾龙贵宾会负责人说，腾龙贵宾会全体员工将继续努力。",
    "a lottery": "凤凰彩票平台登录，购彩平台首选，时时彩、幸运飞艇、北京赛车，高返点，提款秒到，注册送彩金。",
    "a casino": "线上娱乐城推荐：百家乐、老虎机、真人荷官，注册送体验金，首存优惠，大额无忧，出款快。",
    "escorts": "同城约炮，高端外围，商务模特，学生妹上门，上门服务电话，包夜，微信联系。",
    "papers": "代开发票，开发票电话二十四小时在线，代办证件，刻章办证，假毕业证，真实可查学历。",
}
CLEAN = {
    "news": NEWS,
    "a court": "法院查明，被告人开设名为新宝的赌博网站，设有真人视讯、彩票大厅、棋牌游戏等栏目，组织会员投注，构成开设赌场罪，"
    "判处有期徒刑六年，并处罚金一百万元。警方另抓获犯罪嫌疑人十一名，冻结涉案资金两千万元。",
    "a hotel": "澳门威尼斯人度假村酒店位于路氹，可通过官网预订。附近有永利皇宫、美高梅和新濠影汇，交通方便，适合带孩子的家庭。",
    "an encyclopaedia": "百家乐是一种纸牌游戏，也是赌场里常见的赌博游戏之一。庄家与闲家各发两张或三张牌，下注可以选择庄、闲、和三门。",
    "shares": "周一港股博彩股普涨，银河娱乐升百分之三，金沙中国、永利澳门、美高梅中国跟涨，分析师预计贵宾厅业务占比继续下降。",
    "a lottery's draw": "中国福利彩票双色球昨晚开奖，头奖七注。彩民可登录中国福利彩票官网查询，投注站销售至二十时截止，请理性投注。",
    "software": "请在官网下载最新版客户端，注册账号并登录。手机版和网页版的数据互通，会员可以在会员中心充值，游戏下载请前往应用商店。",
    "words across": "他是中亚博物馆的馆员，今年会写一本书，讲音乐彩排，也讲意大利博洛尼亚、考研申博和快三步的跳法，未必发生什么。",
    "a novel": "他押下最后一注，荷官掀开骰盅，三个六。赌场里一片哗然，老虎机叮当作响。他想起父亲就是在这里输掉了一切。",
}


@pytest.mark.parametrize("what", SPAM)
def test_spam_is_told_in_either_script_in_full_width_and_between_signs(what: str) -> None:
    text = SPAM[what]
    wide = "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" and c not in ",.!?;:" else c for c in text)
    apart = "".join(f"{c}★ " if c.isalnum() else c for c in text)
    for form in (text, opencc.OpenCC("s2t").convert(text), wide, apart, text.upper()):
        score = spam_score(form, "zh")
        assert score is not None
        assert score > 0.5, form


@pytest.mark.parametrize("what", CLEAN)
def test_what_reports_or_merely_has_such_words_is_no_spam(what: str) -> None:
    for form in (CLEAN[what], opencc.OpenCC("s2t").convert(CLEAN[what])):
        score = spam_score(form, "zh")
        assert score is not None
        assert score < 0.5, form


def test_other_languages_and_blank_texts_have_no_score() -> None:
    assert [spam_score(SPAM["a casino"], language) for language in ("en", "ja", "und")] == [None, None, None]
    assert spam_score(" \n", "zh") is None
    assert all(spam_score(SPAM["a casino"], language) == spam_score(SPAM["a casino"], "zh") for language in CHINESE)


def test_no_term_goes_over_the_end_of_a_sentence() -> None:
    joined, parted = "百家乐官网" * 3, "百家乐。官网，" * 3
    assert spam_score(f"{NEWS}{joined}", "zh") > 0.5 > spam_score(f"{NEWS}{parted}", "zh")  # type: ignore[operator]


def test_what_ships_is_small_and_of_one_piece() -> None:
    held = json.loads(MODEL.read_text("utf-8"))
    assert MODEL.stat().st_size < 50_000
    assert "benchmarks/spam.py" in held["note"]
    assert list(held["weights"]) == feature_names(terms_of(held["terms"]))
    assert all((value <= 0) == name.startswith("report") or value == 0 for name, value in held["weights"].items())
    for terms in held["terms"].values():
        assert len(set(terms)) == len(terms)
        assert all(term == opencc.OpenCC("t2s").convert(term).lower() and term.isalnum() for term in terms)
    assert model() is model()


def test_texts_of_the_samples_that_were_read_are_told_apart(samples: Path) -> None:
    path = Path(__file__).parents[2] / "benchmarks" / "labels" / "spam.tsv"
    with path.open(encoding="utf-8") as file:
        labels = {row[0]: row[1] for row in csv.reader(file, delimiter="\t")}
    found = {"spam": [0, 0], "clean": [0, 0]}
    with gzip.open(samples / "text" / "chinesewebtext-2021-43-cleared1.jsonl.gz", "rt") as lines:
        for line in lines:
            text = json.loads(line)["raw_content"]
            score = spam_score(text, "zh")
            assert score is not None
            found[labels[xxhash.xxh3_128_hexdigest(text.encode())]][score > 0.5] += 1
    assert found["spam"][1] >= 18  # of 22; those left are pages made for search engines, without a term
    assert found["clean"] == [78, 0]


def test_no_article_nor_text_of_instructions_is_taken_for_spam(samples: Path) -> None:
    texts = []
    with tarfile.open(samples / "wiki" / "zhwiki-plain-100-articles.tar.xz") as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)):
                texts.append(file.read().decode("utf-8", "replace"))
    for name in ("llamafactory-alpaca_zh_demo.json.gz", "medicalgpt-sharegpt_zh_1K_format.jsonl.gz"):
        with gzip.open(samples / "instruction" / name, "rt") as lines:
            texts += [line for line in lines.read().split("\n") if len(line) > 20]
    assert len(texts) > 1_500
    assert sum((spam_score(text, "zh") or 0) > 0.5 for text in texts) == 0


def raw_of(*texts: str, language: str = "zh", source: str = "common_crawl") -> pa.Table:
    documents = [
        Document(id=document_id(source, str(k), text), text=text, source=source, uri=f"test:{k}", language=language)
        for k, text in enumerate(texts)
    ]
    return to_table(documents, RAW)


def test_the_default_preset_rejects_spam_with_its_reason_and_the_others_store_its_score() -> None:
    raw = raw_of(SPAM["a name put into news"], CLEAN["a court"])
    curation, _ = curate_batch(raw, CurateConfig())
    assert curation.schema == CURATION
    assert ["spam" in rules for rules in curation["rules"].to_pylist()] == [True, False]
    assert [score > 0.5 for score in curation["spam"].to_pylist()] == [True, False]
    loose = curate_batch(raw, CurateConfig(thresholds={"spam": 1.0}))[0]
    assert not any("spam" in rules for rules in loose["rules"].to_pylist())
    others = {rule.name: 0.0 for rule in choose(rule_sets("auto"), "common_crawl", "zh").rules if rule.op == ">="}
    others |= {rule.name: 1e9 for rule in choose(rule_sets("auto"), "common_crawl", "zh").rules if rule.op == "<="}
    curation, documents = curate_batch(raw, CurateConfig(thresholds={**others, "spam": 0.5}))
    assert curation["rule"].to_pylist() == ["spam", None]
    assert documents.num_rows == 1
    named = curate_batch(raw, CurateConfig(preset="none"))[0]
    assert named["rule"].to_pylist() == [None, None]
    assert named["spam"].to_pylist() == curation["spam"].to_pylist()
    for preset in ("fineweb2", "chinesewebtext", "gopher"):
        assert all(rule.metric != "spam" for rule in choose(rule_sets(preset), "common_crawl", "zh").rules)
    assert curate_batch(raw_of(SPAM["a casino"], language="en"), CurateConfig())[0]["spam"].to_pylist() == [None]
    assert curate_batch(raw_of(SPAM["a casino"], source="code"), CurateConfig())[0]["spam"].to_pylist() == [None]
