"""A small world for tests of whole runs: archives of every kind made on the spot, recipes over them, runs in process.

Everything is a function of its arguments, so that two worlds made alike give equal bytes.
"""

from __future__ import annotations

import gzip
import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from datalake.lake.lake import FolderRef, Lake, TableRef
from datalake.lake.records import StageReport, find_manifest

_NOUNS = """river teacher engine garden letter market museum planet school sailor doctor forest village writer bridge
station harbour valley library kitchen mountain island workshop theatre square tower painter lamp window carpet orchard
bakery castle meadow lantern compass violin farmer student captain notebook glacier desert canal monument clock train
ladder blanket mirror pocket button candle feather hammer needle parcel ribbon saddle ticket umbrella
wagon yard""".split()  # noqa: SIM905
_VERBS = """crossed repaired remembered described followed measured painted opened visited watched answered built
carried cleaned closed collected copied counted covered designed discovered explained finished gathered guarded hid
improved invited joined kept learned lifted moved named offered packed planted polished protected reached""".split()  # noqa: SIM905
_ADJECTIVES = """quiet narrow bright ancient heavy gentle curious distant careful golden hidden early broken clever
crowded dusty empty faithful famous fresh hollow honest humble icy jolly lively lonely modern muddy noble patient
plain proud rapid rough rusty silent simple slender steep stormy sturdy tidy tiny wooden young""".split()  # noqa: SIM905
_SHAPES = (
    "The {a} {n} {v} the {m} that had been left beside a {b} {o}.",
    "When a {n} {v} every {m}, nobody in the {a} {o} was surprised.",
    "In {y}, people of the {o} said that this {a} {n} {v} their {b} {m}.",
    "Because of the {a} {m}, she {v} a {n} and then {w} the {o} with her brother.",
    "They {v} it twice, but the {b} {n} near the {o} is still {a}.",
    "Have you seen how the {n} {v} our {m} before the {a} {o} {w} it?",
    "After {y} years a {b} {m} was found under the {n}; it {v} and {w} more than any {o}.",
    "He has never {v} {o}s, {m}s or a {n}, to be {a} about it.",
)


CHINESE = """
老城的河边有一座木桥，桥头住着一位修钟表的老人。每天清晨，他打开窗户，听见对岸学校的铃声，便知道新的一天开始了。
镇上的人把走得不准的钟送到他的小屋里，他从不着急，先把零件一件一件摆在桌上，再用一块旧布慢慢擦干净。

有一年冬天下了很大的雪，桥被压坏了，两岸的孩子没有办法去上课。老人放下手里的工作，和木匠、渔夫一起砍来树木，用三天时间搭好了新的桥面。
从那以后，每一个过桥的人都会在他的门前停下来，和他说几句话，有时候还会带来一壶热茶。

后来老人年纪大了，看不清细小的齿轮，就把手艺教给了一个喜欢提问的女孩。女孩学会的第一件事，是在动手之前先听：每一座钟走动的声音都不一样，
毛病往往就藏在那一点点不同里。
""".strip()

# Of models that others made.
TEMPLATE = (
    "{% for m in messages %}{{ '<s>' + m['role'] + ': ' + m['content'] + '</s>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<s>assistant: ' }}{% endif %}"
)


def prose(seed: int, sentences: int = 12) -> str:
    """English sentences that the usual filters keep; other seeds share few word 5-grams."""
    draw = random.Random(seed)
    made = []
    for _ in range(sentences):
        n, m, o = draw.sample(_NOUNS, 3)
        (v, w), (a, b) = draw.sample(_VERBS, 2), draw.sample(_ADJECTIVES, 2)
        made.append(draw.choice(_SHAPES).format(n=n, m=m, o=o, v=v, w=w, a=a, b=b, y=draw.randrange(100, 2000)))
    return "\n\n".join(" ".join(made[i : i + 4]) for i in range(0, len(made), 4))


def page(seed: int, sentences: int = 12) -> str:
    """An HTML page with such prose."""
    paragraphs = "".join(f"<p>{part}</p>" for part in prose(seed, sentences).split("\n\n"))
    return f"<!doctype html><html><head><title>Page {seed}</title></head><body><main>{paragraphs}</main></body></html>"


