"""`headwater eval`: any checkpoint is judged without a run; mistakes are one line; a lake keeps every answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import toys
from completions import Fault, completions

from flows.lake import Lake
from models.network import checkpoint

ROWS = [
    {"q": f"the {a} {b} the", "c": ["bird", "tree"], "g": 0} for a in ("cat", "dog", "cow") for b in ("sees", "eats")
]
ROWS += [{"q": "the cat sees the bird and the dog eats the tree and the cow likes the", "c": ["milk", "bird"], "g": 0}]
TASK = {"kind": "choice", "source": "rows.jsonl", "prompt": "{{ q }}", "choices": "c", "gold": "g"}
KEYS = ["task", "metric", "value", "low", "high", "n"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two checkpoints, a task file with its rows, and a training document that holds the long row."""
    folder = tmp_path_factory.mktemp("eval")
    words = toys.words(folder / "words")
    for seed in (0, 1):
        toys.base(folder / f"model{seed}", words, context=64, seed=seed)
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    (folder / "mine.yaml").write_text(json.dumps(TASK))
    (folder / "training.jsonl").write_text(
        json.dumps({"text": f"Once. {ROWS[-1]['q'].upper()}, MILK! The end."}) + "\n"
    )
    return folder


def ran(capsys: pytest.CaptureFixture[str], *arguments: Any) -> dict[str, Any]:
    from flows.cli import main

    with pytest.raises(SystemExit) as ended:
        main(["eval", *map(str, arguments), "--json"])
    said = capsys.readouterr()
    assert ended.value.code == 0, said.err
    return dict(json.loads(said.out))


def test_a_folder_is_judged_without_a_run(place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    told = ran(capsys, place / "model0", "--tasks", place / "mine.yaml", "--limit", 5, "--out", out, "--lake", tmp_path)
    assert [list(row) for row in told["results"]] == [KEYS, KEYS]
    assert [(row["task"], row["metric"], row["n"]) for row in told["results"]] == [
        ("mine", "accuracy", 5),
        ("mine", "accuracy_norm", 5),
    ]
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["item"] for row in rows] == list("01234")
    assert [row["prompt"] for row in rows] == [row["q"] for row in ROWS[:5]]
    assert told["results"][0]["value"] == sum(row["scores"]["accuracy"] for row in rows) / 5


