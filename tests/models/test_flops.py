"""FLOPs of a step against a calculation by hand, and peaks by the names that devices have."""

import math

import pytest
import torch
from torch import nn

from models.methods.pretrain import PretrainConfig
from models.network.build import ScalarHead, build_model
from models.network.config import NetworkConfig
from models.objectives.next_token import next_token
from models.text.sampler import Batch
from models.training import loop
from models.training.callbacks import Metrics
from models.training.device import peak_memory_mb
from models.training.flops import Work, peak
from models.training.metrics import plain_row
from models.training.optimizer import build_optimizer
from models.training.schedule import build_schedule
from models.training.state import State

SHAPE = {"vocabulary": 128, "layers": 2, "width": 32, "heads": 4, "kv_heads": 2, "hidden": 64, "context": 16}
BLOCK = 2 * 32 * 8 * (4 + 2) + 3 * 32 * 64 + 2 * 32


class TestWork:
    @pytest.mark.parametrize("tie", [True, False])
    def test_an_embedding_counts_once_where_it_is_the_head_and_else_not(self, tie):
        model = build_model(NetworkConfig(**SHAPE, tie=tie))
        multiplied = 2 * BLOCK + 32 + 128 * 32
        assert Work.of(model).flops(3, 16) == 3 * 16 * (6 * multiplied + 12 * 2 * 4 * 8 * 16)
        assert sum(p.numel() for p in model.parameters()) == multiplied + (0 if tie else 128 * 32)

    def test_of_experts_those_that_a_token_is_sent_to(self):
        dense, sparse = (
            Work.of(build_model(NetworkConfig(**SHAPE, experts=experts, experts_per_token=2))) for experts in (2, 8)
        )
        assert sparse.weights - dense.weights == pytest.approx(6 * 2 * 32 * (8 - 2))  # the router alone

    def test_a_frozen_weight_has_no_gradient_of_its_own(self):
        model = build_model(NetworkConfig(**SHAPE))
        assert Work.of(model.requires_grad_(False)).weights == pytest.approx(
            Work.of(model.requires_grad_(True)).weights / 1.5
        )

    def test_a_scalar_head_is_known_and_other_families_are_not(self):
        assert Work.of(ScalarHead(build_model(NetworkConfig(**SHAPE)))) is not None
        assert Work.of(nn.Linear(2, 2)) is None


@pytest.mark.parametrize(
    ("name", "flops"),
    [
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA H200", 989e12),
        ("NVIDIA GH200 480GB", 989e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA GeForce RTX 4090", 165e12),
        ("NVIDIA GeForce RTX 3090", 71e12),
        ("NVIDIA B200", 2250e12),
        ("NVIDIA GeForce RTX 4090 Laptop GPU", None),
        ("NVIDIA H100 80GB HBM3 MIG 1g.10gb", None),
        ("Tesla V100-SXM2-32GB", None),
        ("Some accelerator of next year", None),
    ],
)
def test_a_peak_is_known_by_name_or_not_at_all(name, flops):
    assert peak(name) == flops


def steps(tmp_path, monkeypatch, flops_a_second):
    monkeypatch.setattr(loop, "device_peak", lambda device: flops_a_second)
    model = build_model(NetworkConfig(**SHAPE))
    tokens = torch.randint(128, (4, 16), generator=torch.Generator().manual_seed(0))
    targets = tokens.roll(-1, 1).index_fill(1, torch.tensor([15]), -100)
    batch = Batch(tokens, targets, torch.arange(16).expand(4, 16), torch.zeros_like(tokens))
    rows = []

    class Kept(loop.Callback):
        def on_step(self, run, row):
            rows.append(dict(row))

    metrics = Metrics(tmp_path / "metrics.jsonl")
    optimizers = build_optimizer(PretrainConfig(), {"model": model})
    schedule = build_schedule("constant", 3)
    loop.fit(
        model, next_token(), lambda step: [[batch, batch]], optimizers, schedule, [Kept(), metrics], State(), steps=3
    )
    return rows, metrics, Work.of(model)


def test_rows_say_how_fast_and_how_large(tmp_path, monkeypatch):
    rows, metrics, work = steps(tmp_path, monkeypatch, 1e12)
    for row in rows:
        assert (row["targets"], row["tokens"]) == (2 * 4 * 15, 2 * 4 * 16)
        seconds = row["tokens"] / row["tokens_per_s"]
        assert row["mfu"] == pytest.approx(work.flops(8, 16) / seconds / 1e12, rel=1e-6)
        assert 1 < row["memory_mb"] <= peak_memory_mb(torch.device("cpu"))
    apart = [row["tokens"] / row["tokens_per_s"] for row in rows[1:]]
    assert metrics.mean("tokens") == pytest.approx(256 / sum(apart))
    assert metrics.mean("mfu") == pytest.approx(work.flops(16, 16) / sum(apart) / 1e12)


def test_where_the_peak_is_not_known_no_share_of_it_is_told(tmp_path, monkeypatch):
    rows, metrics, _ = steps(tmp_path, monkeypatch, None)
    assert plain_row(rows[0])["mfu"] is None
    assert math.isnan(metrics.mean("mfu"))