def warc(path: Path, pages: Mapping[str, str], missing: Sequence[str] = (), damaged: bool = False) -> Path:
    """A gzipped WARC: an HTML response for each page, a 404 for each missing address, and a cut record at the end."""
    members = [_member("warcinfo", "", b"software: tests\r\n", "application/warc-fields")]
    for uri, html in pages.items():
        members.append(_member("request", uri, b"GET / HTTP/1.1\r\n\r\n", "application/http; msgtype=request"))
        members.append(_member("response", uri, _http("200 OK", html), "application/http; msgtype=response"))
    for uri in missing:
        body = _http("404 Not Found", "<html><body><p>Nothing here</p></body></html>")
        members.append(_member("response", uri, body, "application/http; msgtype=response"))
    if damaged:
        last = _member("response", "http://cut.example/", _http("200 OK", page(999)), "application/http")
        members.append(last[: len(last) // 2])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(members))
    return path


def _http(status: str, html: str) -> bytes:
    body = html.encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {len(body)}\r\n\r\n"
    return head.encode() + body


def _member(kind: str, uri: str, block: bytes, media_type: str) -> bytes:
    target = f"WARC-Target-URI: {uri}\r\n" if uri else ""
    head = (
        f"WARC/1.0\r\nWARC-Type: {kind}\r\n{target}WARC-Date: 2024-05-20T10:00:00Z\r\n"
        f"WARC-Record-ID: <urn:uuid:00000000-0000-4000-8000-{abs(hash_of(kind + uri)):012x}>\r\n"
        f"Content-Type: {media_type}\r\nContent-Length: {len(block)}\r\n\r\n"
    )
    return gzip.compress(head.encode() + block + b"\r\n\r\n", mtime=0)


def hash_of(text: str) -> int:
    """A small number for a text, the same in every process."""
    return sum((i + 1) * byte for i, byte in enumerate(text.encode())) % 10**12


def crawl(path: Path, first: int, pages: int = 6, **more: Any) -> Path:
    """A WARC of pages numbered from `first`, each at an address of its own host."""
    return warc(path, {f"http://host{n}.example/page": page(n) for n in range(first, first + pages)}, **more)


def wiki(path: Path, seeds: Sequence[int]) -> Path:
    """A MediaWiki export with an article a seed and one redirect."""
    articles = "".join(
        f"<page><title>Article {n}</title><ns>0</ns><id>{n}</id><revision><id>{n + 10_000}</id>"
        f"<timestamp>2024-01-02T03:04:05Z</timestamp><model>wikitext</model><format>text/x-wiki</format>"
        f'<text xml:space="preserve">{prose(n)}</text></revision></page>\n'
        for n in seeds
    )
    redirect = (
        "<page><title>Elsewhere</title><ns>0</ns><id>1</id><redirect title='Article'/><revision><id>9</id>"
        "<timestamp>2024-01-02T03:04:05Z</timestamp><model>wikitext</model><format>text/x-wiki</format>"
        "<text>#REDIRECT [[Article]]</text></revision></page>"
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        '<mediawiki xmlns="http://www.mediawiki.org/xml/export-0.11/" version="0.11" xml:lang="en">'
        "<siteinfo><sitename>Test</sitename><dbname>testwiki</dbname><base>https://wiki.example/wiki/Main</base>"
        '<namespaces><namespace key="0" case="first-letter"/></namespaces></siteinfo>'
        f"{articles}{redirect}</mediawiki>\n"
    )
    return path


def jsonl(path: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """A JSON Lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def texts(path: Path, seeds: Sequence[int], sentences: int = 12) -> Path:
    """A JSON Lines file of documents with ids."""
    return jsonl(path, [{"id": str(n), "text": prose(n, sentences)} for n in seeds])


def dialogues(path: Path, amount: int = 30) -> Path:
    """Alpaca rows: short questions with short answers."""
    rows = [
        {
            "instruction": f"Where is the {_NOUNS[n % 14]} number {n}?",
            "input": "",
            "output": f"In the {_NOUNS[20 + n % 12]}.",
        }
        for n in range(amount)
    ]
    return jsonl(path, rows)


def preferences(path: Path, amount: int = 30) -> Path:
    """Pairs in the DPO form."""
    rows = [
        {
            "prompt": f"Where is the {_NOUNS[n % 14]} number {n}?",
            "chosen": f"In the {_NOUNS[20 + n % 12]}.",
            "rejected": f"No {n}.",
        }
        for n in range(amount)
    ]
    return jsonl(path, rows)


def everything(folder: Path) -> dict[str, Any]:
    """A recipe over one small source of every kind, through every stage, with tiny models."""
    crawl(folder / "cc" / "one.warc.gz", 100, missing=["http://gone.example/"])
    crawl(folder / "cc" / "two.warc.gz", 103, damaged=True)  # 103 to 105 are in both
    wiki(folder / "wiki.xml", range(200, 206))
    (folder / "code").mkdir(parents=True, exist_ok=True)
    for n in range(3):
        lines = "\n".join(f"    total = total + {n * k} * scale  # {w}" for k, w in enumerate(_NOUNS[:14]))
        body = f"def total_{n}(scale: int) -> int:\n    total = 0\n{lines}\n    return total\n"
        (folder / "code" / f"module{n}.py").write_text(f'"""Module {n}: adds up."""\n\n\n{body}')
    short = {"id": "short", "text": "Too short to keep."}
    empty = {"id": "empty", "text": "  "}
    rows = [{"id": str(n), "text": prose(n)} for n in range(300, 308)]
    jsonl(folder / "table.jsonl", [*rows, short, empty, {"id": "zh", "text": CHINESE}])
    dialogues(folder / "dialogues.jsonl")
    preferences(folder / "preferences.jsonl")
    labels = [{"text": prose(n, 4) if n % 2 else f"Buy now, offer {n}!", "label": n % 2} for n in range(500, 530)]
    jsonl(folder / "labels.jsonl", labels)
    return {
        "corpus": "tiny",
        "sources": [
            {"kind": "common_crawl", "paths": [f"{folder}/cc/*.warc.gz"]},
            {"kind": "wikipedia", "paths": [f"{folder}/wiki.xml"]},
            {"kind": "code", "paths": [f"{folder}/code"]},
            {"kind": "table", "paths": [f"{folder}/table.jsonl"]},
            {"kind": "conversations", "paths": [f"{folder}/dialogues.jsonl"]},
            {"kind": "preferences", "paths": [f"{folder}/preferences.jsonl"]},
        ],
        "quality": {"paths": [f"{folder}/labels.jsonl"], "good": "1", "dimension": 4, "buckets": 100},
        "thresholds": {"min_documents": 5},
        "mixture": {"holdout": 0.2},
        **tiny_models(),
        "runtime": inline(),
    }


def tiny_models() -> dict[str, Any]:
    """Sections that train the smallest models in about a second each."""
    return {
        "tokenizer": {"vocabulary": 320},
        "pretrain": {
            "layers": 2, "width": 32, "heads": 2, "kv_heads": 1, "context": 64, "batch": 4, "steps": 12,
            "checkpoint_every": 4, "eval_every": 0, "eval_rows": 4,
        },
        "sft": {"batch": 4, "steps": 4, "eval_every": 0, "eval_rows": 4},
        "reward": {"batch": 4, "steps": 4, "eval_every": 0, "eval_rows": 4},
        "dpo": {"batch": 4, "steps": 2, "eval_every": 0},
        "kto": {"batch": 4, "steps": 2, "eval_every": 0},
        "ppo": {"batch": 4, "steps": 2, "new_tokens": 6, "epochs": 1, "minibatches": 1},
        "evaluate": {"limit": 6, "generation_limit": 2, "max_new_tokens": 6, "resamples": 100},
    }  # fmt: skip


def transformer(
    folder: Path,
    auto: str = "AutoModel",
    family: str = "bert",
    tokens: int = 48,
    seed: int = 1,
    padding_side: str = "right",
    **more: Any,
) -> Path:
    """A randomly initialised BERT or Llama of 2 layers, as Transformers' class `auto`, with a tokenizer of words.

    The Llama's tokenizer has no token for padding, as many have none.
    """
    import tokenizers
    import torch
    import transformers

    words = sorted({w for n in range(50) for w in prose(n).lower().replace(".", " .").split()})
    vocabulary = {word: k for k, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.normalizer = tokenizers.normalizers.Lowercase()
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    special = {"unk_token": "[UNK]", "eos_token": "[SEP]"} | ({"pad_token": "[PAD]"} if family == "bert" else {})
    if family == "bert":
        inner.post_processor = tokenizers.processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": len(vocabulary), "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2,
        "intermediate_size": 32, "max_position_embeddings": tokens, "initializer_range": 1.0,
    }  # fmt: skip
    config: Any = {"bert": transformers.BertConfig, "llama": transformers.LlamaConfig}[family]
    getattr(transformers, auto).from_config(config(**shape, **more)).eval().save_pretrained(folder)
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, padding_side=padding_side, **special).save_pretrained(
        folder
    )
    return folder


def inline() -> dict[str, Any]:
    """A runtime in this process, without Ray."""
    return {"workers": 1, "cluster": "inline", "retries": 0, "memory_gb": 1}


def on_ray(workers: int = 2) -> dict[str, Any]:
    """A runtime on a local Ray; a Ray that this process runs already is used."""
    return {"workers": workers, "cluster": "local", "retries": 1, "memory_gb": 1}


def tables(folder: Path, files: Sequence[Path], corpus: str = "small", **sections: Any) -> dict[str, Any]:
    """A recipe over tables of documents up to the mixture, without rules."""
    source = {"kind": "table", "paths": [str(file) for file in files]}
    return {"corpus": corpus, "sources": [source], "curate": {"preset": "none"}, "runtime": inline(), **sections}


def run(recipe: Mapping[str, Any], lake: Path, until: str | None = None) -> dict[str, StageReport]:
    """Run the pipeline in this process; its reports by stage. Needs the fixture `prefect_server`."""
    from flows.flows import pipeline
    from flows.parameters import LAST

    reports = pipeline(recipe=dict(recipe), until=until or LAST, lake=str(lake))
    return {report.stage: report for report in reports}


def states(reports: Mapping[str, StageReport], skipped: bool = False) -> dict[str, str]:
    """The state of each stage, skipped ones left out unless asked for."""
    return {name: report.state for name, report in reports.items() if skipped or report.state != "skipped"}


def unfinished(lake: Path) -> dict[str, str]:
    """Why shards of any stage could not be finished."""
    from datalake.lake.records import read_record

    records = [read_record(Lake(lake), path.stem) for path in sorted((lake / "records").glob("*.json"))]
    return {name: why for record in records if record for name, why in record.unfinished.items()}


def shard_marks(lake: Path, stage: str) -> dict[str, tuple[int, int]]:
    """Inode and time of each finished shard's mark, by its folder: unchanged marks mean shards not done again."""
    found = {}
    for mark in sorted((lake / "shards" / stage).glob("*/*/shard.json")):
        status = mark.stat()
        found[mark.parent.name] = (status.st_ino, status.st_mtime_ns)
    return found


def parquet(lake: Path, stages: Sequence[str] = ()) -> dict[str, str]:
    """The content hash of every shard's files by stage, key and name: equal for lakes with equal shards."""
    from datalake.lake.copies import digest_of

    found = {}
    for path in sorted((lake / "shards").rglob("*")):
        stage = path.relative_to(lake / "shards").parts[0]
        if path.suffix in (".parquet", ".bin", ".tokens") and (not stages or stage in stages) and "." not in stage:
            found[path.relative_to(lake / "shards").as_posix()] = digest_of(path)
    return found


def rows(lake: Path, sql: str, run: str | None = None) -> list[tuple[Any, ...]]:
    """The rows of a query over a lake."""
    from datalake.lake.ledger import query

    return query(Lake(lake), sql, run)[1]


def folder_of(lake: Path, report: StageReport, name: str) -> Path:
    """Where a folder output of a stage lies."""
    ref = report.outputs[name]
    assert isinstance(ref, FolderRef)
    return Lake(lake).path(ref)


def table_of(report: StageReport, name: str) -> TableRef:
    """A table output of a stage."""
    ref = report.outputs[name]
    assert isinstance(ref, TableRef)
    return ref


@dataclass(frozen=True)
class Whole:
    """One finished run of `everything`, shared by the tests that only read it."""

    folder: Path
    lake: Path
    recipe: dict[str, Any]
    reports: dict[str, StageReport]


_WHOLE: list[Whole] = []


def whole(factory: pytest.TempPathFactory) -> Whole:
    """The suite's one whole run, made when first asked for. Needs the fixture `prefect_server`; read only."""
    if not _WHOLE:
        folder = factory.mktemp("whole")
        recipe = everything(folder / "input")
        _WHOLE.append(Whole(folder, folder / "lake", recipe, run(recipe, folder / "lake")))
    return _WHOLE[0]


def report(lake: Path, corpus: str | None = None) -> str:
    """The text of `headwater report` about the last run of a lake or a corpus, without markup, white space joined."""
    from flows.report.page import render

    page = render(Lake(lake), find_manifest(Lake(lake), "last", corpus))
    text = re.sub(r"(?s)<style>.*?</style>|<[^>]*>", " ", page)
    return " ".join(unescape(text).split())
