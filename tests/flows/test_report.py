"""The report says what the lake's records and tables say, in one page that needs nothing else."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from harness import laid_out

from datalake.curate.schema import CURATION
from datalake.dedup.schema import DUPLICATES
from datalake.document import Document, Quarantined, Refused, document_id
from datalake.errors import UserError
from datalake.identity import fingerprint
from datalake.lake.lake import Lake, Ref, TableRef
from datalake.lake.records import (
    EVALUATIONS,
    METRICS,
    SAMPLES,
    Manifest,
    StageRecord,
    StageReport,
    find_manifest,
    read_record,
    write_manifest,
    write_record,
)
from datalake.lake.shards import ShardWriter
from datalake.mixture.build import MIXTURE
from datalake.tables import DOCUMENTS, QUARANTINE, RAW, REFUSED, to_table
from flows.report.page import render, write_report
from flows.report.shares import lines, shares
from flows.report.summary import lines as summary
from flows.report.words import excerpt, number, seconds, share
from models.training.diagnosis import Finding, findings
from models.training.figures import bars, marked, table
from models.training.figures import lines as plot

STAGES = ("ingest", "curate", "deduplicate", "mixture", "sft", "ppo", "evaluate")
EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)>'
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Page(HTMLParser):
    """What a browser would see: tags, addresses it would load, text."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attributes:
            assert not name.startswith("on"), f"{name} runs code"
            if name == "src" or (tag == "link" and name == "href"):
                self.loaded.append(value or "")
            elif name == "href":
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


MIXED = [
    {"id": bytes(16), "source": "web", "language": "en", "split": "train", "weight": 0.6, "epochs": 2.0,
     "words": 300, "copies": 1},
    {"id": bytes(15) + b"1", "source": "code", "language": "zh", "split": "train", "weight": 0.4, "epochs": 1.0,
     "words": 400, "copies": 1},
    {"id": bytes(15) + b"2", "source": "code", "language": "zh", "split": "heldout", "weight": 0.4, "epochs": 0.0,
     "words": 500, "copies": 1},
]  # fmt: skip
ANSWERS = [
    {
        "checkpoint": name,
        "ended": name == "ppo",
        "question": f"ما هذا؟ {EVIL}",
        "reference": "这是什么？",
        "answer": text,
    }
    for name, text in (("sft", "w" * 400), ("ppo", ""))
]


FINDINGS = [
    findings([{"step": step, "kl_per_token": 0.001 * 1.2**step, "score": 0.5} for step in range(1, 41)])[0]._asdict(),
    Finding("constant", "the reward format is always 1 (40 steps)", "reward_format", 1, 40, "", "note")._asdict(),
]
FIGURES = [
    bars("accuracy by source", [EVIL, "zh"], [0.7, 0.6], [0.6, 0.5], [0.8, 0.7], note="with 95% intervals"),
    plot("calibration", {"said": ([0.1, 0.9], [0.2, 0.8])}, "said", "true"),
    table("longest", ["question", "tokens"], [[EVIL, 12], ["x" * 900, 9]]),
    marked("what trains", [[("user: ", False), (f"{EVIL}\nyes", True)]]),
]
WROTE = [
    {
        "step": step,
        "prompt": f"<|user|>{step} 你好 {EVIL}",
        "answer": "ha " * 300 if step == 3 else f"answer {step}",
        "tokens": 7,
        "ended": step != 3,
        "figures": [("kl", 0.25), ("score", step / 10)],
    }
    for step in range(1, 10)
]


JUDGED = {"checkpoint": "ppo", "task": "arc_easy", "metric": "accuracy", "value": 0.5, "low": 0.25, "high": 0.75}
JUDGED |= {"n": 12, "seen": 0.25, "without": 0.375}
COMPARED = {"checkpoint": "ppo", "with": "sft", "task": "arc_easy", "metric": "accuracy", "first": 0.3, "second": 0.5}
COMPARED |= {"difference": 0.2, "low": 0.05, "high": 0.35, "p": 0.01, "real": True, "n": 12}


def document(name: str, text: str, source: str = "web") -> Document:
    return Document(document_id("table", "a", name), text, source, f"https://example.org/{name}", "en")


