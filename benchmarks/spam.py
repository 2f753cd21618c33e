"""Spam in Chinese: trains the weights of `datalake/curate/checks/spam.json`, and how good they are on texts held out.

    .venv/bin/python benchmarks/spam.py [--train] [--show N]

Texts: ChineseWebText's rows, each labelled by reading it (`benchmarks/labels/spam.tsv`: a digest of the text and the
verdict; no text), and the samples' other Chinese, taken for clean but where a label says otherwise: pages of the crawl,
articles of Wikipedia, poems, instructions, dialogues, questions of examinations. The digest's first bit puts a text
into the half that is trained on or the one that is held out.

Spam in the samples is little, so the half that is trained on has more made from it: clean texts with terms put in, as
such sites do, and lists of terms alone; made-up reports about gambling are among the clean ones. The half held out has
none of these. The weights are a logistic regression's, with equal mass for spam and clean texts and a penalty on their
squares; none but that of `report` may be negative, nor that one positive.

`--train` writes the weights; without it those that are there are measured. `--show N` prints the beginnings of the N
texts on the wrong side, or nearest to it, to be read by eye.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import io
import json
import os
import random
import sys
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from datalake.curate.checks.evaluation_sets import evaluation_rows  # noqa: E402
from datalake.curate.checks.spam import MODEL, Model, Terms, feature_names, features, model, probability, terms_of  # noqa: E402
from datalake.document import Document  # noqa: E402
from datalake.sources import reader  # noqa: E402
from datalake.sources.web.config import CommonCrawl  # noqa: E402

SAMPLES = Path(os.environ.get("HEADWATER_SAMPLES", ROOT.parent / "shared" / "samples"))
LABELS = Path(__file__).with_name("labels") / "spam.tsv"
PENALTY, STEPS, THRESHOLD = 0.003, 6000, 0.5
MADE = 400  # spam texts made for training
# Reports about gambling, for training: written here.
REPORTS = """
近日，警方破获一起特大网络赌博案，抓获犯罪嫌疑人32名，冻结涉案资金1.2亿元。经查，该团伙搭建博彩网站，以百家乐、时时彩等方式组织赌博。
法院经审理认为，被告人以营利为目的，利用网络开设赌场，为他人提供百家乐投注平台，情节严重，其行为已构成开设赌场罪，判处有期徒刑三年。
澳门博彩监察协调局公布的数字显示，上月博彩毛收入按年上升一成，永利、美高梅、银河娱乐和金沙中国的股价随之上扬。
百家乐是一种纸牌游戏，起源于意大利，十五世纪传入法国。庄家与闲家各发两张或三张牌，点数接近九点者胜出。
反诈中心提醒，凡是声称稳赚不赔、注册送彩金、提现秒到账的彩票平台都是骗局，请勿下载来路不明的软件，以免上当受骗。
双色球第2022031期开奖，当期头奖中出八注，单注奖金六百万元，奖池余额十九亿元。请理性购彩，量力而行。
老虎机是赌场里的一种机器，玩家投入硬币，拉下拉杆，图案一致时得到彩金。第一台老虎机于1895年在旧金山制成。
威尼斯人酒店位于路氹城，拥有三千间客房、购物区和会议中心，旅客可以乘坐贡多拉，也可以观看演出。
国际足联通报了一起假球案，两名球员受博彩公司收买，操纵比赛结果，被终身禁赛。赔率在开赛前一小时有异常变化。
小说写一个赌徒的一生：他在赌场里输光了家产，押上骰宝的最后一注，妻子带着孩子离开了他。
请在官网下载最新版客户端，用手机号注册并登录，即可使用手机版的全部功能；忘记密码可在登录页面找回。
球队官方网站发布公告，新赛季会员注册现已开始，球迷可以下载官方应用，在线购买球票和纪念品。
民警走访辖区棋牌室和电玩城，查处利用捕鱼机、老虎机赌博的窝点两处，收缴赌资及赌博机一批。
警方查明，“皇冠体育”“新宝GG”两个网站设有彩票大厅、真人视讯、棋牌游戏、沙巴体育等栏目，注册会员十万余人，服务器设在境外，民警在三省同时收网，抓获代理40名。
公安部公布十起跨境赌博典型案例：犯罪团伙以“亚博体育”“必威体育”为名推广赌博平台，通过快三、幸运飞艇等玩法吸引群众投注，用跑分平台洗钱。
记者调查发现，一些主播在直播间推广棋牌游戏，送彩金、送体验金吸引用户注册，充值后无法提现，律师提醒涉嫌开设赌场罪，受害人应及时报警。
太阳城集团主席周焯华因开设赌场、参加犯罪集团等罪名受审，澳门初级法院判处其十八年监禁，集团旗下贵宾厅已全部关闭。
公安机关打掉一个以“同城约会”“上门服务”为名的诈骗团伙，受害人先后被要求缴纳保证金、服务费，警方提醒所谓外围女、裸聊都是陷阱。
税务部门联合警方破获一起虚开发票案，嫌疑人在网上散布代开发票的广告，为六百余家企业虚开发票，涉案金额达三亿元，主犯被判处有期徒刑。
法院认定，被告人利用网络组织替考、代办证件、贩卖假毕业证，构成组织考试作弊罪和伪造证件罪，判处有期徒刑四年，没收违法所得。
他第一次去澳门，在葡京的赌场里看人玩百家乐，荷官发牌，庄家赢了三把，旁边的人叹了口气，把筹码推出去。后来他在威尼斯人的大厅里走了很久。
球队与必威签约三年，球衣胸前将印上这家博彩公司的标志；英超明年起禁止博彩公司赞助球衣，俱乐部需要寻找新的赞助商。
纪委通报，该干部长期沉迷网络赌博，挪用公款投注体育赛事，被开除党籍和公职，移送检察机关审查起诉。
"""


def digest(text: str) -> str:
    return xxhash.xxh3_128_hexdigest(text.encode("utf-8", "surrogatepass"))


def held_out(text: str) -> bool:
    return int(digest(text)[0], 16) >= 8


def labels() -> dict[str, bool]:
    """Whether each text that was read is spam, by digest."""
    with LABELS.open(encoding="utf-8") as file:
        return {row[0]: row[1] == "spam" for row in csv.reader(file, delimiter="\t") if not row[0].startswith("#")}


def _rows(path: Path) -> Iterator[str]:
    """The texts of each row of a file, together."""
    for row in evaluation_rows(path.name, str(path)):
        yield row.readings[0]


def documents() -> Iterator[tuple[str, str]]:
    """(collection, text) of the samples' Chinese texts."""
    with gzip.open(SAMPLES / "text/chinesewebtext-2021-43-cleared1.jsonl.gz", "rt", encoding="utf-8") as lines:
        yield from (("ChineseWebText", json.loads(line)["raw_content"]) for line in lines)
    with gzip.open(SAMPLES / "cc/pages/pages-dev.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    yield from (("gold texts", row["gold_text"]) for row in rows if row["lang"] == "zh" and row.get("gold_text"))
    crawl = CommonCrawl(paths=[f"{SAMPLES}/cc/pages/*.warc.gz", f"{SAMPLES}/cc/warc/*.warc.gz"])
    for shard in reader("common_crawl").archives(crawl):
        for entry in reader("common_crawl").read(shard, crawl):
            if isinstance(entry, Document) and entry.language in ("zh", "yue", "wuu"):
                yield "pages", entry.text
    with tarfile.open(SAMPLES / "wiki/zhwiki-plain-100-articles.tar.xz") as archive:
        for member in archive:
            if member.isfile() and (file := archive.extractfile(member)):
                yield "Wikipedia", file.read().decode("utf-8", "replace")
    with tarfile.open(SAMPLES / "text/chinese-poetry.tar.xz") as archive:
        for member in archive:
            if member.name.endswith(".json") and (file := archive.extractfile(member)):
                for row in list(json.load(file))[:300]:
                    if isinstance(row, dict) and isinstance(row.get("paragraphs"), list):
                        yield "poems", "\n".join(map(str, row["paragraphs"]))
    for path in sorted((SAMPLES / "instruction").glob("*")):
        if any(name in path.name for name in ("_zh", "-zh", "_ch")):
            yield from (("instructions", text) for text in _rows(path))
    with tarfile.open(SAMPLES / "eval/cmmlu.tar.gz") as archive:
        for member in archive:
            if member.name.endswith(".csv") and (file := archive.extractfile(member)):
                for row in csv.DictReader(io.TextIOWrapper(file, "utf-8")):
                    yield "examinations", "\n".join(str(row[name]) for name in ("Question", "A", "B", "C", "D"))


def made_spam(clean: list[str], lists: dict[str, list[str]], draw: random.Random) -> Iterator[str]:
    """Spam as such sites make it: terms put into text that says something else, or terms alone."""
    syllables = "".join(clean)[:20_000]
    han = [c for c in syllables if "\u4e00" <= c <= "\u9fff"]

    def name() -> str:
        kind = draw.random()
        if kind < 0.4:
            return draw.choice(lists["brand"])
        if kind < 0.6:
            return draw.choice(lists["house"]) + draw.choice(lists["stem"])
        return "".join(draw.choices(han, k=2)) + draw.choice([*lists["stem"], *lists["place"]])

    for k in range(MADE):
        text = draw.choice(clean)
        size = draw.randrange(300, 3000)
        sentences = [part for part in text[:size].replace("\n", "。").split("。") if part]
        ours = name()
        way = k % 4
        if way == 0:  # a name with its entrance, over and over
            for _ in range(draw.randrange(2, 8)):
                sentences.insert(draw.randrange(len(sentences) + 1), f"{ours}{draw.choice(lists['entrance'])}")
            yield "。".join(sentences)
        elif way == 1:  # spun, the name among the keywords
            words = "，".join(draw.choices(sentences or ["新闻"], k=2))[:40]
            more = "".join(f"{ours}{part}" for part in sentences[:1])
            tail = f"本文关键词：{ours}{draw.choice(lists['entrance'])},{words}"
            yield f"{more}\n本文摘要：{sentences[0] if sentences else ''}\n{'。'.join(sentences)}\n{tail}"
        elif way == 2:  # what only they say
            group = draw.choice(["gambling", "gambling", "adult", "offers"])
            parts = draw.sample(lists[group], draw.randrange(4, 12))
            for part in parts:
                sentences.insert(draw.randrange(len(sentences) + 1), part)
            yield "。".join(sentences)
        else:  # nothing else
            groups = ["gambling", "game", "brand", "gambling"] if k % 8 < 6 else draw.choice([["adult"], ["offers"]])
            yield "，".join(draw.choice(lists[draw.choice(groups)]) for _ in range(draw.randrange(8, 40)))


def train(spam: list[str], clean: list[str], terms: Terms) -> tuple[np.ndarray[Any, Any], float]:
    """Weights and bias by projected gradient descent (Nesterov's)."""
    x = np.array([features(text, terms) for text in (*spam, *clean)])
    y = np.array([1.0] * len(spam) + [0.0] * len(clean))
    mass = np.where(y > 0, 0.5 / len(spam), 0.5 / len(clean))
    names = feature_names(terms)
    sign = np.array([-1.0 if name.startswith("report") else 1.0 for name in names])
    scale = np.maximum(x.std(0), 0.05)
    x = x / scale
    weights, ahead, bias, bias_ahead, t = np.zeros(x.shape[1]), np.zeros(x.shape[1]), 0.0, 0.0, 1.0
    rate = 1 / (0.25 * float((mass[:, None] * x**2).sum()) + 0.25 + 2 * PENALTY)
    for _ in range(STEPS):
        error = mass * (1 / (1 + np.exp(-(x @ ahead + bias_ahead))) - y)
        new = ahead - rate * (x.T @ error + 2 * PENALTY * ahead)
        new = np.where(sign * new < 0, 0.0, new)
        new_bias = bias_ahead - rate * float(error.sum())
        step = (1 + np.sqrt(1 + 4 * t * t)) / 2
        ahead, bias_ahead = new + (t - 1) / step * (new - weights), new_bias + (t - 1) / step * (new_bias - bias)
        weights, bias, t = new, new_bias, step
    return weights / scale, bias


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--train", action="store_true")
    parser.add_argument("--show", type=int, default=0)
    arguments = parser.parse_args()
    verdicts, texts = labels(), {}
    for collection, text in documents():
        texts.setdefault(text, collection)
    held = json.loads(MODEL.read_text("utf-8"))
    if arguments.train:
        terms = terms_of(held["terms"])
        mine = [text for text in texts if not held_out(text)]
        clean = [text for text in mine if not verdicts.get(digest(text))]
        spam = [text for text in mine if verdicts.get(digest(text))]
        long = [text for text in clean if len(text) > 200]
        made = list(made_spam(long, held["terms"], random.Random(0)))
        reports = [line for line in REPORTS.split("\n") if line]
        weights, bias = train(spam * 10 + made, clean + reports * 120, terms)
        held["weights"] = {
            name: round(float(value), 4) for name, value in zip(feature_names(terms), weights, strict=True)
        }
        held["bias"] = round(float(bias), 4)
        MODEL.write_text(json.dumps(held, ensure_ascii=False, indent=1) + "\n", "utf-8")
        model.cache_clear()
    found: Model = model()
    scores = {text: probability(text, found) for text in texts}
    start = time.process_time()
    for text in texts:
        probability(text, found)
    seconds = time.process_time() - start
    print(f"{sum(map(len, texts)) / seconds / 1e6:.1f} million characters a second of a core")
    print("| texts | half | spam found | clean texts kept | precision | recall | false positives |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    collections = dict.fromkeys(texts.values())
    for collection in [*collections, None]:
        for half in (False, True):
            rows = [t for t, c in texts.items() if collection in (c, None) and held_out(t) == half]
            bad = [t for t in rows if verdicts.get(digest(t))]
            caught = sum(scores[t] > THRESHOLD for t in bad)
            wrong = sum(scores[t] > THRESHOLD for t in rows) - caught
            precision = f"{caught / (caught + wrong):.3f}" if caught + wrong else ""
            recall = f"{caught / len(bad):.3f}" if bad else ""
            good = len(rows) - len(bad)
            print(
                f"| {collection or 'all'} | {'held out' if half else 'trained on'} | {caught} of {len(bad)} | "
                f"{good - wrong} of {good} | {precision} | {recall} | {wrong / max(good, 1):.3%} |"
            )
    if arguments.show:
        sides = sorted(texts, key=lambda t: (scores[t] - THRESHOLD) * (1 if verdicts.get(digest(t)) else -1))
        for text in sides[: arguments.show]:
            told = "spam" if verdicts.get(digest(text)) else "clean"
            beginning = " ".join(text[:160].split())
            print(f"{scores[text]:.3f} {told} {texts[text]} {digest(text)} {len(text)} {beginning}")


if __name__ == "__main__":
    main()
