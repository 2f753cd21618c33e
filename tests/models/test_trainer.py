"""The loop: what a loss is divided by, what a resume puts back, what a kill leaves, and what the callbacks do."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from datalake.errors import UserError
from models.methods.pretrain import PretrainConfig
from models.objectives.base import Loss
from models.parallel.ranks import ALONE
from models.training import loop as trainer
from models.training.callbacks import Checkpoints, Evaluation, Metrics, Progress
from models.training.device import choose
from models.training.loop import Callback, fit, split
from models.training.metrics import read_metrics
from models.training.optimizer import build_optimizer, scale_and_clip
from models.training.schedule import build_schedule
from models.training.spikes import SpikeGuard
from models.training.state import State, load_state, save_state

STEPS = 12


@dataclass
class Rows:
    inputs: Tensor
    wanted: Tensor
    mask: Tensor


class Toy(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.1), nn.Linear(16, 1))

    def forward(self, inputs):
        return self.body(inputs)


def toy_loss(model, batch):
    errors = (model(batch.inputs)[..., 0] - batch.wanted).square() * batch.mask
    return Loss(errors.sum(), int(batch.mask.sum()), {"absolute": errors.detach().sqrt().sum()})


def toy_rows(step, rows=8, length=5):
    generator = torch.Generator().manual_seed(1000 + step)
    inputs = torch.randn(rows, length, 4, generator=generator)
    # rows count 1, 2, 3... targets, so that a mean of means is not the mean
    mask = (torch.arange(length) <= torch.arange(rows)[:, None] % length).float()
    return Rows(inputs, inputs.sum(-1).sin(), mask)


def toy_batches(parts=1):
    return lambda step: [split(toy_rows(step), parts)]


class Slow(Callback):
    def on_step(self, run, row):
        time.sleep(0.05)


def train(work: Path, steps=STEPS, extra=(), parts=1, optimizer="adamw"):
    """A whole run, resumed from what is in `work`; dropout makes the weights depend on the random state too."""
    torch.manual_seed(7)
    model = Toy()
    config = PretrainConfig(learning_rate=0.01, optimizer=optimizer)
    callbacks = [SpikeGuard(6.0), *extra, Metrics(work / "metrics.jsonl"), Checkpoints(work / "state", 3, "toy")]
    optimizers = build_optimizer(config, {"model": model})
    schedule = build_schedule("cosine", STEPS, 2, floor=0.1)
    state = load_state(work / "state", "toy")
    fit(model, toy_loss, toy_batches(parts), optimizers, schedule, callbacks, state, steps=steps)
    return model


def alone(model, optimizers=None):
    """A run in progress, of ten steps."""
    optimizers = optimizers or build_optimizer(PretrainConfig(), {"model": model})
    schedule = build_schedule("constant", 10)
    return trainer.Run(model, optimizers, schedule, State(), 10, [], choose("float32", "cpu"), ALONE)


def weights(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def assert_bit_equal(one, other):
    assert one.keys() == other.keys()
    for name in one:
        assert torch.equal(one[name], other[name]), name


class TestDivision:
    @pytest.mark.parametrize("parts", [2, 8])
    def test_accumulated_loss_and_gradient_equal_those_of_the_whole_batch(self, parts):
        torch.manual_seed(0)
        model = Toy().double().eval()
        seen = {}
        for count in (1, parts):
            rows = toy_rows(0)
            rows = Rows(rows.inputs.double(), rows.wanted.double(), rows.mask.double())
            assert len({int(part.mask.sum()) for part in split(rows, 8)}) > 1
            optimizers = build_optimizer(PretrainConfig(), {"model": model})
            totals, _ = trainer._backward(alone(model, optimizers), toy_loss, split(rows, count))
            targets = totals["targets"]
            scale_and_clip(optimizers, 1 / targets, 0)
            seen[count] = totals["total"] / targets, [parameter.grad.clone() for parameter in model.parameters()]
            optimizers.zero_grad()
        assert seen[1][0] == pytest.approx(seen[parts][0], rel=1e-12)
        for whole, part in zip(seen[1][1], seen[parts][1], strict=True):
            torch.testing.assert_close(whole, part, rtol=1e-10, atol=1e-14)

    def test_the_loss_is_the_mean_over_targets_by_hand(self):
        model = Toy().eval()
        rows = toy_rows(0)
        totals, _ = trainer._backward(alone(model), toy_loss, split(rows, 4))
        targets = totals["targets"]
        with torch.no_grad():
            errors = (model(rows.inputs)[..., 0] - rows.wanted).square()[rows.mask.bool()]
        assert targets == errors.numel()
        assert totals["total"] / targets == pytest.approx(float(errors.mean()), rel=1e-5)

    def test_a_micro_batch_without_targets_changes_nothing(self):
        model = Toy().eval()
        rows = toy_rows(0)
        empty = Rows(rows.inputs, rows.wanted, torch.zeros_like(rows.mask))
        totals, _ = trainer._backward(alone(model), toy_loss, [rows, empty])
        assert totals == trainer._backward(alone(model), toy_loss, [rows])[0]
        assert totals["targets"] == 21


class TestOptimizer:
    def test_decay_falls_on_matrices_only(self):
        groups = build_optimizer(PretrainConfig(weight_decay=0.3), {"model": Toy()}).param_groups
        assert {(group["weight_decay"], parameter.ndim) for group in groups for parameter in group["params"]} == {
            (0.3, 2),
            (0.0, 1),
        }

    def test_a_shared_parameter_is_updated_once(self):
        one = Toy()
        groups = build_optimizer(PretrainConfig(), {"a": one, "b": one}).param_groups
        assert sum(len(group["params"]) for group in groups) == len(list(one.parameters()))

    def test_each_clip_unit_is_clipped_alone_and_the_norm_is_over_all(self):
        a, b = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        a.weight.grad, b.weight.grad = torch.tensor([[30.0]]), torch.tensor([[0.4]])
        optimizers = build_optimizer(PretrainConfig(), {"a": a, "b": b})
        assert scale_and_clip(optimizers, 0.1, 1.0) == pytest.approx((3.0**2 + 0.04**2) ** 0.5)
        assert a.weight.grad.item() == pytest.approx(1.0)
        assert b.weight.grad.item() == pytest.approx(0.04)

    def test_clipping_equals_torchs_own(self):
        torch.manual_seed(0)
        one, other = Toy().eval(), Toy().eval()
        other.load_state_dict(one.state_dict())
        for model in (one, other):
            (100 * toy_loss(model, toy_rows(1)).total).backward()
        norm = scale_and_clip(build_optimizer(PretrainConfig(), {"model": one}), 1.0, 1.0)
        oracle = nn.utils.clip_grad_norm_(other.parameters(), 1.0)
        assert norm == pytest.approx(float(oracle), rel=1e-5)
        for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
            torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-5, atol=1e-7)

    def test_muon_takes_the_inner_matrices_and_leaves_the_embedding(self):
        model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 4))
        adam, muon = build_optimizer(PretrainConfig(optimizer="muon"), {"model": model}).parts
        assert [tuple(p.shape) for group in muon.param_groups for p in group["params"]] == [(4, 4)]
        assert [tuple(p.shape) for group in adam.param_groups for p in group["params"]] == [(5, 4), (4,)]

    def test_a_model_without_parameters_is_refused(self):
        with pytest.raises(ValueError, match="no parameters"):
            build_optimizer(PretrainConfig(), {"model": nn.ReLU()})


class TestResume:
    @pytest.mark.parametrize("optimizer", ["adamw", "muon"])
    def test_a_run_in_two_parts_ends_bit_equal_to_one_in_one(self, tmp_path, optimizer):
        whole = train(tmp_path / "whole", optimizer=optimizer)
        train(tmp_path / "parts", steps=5, optimizer=optimizer)
        torch.manual_seed(999)  # a resume owes nothing to the state it finds
        parts = train(tmp_path / "parts", optimizer=optimizer)
        assert_bit_equal(weights(whole), weights(parts))

    def test_the_data_of_a_step_depends_on_its_number_alone(self, tmp_path):
        whole = read_metrics_of(tmp_path / "whole", lambda work: train(work))
        parts = read_metrics_of(tmp_path / "parts", lambda work: (train(work, steps=7), train(work)))
        assert [row["loss"] for row in whole] == [row["loss"] for row in parts]
        assert [row["lr"] for row in whole] == [row["lr"] for row in parts]

    def test_a_killed_run_resumes_bit_equal_with_every_step_in_the_metrics_once(self, tmp_path):
        script = (
            "import sys, torch; from pathlib import Path; sys.path[:0] = sys.argv[2:]; torch.set_num_threads(1)\n"
            "from test_trainer import Slow, train\n"
            "train(Path(sys.argv[1]), extra=[Slow()])\n"
        )
        here = Path(__file__).parent
        work = tmp_path / "killed"
        command = [sys.executable, "-c", script, str(work), str(here), str(here.parent.parent)]
        process = subprocess.Popen(command)
        try:
            deadline = time.time() + 120
            while len(read_metrics(work / "metrics.jsonl")) < 5:
                assert process.poll() is None, "the run ended before it could be killed"
                assert time.time() < deadline
                time.sleep(0.01)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
        assert 3 <= load_state(work / "state", "toy").step < STEPS
        resumed, whole = train(work), train(tmp_path / "whole")
        assert_bit_equal(weights(resumed), weights(whole))
        assert [row["step"] for row in read_metrics(work / "metrics.jsonl")] == list(range(1, STEPS + 1))

    def test_the_last_two_states_are_kept(self, tmp_path):
        train(tmp_path)
        assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["step-000000009", "step-000000012"]

    def test_a_damaged_state_is_passed_over_for_the_one_before(self, tmp_path):
        train(tmp_path)
        damaged = tmp_path / "state" / "step-000000012" / "state.pt"
        damaged.write_bytes(damaged.read_bytes()[:-7])
        assert load_state(tmp_path / "state", "toy").step == 9

    def test_leftovers_of_a_kill_are_cleared(self, tmp_path):
        save_state(tmp_path, {"step": 1, "targets": 0}, "x")
        (tmp_path / ".step-000000002.1.tmp").mkdir()
        assert load_state(tmp_path, "x").step == 1
        assert [path.name for path in tmp_path.iterdir()] == ["step-000000001"]

    def test_a_state_of_another_run_is_refused_in_one_line(self, tmp_path):
        save_state(tmp_path, {"step": 1, "targets": 0}, "one")
        with pytest.raises(UserError, match="other settings") as error:
            load_state(tmp_path, "other")
        assert "\n" not in str(error.value)

    def test_a_finished_run_started_again_does_nothing(self, tmp_path):
        first = train(tmp_path)
        before = (tmp_path / "metrics.jsonl").read_bytes()
        assert_bit_equal(weights(first), weights(train(tmp_path)))
        assert (tmp_path / "metrics.jsonl").read_bytes() == before


def read_metrics_of(work, run):
    run(work)
    return read_metrics(work / "metrics.jsonl")


class TestSpikeGuard:
    def poisoned(self, at, factor):
        def batches(step):
            rows = toy_rows(step)
            return [[Rows(rows.inputs, rows.wanted * (factor if step == at else 1), rows.mask)]]

        return batches

    def run(self, tmp_path, factor, guard, steps=30, at=20):
        torch.manual_seed(7)
        model = Toy()
        optimizers = build_optimizer(PretrainConfig(learning_rate=0.01), {"model": model})
        seen = []

        class Watch(Callback):
            def on_step(self, run, row):
                seen.append((dict(row), weights(run.model)))

        fit(
            model,
            toy_loss,
            self.poisoned(at, factor),
            optimizers,
            build_schedule("constant", steps),
            [guard, Watch()],
            State(),
            steps=steps,
        )
        return seen

    @pytest.mark.parametrize("factor", [100.0, float("nan"), float("inf")])
    def test_a_bad_batch_is_skipped_and_recorded_and_the_weights_stay(self, tmp_path, factor):
        guard = SpikeGuard(6.0)
        seen = self.run(tmp_path, factor, guard)
        assert [event["step"] for event in guard.events] == [21]
        assert [row["skipped"] for row, _ in seen] == [0.0] * 20 + [1.0] + [0.0] * 9
        assert_bit_equal(seen[19][1], seen[20][1])
        assert not torch.equal(seen[20][1]["body.0.weight"], seen[21][1]["body.0.weight"])

    def test_without_a_guard_a_loss_that_is_not_finite_ends_the_run(self, tmp_path):
        with pytest.raises(FloatingPointError, match="step 21"):
            self.run(tmp_path, float("nan"), Callback())

    def test_a_loss_that_stays_bad_ends_the_run(self):
        guard = SpikeGuard(6.0, patience=3)
        run = alone(Toy())
        assert not guard.accept(run, float("nan"), 1.0)
        assert not guard.accept(run, float("nan"), 1.0)
        with pytest.raises(FloatingPointError, match="3 updates in a row"):
            guard.accept(run, float("nan"), 1.0)

    def test_a_run_that_took_no_update_at_all_fails(self, tmp_path):
        # LLaMA-Factory#2810 and trl#6668: losses that were no numbers, and a run that ended as if it had learned
        with pytest.raises(FloatingPointError, match=r"none of 1 updates could be taken, the last for loss nan"):
            self.run(tmp_path, float("nan"), SpikeGuard(6.0), steps=1, at=0)
        self.run(tmp_path, float("nan"), SpikeGuard(6.0), steps=2, at=0)  # one was

    def test_a_micro_batch_without_targets_adds_nothing(self):
        # nanochat#618: nothing but the user's tokens in a small micro-batch, and the mean over none is no number
        torch.manual_seed(7)
        empty, rows = toy_rows(0), toy_rows(1)
        empty = Rows(empty.inputs, empty.wanted, torch.zeros_like(empty.mask))
        trained = []
        for update in ([rows], [empty, rows, empty]):
            torch.manual_seed(7)
            model = Toy().eval()
            totals, _ = trainer._backward(alone(model), toy_loss, update)
            trained.append((totals["total"] / totals["targets"], [part.grad for part in model.parameters()]))
        assert trained[0][0] == trained[1][0]
        for one, other in zip(trained[0][1], trained[1][1], strict=True):
            assert torch.equal(one, other)

    def test_its_history_survives_a_resume(self):
        guard, other = SpikeGuard(6.0), SpikeGuard(6.0)
        run = alone(Toy())
        for number in range(20):
            assert guard.accept(run, 2.0 + 0.01 * (number % 3), 1.0)
        other.load(json.loads(json.dumps(guard.saved())))
        assert not other.accept(run, 4.0, 1.0)
        assert SpikeGuard(6.0).accept(run, 4.0, 1.0)


class TestCallbacks:
    def test_metrics_hold_a_row_a_step_as_valid_json(self, tmp_path):
        train(tmp_path)
        rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
        assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
        assert {"loss", "lr", "grad_norm", "tokens_per_s", "absolute", "skipped"} <= rows[0].keys()
        assert rows[-1]["loss"] < rows[0]["loss"]

    def test_a_row_cut_short_by_a_kill_is_dropped(self, tmp_path):
        path = tmp_path / "metrics.jsonl"
        path.write_text('{"step": 1}\n{"step": 2}\n{"st')
        assert [row["step"] for row in read_metrics(path)] == [1, 2]

    def test_evaluation_adds_its_figures_when_due_and_shapes_nothing(self, tmp_path):
        modes = []

        def measure(model):
            modes.append((model.training, torch.is_grad_enabled()))
            return {"loss": 1.5}

        evaluation = Evaluation(measure, every=5)
        with_it = train(tmp_path / "a", extra=[evaluation])
        without = train(tmp_path / "b")
        rows = read_metrics(tmp_path / "a" / "metrics.jsonl")
        assert [row["step"] for row in rows if "heldout_loss" in row] == [5, 10, 12]
        assert modes == [(False, False)] * 4  # before the first step, too
        assert evaluation.last == {"loss": 1.5}
        assert_bit_equal(weights(with_it), weights(without))

    def test_progress_is_told_of_each_step(self, tmp_path):
        told = []
        train(tmp_path, extra=[Progress(told.append)])
        assert [(row["step"], row["steps"]) for row in told] == [(step, STEPS) for step in range(1, STEPS + 1)]