def commit(lake: Lake, table: str, schema, rows: list | object, print_of: str) -> TableRef:
    key = fingerprint({"table": table})
    with ShardWriter(lake.shard_folder("test", key), table, key, {table: schema}) as out:
        out.write(table, rows if hasattr(rows, "schema") else to_table(rows, schema))
    return lake.commit(f"toy.{table}", schema, out.result.files, print_of)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A run made by hand: four documents, of which one is rejected and one a duplicate."""
    import pyarrow as pa

    lake = Lake(tmp_path_factory.mktemp("report") / "lake").create()
    kept, copy, bad, other = (
        document("kept", "A text that stays."),
        document("copy", "A text that stays, again."),
        document("bad", f"{EVIL} " + "spam " * 400),
        document("other", "Ein anderer Text & mehr", source="books"),
    )
    prints = {stage: fingerprint({"stage": stage}) for stage in STAGES}
    blank = dict.fromkeys(CURATION.names)
    curation = [
        blank | {"id": d.id, "source": d.source, "language": "en", "verdict": "kept", "rules": []}
        for d in (kept, copy, other)
    ]
    curation += [
        blank
        | {"id": bad.id, "source": "web", "verdict": "rejected", "rule": "too_much", "rules": ["too_much", "spam<b>"]}
    ]
    refused = [Refused(document_id("table", "a", "r"), "web", "https://example.org/moved", "redirect", "301")]
    quarantine = [Quarantined("web", "a.warc", "bad_block", "checksum", 12)]
    duplicates = [
        {"id": kept.id, "duplicate_of": None, "level": None, "similarity": None},
        {"id": copy.id, "duplicate_of": kept.id, "level": "near", "similarity": 0.875},
        {"id": other.id, "duplicate_of": None, "level": None, "similarity": None},
    ]
    outputs: dict[str, dict[str, Ref]] = {
        "ingest": {
            "raw": commit(lake, "raw", RAW, [kept, copy, bad, other], prints["ingest"]),
            "refused": commit(lake, "refused", REFUSED, refused, prints["ingest"]),
            "quarantine": commit(lake, "quarantine", QUARANTINE, quarantine, prints["ingest"]),
        },
        "curate": {
            "curation": commit(
                lake, "curation", CURATION, pa.Table.from_pylist(curation, schema=CURATION), prints["curate"]
            ),
            "documents": commit(lake, "documents", DOCUMENTS, [kept, copy, other], prints["curate"]),
        },
        "deduplicate": {
            "duplicates": commit(
                lake,
                "duplicates",
                DUPLICATES,
                pa.Table.from_pylist(duplicates, schema=DUPLICATES),
                prints["deduplicate"],
            )
        },
        "mixture": {
            "mixture": commit(lake, "mixture", MIXTURE, pa.Table.from_pylist(MIXED, schema=MIXTURE), prints["mixture"])
        },
        "sft": {},
        "ppo": {},
        "evaluate": {},
    }
    sources = [
        {"source": "web", "archives": 1, "records": 6, "raw": 4, "refused": 1, "quarantined": 1, "why": "redirect 1"},
        {"source": "empty", "archives": 1, "records": 0, "raw": 0, "refused": 0, "quarantined": 0, "why": ""},
    ]
    said = {
        "ingest": {"counts": {"records": 6, "raw": 4, "refused": 1, "quarantined": 1}, "report": {"sources": sources}},
        "curate": {
            "counts": {"raw": 4, "documents": 3, "rejected": 1},
            "report": {"rejected": {"too_much": 1}},
            "inputs": {"raw": [outputs["ingest"]["raw"]]},
        },
        "deduplicate": {
            "counts": {"documents": 3, "near": 1},
            "report": {"s_curve": [[0, 0], [0.5, 0.2], [1, 1]]},
            "records_in": 3,
            "records_out": 2,
        },
        "mixture": {"counts": {}, "payload": {"config": {"weights": {"web": 3, "code": 1}}}},
        "sft": {
            "counts": {},
            "report": {"heldout_loss": 2.5, "heldout_loss_before": 3.5, "dialogues": 169, "dropped": 154, "skipped": 0}
            | {"left_out_by_reason": {"no answer of the assistant": 153, "the chat template can't write it": 1}},
        },
        "ppo": {"counts": {}, "report": {"score_last": 0.5, "findings": FINDINGS, "figures": FIGURES}},
        "evaluate": {"counts": {}, "report": {"answers": ANSWERS, "results": [JUDGED], "compared": [COMPARED]}},
    }
    reports = []
    for stage, more in said.items():
        record = StageRecord.model_validate(
            {
                "stage": stage,
                "version": "1",
                "corpus": "toy",
                "fingerprint": prints[stage],
                "state": "done",
                "payload": {},
                "inputs": {},
                "outputs": outputs[stage],
                "started": TIME,
                "seconds": 65.0,
            }
            | more
        )
        write_record(lake, record)
        reports.append(
            StageReport(stage=stage, state="ran", seconds=65.0, fingerprint=prints[stage], outputs=dict(record.outputs))
        )
    reports.append(StageReport(stage="reward", state="skipped", seconds=0, note="no source of preferences"))
    curve = [
        {"fingerprint": prints["ppo"], "stage": "ppo", "step": step, "name": name, "value": step / 10}
        for name in ("score", "kl_per_token", "reward_digits", "heldout_other_judge")
        for step in (1, 2, 3)
    ]
    lake.append_rows("runs.metrics", METRICS, curve, prints["ppo"])
    lake.append_rows(
        "runs.samples", SAMPLES, [{"fingerprint": prints["ppo"], "stage": "ppo"} | row for row in WROTE], "x"
    )
    result = {"checkpoint": "ppo", "task": "perplexity", "metric": "loss", "value": 2.5, "low": 2.25, "high": 2.75}
    row = result | {"n": 40, "fingerprint": prints["evaluate"]}
    tuned = row | {"checkpoint": "sft", "value": 2.75, "low": 2.5, "high": 3.0}
    judged = JUDGED | {"fingerprint": prints["evaluate"]}
    lake.append_rows("runs.evaluations", EVALUATIONS, [row, row, tuned, judged], prints["evaluate"])
    write_manifest(
        lake,
        Manifest(
            run="20260102-030405-abcd",
            corpus="toy",
            recipe={
                "corpus": "toy",
                "sources": [{"kind": "code", "name": "books"}],
                "deduplicate": {"threshold": 0.8},
                "long": "x" * 3_000,
            },
            started=TIME,
            finished=TIME.replace(minute=6),
            flow_run="11111111-2222-3333-4444-555555555555",
            stages=reports,
        ),
    )
    return lake


@pytest.fixture(scope="module")
def page(lake: Lake) -> str:
    write_report(lake, "last", None)
    return (lake.root / "reports" / "20260102-030405-abcd.html").read_text(encoding="utf-8")


def test_it_needs_nothing_but_itself(page: str) -> None:
    seen = Page(page)
    assert seen.loaded, "there are pictures"
    assert all(address.startswith("data:image/svg+xml;base64,") for address in seen.loaded)
    assert "script" not in seen.tags
    assert "link" not in seen.tags


def test_what_a_document_says_stays_text(page: str) -> None:
    assert EVIL not in page
    assert EVIL in Page(page).text
    assert "spam<b>" in Page(page).text


def test_it_shows_what_was_dropped_with_its_rules(page: str) -> None:
    text = Page(page).text
    assert "too_much" in text
    assert "also fails spam<b>" in text
    assert "https://example.org/bad" in text
    assert "more characters" in text, "long texts are cut, and it says so"
    assert "https://example.org/moved" in text
    assert "a.warc @ 12" in text


def test_the_funnel_adds_up(page: str) -> None:
    funnel = re.search(r'id="funnel".*?</table>', page, re.S)
    assert funnel
    numbers = [int(n) for n in re.findall(r'<td class="n">(\d+)</td>', funnel[0])]
    assert numbers == [6, 4, 3, 2, 3]
    assert "1 refused, 1 quarantined" in Page(funnel[0]).text


def test_a_duplicate_stands_beside_the_document_it_repeats(page: str) -> None:
    text = Page(page).text
    assert "near, similarity 0.875" in text
    assert text.index("https://example.org/copy") < text.index("A text that stays, again.")
    assert "kept · web · https://example.org/kept" in text


def test_a_duplicate_by_its_address_claims_no_similarity(
    lake: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.report import page as report

    given = report._Look.duplicates

    def by_address(look: Any) -> list[dict[str, Any]]:
        return [pair | {"level": "url", "similarity": None} for pair in given(look)]

    monkeypatch.setattr(report._Look, "duplicates", by_address)
    out = tmp_path / "page.html"
    write_report(lake, "last", out)
    text = Page(out.read_text(encoding="utf-8")).text
    assert "url: the same address" in text


def test_curves_and_evaluations_are_there_once(page: str) -> None:
    assert 'alt="ppo: score"' in page
    assert 'alt="ppo: reward and its parts"' in page
    assert 'alt="ppo: held-out score by other reward models"' in page
    assert 'alt="ppo: KL to the reference (nats per token)"' in page
    assert page.count("2.25 to 2.75") == 1
    table = re.search(r'id="evaluation".*?</table>', page, re.S)
    assert table
    assert re.findall(r"<th[^>]*>(\w+)</th>", table[0]) == ["task", "metric", "sft", "ppo", "items"]
    assert table[0].count("<tr>") == 3, "a row for each metric, a column for each model"
    assert re.search(r'<td class="n best">2\.5<br>', table[0]), "the best of a row is marked"
    assert "score last 0.5" in Page(page).text


def test_a_benchmarks_score_stands_beside_what_of_it_was_seen_in_training(page: str) -> None:
    part = page[page.index('id="evaluation"') : page.index('id="answers"')]
    (row,) = [row for row in re.findall(r"<tr>.*?</tr>", part, re.S) if "arc easy" in row and "seen" in row]
    assert "25.0% seen, without 0.375" in row
    (row,) = [row for row in re.findall(r"<tr>.*?</tr>", part, re.S) if "+0.2" in row]
    assert [text in row for text in ("arc easy", "sft", "+0.05 to +0.35", "yes")] == [True] * 4


def test_findings_stand_at_the_top_and_lead_to_the_curve_that_shows_them(page: str) -> None:
    head = Page(page[: page.index("</header>")]).text
    kl = "KL runs away (0.5 nats a token over steps 21-30, 1 over steps 31-40)"
    assert f"ppo: {FINDINGS[0]['what']}: raise kl_coefficient" in head
    assert FINDINGS[0]["what"].startswith("KL runs away"), kl
    assert "the reward format" not in head, "a note is nothing to beware of"
    part = page[page.index('id="training"') : page.index('id="evaluation"')]
    assert re.search(r'<a href="#ppo-kl_per_token">KL runs away', part)
    assert 'figure id="ppo-kl_per_token"' in part
    assert "the reward format is always 1 (40 steps)" in Page(part).text


def test_a_methods_own_figures_are_drawn_whatever_they_hold(page: str) -> None:
    part = page[page.index('id="training"') : page.index('id="evaluation"')]
    assert 'alt="ppo: accuracy by source"' in part
    assert 'alt="ppo: calibration"' in part
    assert "with 95% intervals" in part
    assert re.search(r"<mark>&lt;script&gt;.*\nyes</mark>", part)
    assert Page(part).text.count(EVIL) == 6, "in a table, in a marked text, and in the prompts of answers"


def test_answers_on_the_way_are_a_table_of_first_last_and_some_between(page: str) -> None:
    part = page[page.index("What it wrote") : page.index('id="evaluation"')]
    assert re.findall(r'<tr><td class="n">(\d)</td>', part) == ["1", "4", "6", "9"]
    assert re.findall(r"<th[^>]*>([\w ]+)</th>", part) == ["step", "prompt", "answer", "kl", "score", "tokens"]
    assert "你好" in part


def test_the_terminal_tells_findings_and_every_curve_of_rollouts(lake: Lake) -> None:
    told = list(summary(lake, find_manifest(lake, "last").stages))
    assert any(line.startswith("ppo: KL runs away (") and "raise kl_coefficient" in line for line in told)
    assert any(re.match(r"ppo: reward digits +0.100 -> +0.300", line) for line in told)
    assert any(re.match(r"ppo: other judge +0.100 -> +0.300", line) for line in told)


def test_the_terminal_tells_a_methods_own_figures_and_some_answers(lake: Lake) -> None:
    told = list(summary(lake, find_manifest(lake, "last").stages))
    assert "ppo: calibration" in told
    assert "ppo:   said: 0.1 → 0.2, 0.9 → 0.8" in told
    wrote = [line for line in told if "=>" in line]
    assert [line.partition(": <|user|>")[0] for line in wrote] == ["ppo: step 1", "ppo: step 9"]
    assert wrote[-1].endswith("=> answer 9 (score 0.9)")


def test_it_leads_nowhere_but_within_itself(page: str) -> None:
    links = Page(page).links
    assert links
    assert all(link.startswith("#") and f'id="{link[1:]}"' in page for link in links)


def test_its_head_says_what_the_run_is_and_what_to_beware_of(page: str) -> None:
    head = Page(page[: page.index("</header>")]).text
    for told in ("toy", "2026-01-02 03:04 UTC", "7 ran, 1 skipped", "records read", "held-out loss", "3.5 before"):
        assert told in head
    told = "sft: 154 of 323 dialogues left out: 153 no answer of the assistant; 1 the chat template can't write it"
    assert told in unescape(head)
    assert "web: 1 record couldn't be read" in head
    assert "empty: gave nothing: 0 records read" in head


def test_the_mixture_is_told_by_source_and_language_as_asked_and_as_realised(page: str) -> None:
    tables = re.findall(r"<tr>(.*?)</tr>", page[page.index('id="mixture"') : page.index('id="dropped"')], re.S)
    rows = [Page(row.replace("</td>", " </td>")).text.split() for row in tables]
    assert ["web", "75.0%", "60.0%", "600", "2.00", "1", "0"] in rows
    assert ["code", "25.0%", "40.0%", "400", "1.00", "1", "1"] in rows
    assert ["zh", "40.0%", "400", "1"] in rows


def test_the_terminal_tells_the_mixture_too(lake: Lake) -> None:
    told = list(lines(*shares(lake, find_manifest(lake, "last").refs, {"web": 3, "code": 1, "gone": 1})))
    assert [line.split() for line in told[:4]] == [
        ["mixture", "asked", "words", "tokens", "epochs", "documents", "held", "out"],
        ["web", "60.0%", "60.0%", "2.00", "1", "0"],
        ["code", "20.0%", "40.0%", "1.00", "1", "1"],
        ["gone", "20.0%", "0.0%", "0.00", "0", "0"],
    ]
    assert told[4] == "mixture by language, in words: en 60.0%, zh 40.0%"


def test_answers_stand_side_by_side_and_read_in_their_own_direction(page: str) -> None:
    part = page[page.index('id="answers"') : page.index('id="stages"')]
    text = Page(part).text
    assert "这是什么？" in text
    assert EVIL in text
    assert "(nothing)" in text
    assert part.count('class="text" dir="auto"') == 3


def test_code_is_set_in_a_font_of_equal_widths(page: str) -> None:
    assert "text code" not in page, "no sample is of a source of code here"
    from flows.report import headlines

    assert headlines.code_sources(Manifest.model_construct(recipe={"sources": [{"kind": "code"}]})) == {"code"}


@pytest.mark.parametrize(("scheme", "colour"), [("light", "rgb(251, 252, 253)"), ("dark", "rgb(15, 21, 27)")])
def test_it_fits_a_phone_in_a_browser(page: str, tmp_path: Path, scheme: str, colour: str) -> None:
    opened = page.replace("<details>", "<details open>")
    width, needed, background = laid_out(opened, tmp_path, 500, scheme)
    assert (width, background) == (500, colour)
    assert needed <= 500


def test_skipped_stages_say_why(page: str) -> None:
    assert "no source of preferences" in Page(page).text


def test_the_same_run_gives_the_same_page(lake: Lake, page: str) -> None:
    out = lake.root / "reports" / "again.html"
    made = write_report(lake, "20260102", out)
    assert made == {"run": "20260102-030405-abcd", "report": str(out), "bytes": out.stat().st_size}
    assert out.read_text(encoding="utf-8") == page


def test_a_run_that_reads_nothing_but_dialogues_has_a_page_too(tmp_path: Path) -> None:
    lake = Lake(tmp_path).create()
    write_manifest(lake, Manifest(run="r", corpus="c", recipe={}, started=TIME, finished=TIME, stages=[]))
    assert write_report(lake, "r", None)["bytes"] > 1000


def test_an_unknown_run_is_one_line(lake: Lake, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no finished run 1999"):
        write_report(lake, "1999", None)
    with pytest.raises(UserError, match="is a folder"):
        write_report(lake, "last", tmp_path)


def test_numbers_are_for_people() -> None:
    assert (number(1234567), number(0.123456), number(None)) == ("1,234,567", "0.1235", "")
    assert (share(1, 4), share(1, 10_000), share(0, 5), share(1, 0)) == ("25.0%", "under 0.1%", "0.0%", "")
    assert (seconds(5.04), seconds(65), seconds(3700)) == ("5.0 s", "1 min 5 s", "1 h 1 min")
    assert excerpt(" a ") == "a"
    assert excerpt("abcdef", 4) == "abcd … (2 more characters)"


def test_the_report_estimates_what_each_stage_cost_where_there_is_a_price(lake: Lake, page: str) -> None:
    manifest = find_manifest(lake)
    priced = manifest.model_copy(update={"recipe": manifest.recipe | {"runtime": {"price_per_hour": 3600.0}}})
    assert '<th class="n">hours</th>' in page
    assert '<th class="n">cost</th>' not in page
    estimated = render(lake, priced)
    built = [record for one in manifest.stages if one.fingerprint and (record := read_record(lake, one.fingerprint))]
    assert len(built) > 3
    for record in built:  # at that price a second costs one
        assert f'<td class="n">{record.seconds / 3600:.3f}</td>\n<td class="n">{record.seconds:.2f}</td>' in estimated
    assert f"{sum(record.seconds for record in built):.2f} in all" in estimated
