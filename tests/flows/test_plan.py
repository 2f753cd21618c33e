"""`headwater plan`: budgets in, plans and laws out, and one line for what can't be."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from harness import Command
from world import Whole

FIELDS = ["parameters", "tokens", "batch", "learning_rate", "loss", "loss_low", "loss_high", "memory_gb", "hours"]


@pytest.fixture
def trainings(tmp_path: Path) -> Path:
    path = tmp_path / "trainings.csv"
    rows = [f"{n},{d},{1.69 + 406.4 * n**-0.34 + 410.7 * d**-0.28}" for n in (1e6, 4e6, 2e7) for d in (1e8, 5e8, 2e9)]
    path.write_text("\n".join(["parameters,tokens,loss", *rows]))
    return path


def test_a_budget_of_every_kind_gives_a_plan(headwater: Command) -> None:
    for budget in (
        ["--flops", "1e19"],
        ["--gpu-hours", "24", "--gpu", "H100"],
        ["--money", "50", "--price", "2.5", "--gpu", "a100"],
        ["--loss", "3"],
    ):
        plan = headwater("plan", *budget, "--json")
        assert plan.status == 0, plan.err
        assert list(plan.json) == FIELDS
        assert all(value > 0 for value in plan.json.values())
    shown = headwater("plan", "--flops", "1e19")
    assert "learning_rate\t0.0018219" in shown.out
    assert "pretrain: {layers: 16, width: 1088" in shown.out
    assert "1 x H100" in shown.err


def test_laws_are_fitted_to_a_file(headwater: Command, trainings: Path) -> None:
    laws = headwater("plan", "--fit", trainings, "--json").json
    assert list(laws) == ["chinchilla", "kaplan"]
    assert list(laws["chinchilla"]) == ["E", "A", "B", "alpha", "beta", "objective", "intervals"]
    assert laws["chinchilla"]["alpha"] == pytest.approx(0.34, rel=1e-4)
    assert laws["chinchilla"]["intervals"]["E"] == pytest.approx([1.69, 1.69], rel=1e-4)
    assert list(laws["kaplan"]) == ["N_c", "D_c", "alpha_N", "alpha_D", "objective", "intervals"]
    assert "chinchilla, objective" in headwater("plan", "--fit", trainings).out


def test_a_plan_by_trainings_of_ones_own(headwater: Command, trainings: Path) -> None:
    plan = headwater("plan", "--fit", trainings, "--flops", "3e16", "--json")
    size, tokens = plan.json["parameters"], plan.json["tokens"]
    assert plan.json["loss"] == pytest.approx(1.69 + 406.4 * size**-0.34 + 410.7 * tokens**-0.28, rel=1e-4)
    assert "fitted to" in plan.err
    assert "beyond" not in plan.err


def test_a_plan_says_where_its_law_ends_and_what_no_shape_can_be(headwater: Command, trainings: Path) -> None:
    large = headwater("plan", "--fit", trainings, "--flops", "1e20").err
    assert re.search(r"the model is [\d.]+ times beyond the largest that the law was fitted to", large)
    assert re.search(r"the tokens are [\d.]+ times beyond the most that the law was fitted to", large)
    assert "the section's model" not in large
    small = headwater("plan", "--fit", trainings, "--flops", "5e13").err
    assert re.search(r"the model is [\d.]+ times beyond the smallest", small)
    assert "the section's model has 2,1" in small, "a vocabulary of 32,768 alone takes two million at a width of 64"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give one budget"),
        (["--flops", "1e19", "--loss", "3"], "give one budget"),
        (["--flops", "0"], "--flops 0: a finite number above 0"),
        (["--flops=-1"], "--flops -1: a finite number above 0"),
        (["--flops", "nan"], "--flops nan"),
        (["--flops", "inf"], "--flops inf"),
        (["--flops", "1"], "plans are made from"),
        (["--flops", "many"], "many"),
        (["--loss", "1.5"], "E = 1.817"),
        (["--gpu-hours", "3"], "--gpu"),
        (["--gpu-hours", "3", "--gpu", "Voodoo2"], "no GPU 'Voodoo2' is known"),
        (["--money", "3", "--gpu", "H100"], "--price"),
        (["--flops", "1e19", "--price", "3"], "--price needs --money"),
        (["--flops", "1e19", "--mfu", "1.5"], "--mfu 1.5"),
        (["--flops", "1e400"], "--flops inf: a finite number above 0"),
        (["--gpu-hours", "10k", "--gpu", "H100"], '"10k"'),
        (["--gpu-hours", "3", "--gpu", ""], "no GPU '' is known"),
        (["--flops", "1e19", "--gpus", "0"], "--gpus 0"),
        (["--flops", "1e19", "--gpus", "1.5"], 'unable to convert "1.5" into int'),
        (["--flops", "1e19", "--epochs", "0"], "--epochs 0"),
        (["--flops", "1e19", "--context", "1"], "--context 1"),
        (["--flops", "1e23", "--gpu", "H100"], "give --gpus"),
        (["--fit", "nowhere.csv"], "nowhere.csv can't be read"),
        (["--fit", "."], "can't be read"),
        (["--flops", "1e19", "--lake", "nowhere"], "no lake at"),
        (["--flops", "1e19", "--corpus", "demo"], "no lake at"),
    ],
)
def test_what_can_not_be_planned_is_one_line(headwater: Command, arguments: list[str], said: str) -> None:
    assert said in headwater("plan", *arguments).mistake()


def test_a_lake_without_tokens_is_told_where_it_was_asked_for(headwater: Command, tmp_path: Path) -> None:
    (tmp_path / "lake" / "runs").mkdir(parents=True)
    assert "no tokens" in headwater("plan", "--flops", "1e19", "--lake", tmp_path / "lake").mistake()
    here = headwater("plan", "--flops", "1e19", "--json")  # ./lake, which nobody named
    assert here.status == 0
    assert "without a corpus" in here.err


def test_a_plan_for_a_corpus_is_held_to_its_tokens(headwater: Command, whole: Whole) -> None:
    sql = "SELECT sum(distinct_tokens)::BIGINT AS tokens FROM tiny.tokens"
    [row] = headwater("query", sql, "--lake", whole.lake, "--json").json
    said = headwater("plan", "--flops", "1e16", "--lake", whole.lake).mistake()
    assert "epochs" in said
    assert "--flops" not in said  # a model for so little text would be none
    said = headwater("plan", "--flops", "1e16", "--epochs", "2000", "--lake", whole.lake).mistake()
    most = said.split("--flops ")[1].split()[0]
    plan = headwater("plan", "--flops", most, "--epochs", "2000", "--lake", whole.lake, "--json")
    assert plan.status == 0, plan.err
    assert plan.json["tokens"] <= 2000 * row["tokens"]
    assert headwater("plan", "--flops", "1e16", "--epochs", "1e9", "--lake", whole.lake).status == 0
    assert (
        "no finished run of a corpus 'none'"
        in headwater("plan", "--flops", "1e16", "--corpus", "none", "--lake", whole.lake).mistake()
    )