def test_a_curve_over_shots_and_two_checkpoints_compared(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    models = (place / "model0", place / "model1")
    told = ran(capsys, *models, "--tasks", place / "mine.yaml", "--shots", "0,1,2", "--lake", tmp_path)
    assert [row["shots"] for row in told["results"] if row["metric"] == "accuracy"] == [0, 1, 2] * 2
    assert {row["checkpoint"] for row in told["results"]} == set(map(str, models))
    assert [(row["shots"], row["metric"]) for row in told["compared"][:2]] == [(0, "accuracy"), (0, "accuracy_norm")]
    assert all({"difference", "low", "high", "p", "real", "n"} <= row.keys() for row in told["compared"])


def test_a_lake_keeps_every_answer_once_and_scores_stand_beside_their_contamination(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from datalake.lake.lake import Lake as Store

    store = Store(tmp_path / "lake").create()
    (store.root / "records").mkdir(exist_ok=True)  # as a lake has that something was run in
    asked = [place / "model0", "--tasks", place / "mine.yaml", "--lake", tmp_path / "lake"]
    told = ran(capsys, *asked, "--training", place / "training.jsonl")
    assert told == ran(capsys, *asked, "--training", place / "training.jsonl")
    (dirty,) = told["contamination"]
    assert dirty["items"] == [{"item": "6", "documents": ["training#0"]}]
    assert (dirty["share"], dirty["n"], dirty["clean"]) == (1 / 7, 7, 6)
    assert [row["n"] for row in dirty["without"]] == [6, 6]
    rows = Lake(tmp_path / "lake").query("SELECT * FROM runs.answers ORDER BY item").to_pylist()
    assert [row["item"] for row in rows] == list("0123456")
    assert rows[6]["documents"] == ["training#0"]
    assert dict(rows[0]["scores"]).keys() == {"accuracy", "accuracy_norm", "log_likelihood_0", "log_likelihood_1"}
    figures = Lake(tmp_path / "lake").query("SELECT metric, n FROM runs.evaluations ORDER BY metric").to_pylist()
    assert figures == [{"metric": "accuracy", "n": 7}, {"metric": "accuracy_norm", "n": 7}]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tasks", "arc_esay"], "did you mean arc_easy"),
        (["--tasks", "none.yaml"], "can't be read"),
        (["--tasks", ","], "names nothing"),
        (["--tasks", "MINE", "--limit", "0"], "--limit 0"),
        (["--tasks", "MINE", "--batch", "0"], "--batch 0"),
        (["--tasks", "MINE", "--shots", "x"], "--shots x"),
        (["--tasks", "MINE", "--shots", "9"], "9 worked examples are asked for and there are 6"),
        (["--tasks", "MINE", "--reasons", "maybe"], "--reasons maybe"),
        (["--tasks", "MINE", "--out", "x.csv"], "--out x.csv"),
        (["--tasks", "MINE", "--training", "nowhere.jsonl"], "nowhere.jsonl"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str], said: str, place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from flows.cli import main

    own = [str(place / "mine.yaml") if one == "MINE" else one for one in arguments]
    with pytest.raises(SystemExit) as ended:
        main(["eval", str(place / "model0"), *own, "--lake", str(tmp_path)])
    err = capsys.readouterr().err
    assert ended.value.code == 2
    assert said in err
    assert len(err.splitlines()) == 1


def test_missing_samples_and_models_that_cannot_answer_are_said(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from flows.cli import main

    monkeypatch.setenv("HEADWATER_SAMPLES", str(tmp_path))
    for arguments, said in (
        ([place / "model0", "--tasks", "piqa"], "set HEADWATER_SAMPLES"),
        ([tmp_path / "none", "--tasks", place / "mine.yaml"], "no lake"),
        ([place, "--tasks", place / "mine.yaml"], "no config.json"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["eval", *map(str, arguments), "--lake", str(tmp_path / "lake")])
        assert ended.value.code == 2
        err = capsys.readouterr().err
        assert said in err
        assert len(err.splitlines()) == 1


# A judge behind an address --------------------------------------------------------------------------------------------

OPEN = {"kind": "checked", "prompt": "{{ q }}", "checks": {"kept": "constraints"}, "new_tokens": 4}
OPEN |= {"rows": [{"q": row["q"], "constraints": [{"lacks": ["zebra"]}]} for row in ROWS[:3]]}


def test_a_judge_behind_an_address_says_whose_answer_is_better_in_both_orders(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "open.yaml").write_text(json.dumps(OPEN))
    monkeypatch.setenv("HEADWATER_JUDGE_KEY", "secret-key-of-the-judge")
    models = [loud(place / name, tmp_path / name) for name in ("model0", "model1")]
    with completions(lambda body: "A") as server:
        asked = [*models, "--tasks", tmp_path / "open.yaml", "--judge", server.url, "--judge-model", "m"]
        told = ran(capsys, *asked, "--lake", tmp_path / "none")
    (wins,) = told["wins"]
    assert (wins["metric"], wins["n"], wins["value"]) == ("win_rate", 3, 0.5)  # it always prefers the first
    assert len(server.asked) == 1 + 2 * round(3 * wins["swayed"])  # the probe; equal answers aren't asked about
    assert wins["swayed"] > 0
    assert {headers["authorization"] for headers in map(_lower, server.headers)} == {"Bearer secret-key-of-the-judge"}
    assert "secret-key" not in json.dumps(told)


def loud(folder: Path, out: Path) -> Path:
    """A model with large weights: fresh ones say the same to everything."""
    model, tokenizer = checkpoint.load(folder)
    with torch.no_grad():
        for part in model.parameters():
            part.mul_(6 if part.ndim > 1 else 1)
    return checkpoint.save(model, tokenizer, out)


def _lower(headers: dict[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def test_a_judge_that_can_not_be_asked_is_one_line(
    place: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    from flows.cli import main

    (tmp_path / "open.yaml").write_text(json.dumps(OPEN))
    with completions(lambda body: Fault(status=401)) as server:
        refused = server.url
    two = [str(place / "model0"), str(place / "model1"), "--tasks", str(tmp_path / "open.yaml")]
    with completions(lambda body: Fault(status=401)) as server:
        for arguments, said in (
            ([*two, "--judge", server.url, "--judge-model", "m"], "401"),
            ([*two, "--judge", server.url], "--judge-model"),
            ([two[0], *two[2:], "--judge", server.url, "--judge-model", "m"], "name two checkpoints"),
            ([*two, "--judge", "ftp://x/v1", "--judge-model", "m"], "an address is wanted"),
            ([*two, "--judge", refused, "--judge-model", "m"], "fails after one try"),
        ):
            with pytest.raises(SystemExit) as ended:
                main(["eval", *arguments, "--lake", str(tmp_path / "none")])
            err = capsys.readouterr().err
            assert ended.value.code == 2, arguments
            assert said in err, err
            assert len(err.splitlines()) == 1
