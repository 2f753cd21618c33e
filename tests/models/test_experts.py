"""Experts: each token gets its own, in any way of computing them, and the balance loss is Transformers'."""

from __future__ import annotations

import pytest
import torch
from transformers.models.mixtral.modeling_mixtral import load_balancing_loss_func

from models.methods.pretrain import PretrainConfig
from models.network.build import build_model
from models.network.config import NetworkConfig
from models.network.experts import Mixture, auxiliary
from models.objectives.assistant_tokens import assistant_tokens, collate
from models.objectives.next_token import next_token
from models.text.sampler import Batch
from models.training.optimizer import build_optimizer

NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
SHAPE = NetworkConfig(
    vocabulary=64, layers=2, width=48, heads=4, kv_heads=2, hidden=32, context=32, experts=4, experts_per_token=2
)


def mixture(**other) -> Mixture:
    torch.manual_seed(0)
    made = Mixture(SHAPE.model_copy(update=other))
    for parameter in made.parameters():
        parameter.data.normal_(0, 0.3)
    return made


def plainly(made: Mixture, x_BTD: torch.Tensor) -> torch.Tensor:
    """Every expert on every token, the chosen ones weighted: what it means, at the price of all experts."""
    weights, chosen = made.gate(x_BTD).softmax(-1).topk(made.per_token, dim=-1)
    share = torch.zeros(*x_BTD.shape[:-1], len(made.experts)).scatter(
        -1, chosen, weights / weights.sum(-1, keepdim=True)
    )
    return sum(share[..., e : e + 1] * expert(x_BTD) for e, expert in enumerate(made.experts))


@pytest.mark.parametrize("per_token", [1, 2, 4])
def test_sorted_by_expert_is_what_the_sum_over_experts_says_gradients_too(per_token: int) -> None:
    made = mixture(experts_per_token=per_token)
    x = torch.randn(3, 7, 48, requires_grad=True)
    for say in (made, lambda x: plainly(made, x)):
        made.zero_grad()
        x.grad = None
        out = say(x)
        out.square().sum().backward()
        found = [out, x.grad, *(parameter.grad for parameter in made.parameters())]
        if say is made:
            ours = found
    for mine, theirs in zip(ours, found, strict=True):
        assert torch.allclose(mine, theirs, rtol=1e-5, atol=1e-6 * float(theirs.abs().max()))  # of sums of such terms


def test_one_token_and_experts_that_nobody_chose() -> None:
    made = mixture()
    x = torch.randn(1, 1, 48)
    out = made(x)
    assert torch.allclose(out, plainly(made, x), atol=1e-5)
    out.sum().backward()
    assert all(parameter.grad is not None for parameter in made.parameters())


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=NEEDS_CUDA)])
def test_the_grouped_product_is_the_loop_in_bfloat16(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made, x = mixture().to(device, torch.bfloat16), torch.randn(2, 9, 48).to(device, torch.bfloat16)
    found = []
    for grouped in (True, False):
        with monkeypatch.context() as patch:
            if not grouped:
                patch.setattr(Mixture, "_grouped", Mixture._one_by_one)
            made.zero_grad()
            out = made(x)
            out.float().square().sum().backward()
        found.append([out.detach(), *(parameter.grad for parameter in made.parameters())])
    for mine, theirs in zip(*found, strict=True):
        assert torch.allclose(mine.float(), theirs.float(), rtol=0.03, atol=0.03 * float(theirs.abs().max()))
    made.float()
    with torch.autocast(device, torch.bfloat16):
        mixed = made(x.float())
    assert mixed.dtype == torch.float32
    assert torch.allclose(mixed, made(x.float()), rtol=0.05, atol=0.05)


def test_experts_in_bfloat16_compile_without_a_graph_break() -> None:
    made, x = mixture().bfloat16(), torch.randn(2, 9, 48).bfloat16()
    compiled = torch.compile(made, fullgraph=True, backend="aot_eager")
    assert torch.allclose(compiled(x).float(), made(x).float(), rtol=0.02, atol=0.02)


@pytest.mark.parametrize("padded", [False, True])
def test_the_balance_loss_is_that_of_transformers(padded: bool) -> None:
    model = build_model(SHAPE).train()
    assert auxiliary(build_model(SHAPE.model_copy(update={"experts": 0})).train()) is None
    assert auxiliary(model) is None  # before any pass
    for layer in model.layers:
        layer.mlp.gate.weight.data.normal_(0, 0.5)
    model(torch.randint(64, (3, 12)))
    counted = torch.arange(12)[None] < torch.tensor([[12], [5], [9]]) if padded else None
    gates = tuple(layer.mlp.routing for layer in model.layers)
    expected = load_balancing_loss_func(gates, 4, 2, None if counted is None else counted.long())
    ours = auxiliary(model, counted)
    assert torch.allclose(ours, expected, rtol=1e-6)
    ours.backward()
    assert all(layer.mlp.gate.weight.grad.abs().sum() > 0 for layer in model.layers)


def test_even_use_costs_k_and_one_expert_alone_the_number_of_experts() -> None:
    model = build_model(SHAPE.model_copy(update={"layers": 1, "experts_per_token": 1})).train()
    model.layers[0].mlp.routing = torch.eye(4).repeat(3, 1) * 1e-3
    assert float(auxiliary(model)) == pytest.approx(1.0, abs=1e-3)
    model.layers[0].mlp.routing = torch.tensor([[50.0, 0, 0, 0]]).repeat(8, 1)
    assert float(auxiliary(model)) == pytest.approx(4.0, abs=1e-3)


def rows(lengths: tuple[int, ...], width: int = 12) -> Batch:
    tokens = torch.randint(64, (len(lengths), width), generator=torch.Generator().manual_seed(len(lengths)))
    real = torch.arange(width)[None] < torch.tensor(lengths)[:, None]
    targets = torch.where(real, tokens.roll(-1, 1), -100)
    return Batch(tokens, targets, torch.arange(width).expand(len(lengths), width), torch.where(real, 0, -1))


def test_pretraining_pays_for_imbalance_by_the_targets_of_each_micro_batch() -> None:
    model = build_model(SHAPE).train()
    parts = [rows((12, 12)), rows((12, 3, 7))]
    whole = [next_token(balance=0.5)(model, part) for part in parts]
    plain = [next_token(balance=0.0)(model, part) for part in parts]
    # What the loop divides by all targets: the mean of the micro-batches' balance, weighted by their targets.
    targets = sum(loss.targets for loss in whole)
    balance = sum(float(loss.sums["balance"]) for loss in whole) / targets
    difference = sum((w.total - p.total).item() for w, p in zip(whole, plain, strict=True)) / targets
    assert difference == pytest.approx(0.5 * balance, rel=1e-4)
    assert 1.9 < balance < 4
    # What lies in the padding counts for nothing.
    parts[1].tokens[parts[1].segments < 0] = 5
    again = next_token(balance=0.5)(model, parts[1])
    assert float(again.sums["balance"]) == pytest.approx(float(whole[1].sums["balance"]), rel=1e-5)


def test_the_balance_loss_evens_out_a_router_that_favours_one_expert() -> None:
    spread = {}
    for balance in (0.0, 0.3):
        torch.manual_seed(0)
        model = build_model(SHAPE, seed=1).train()
        optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
        for _ in range(25):
            loss = next_token(balance=balance)(model, rows((12,) * 8))
            (loss.total / loss.targets).backward()
            optimizer.step()
            optimizer.zero_grad()
        next_token()(model, rows((12,) * 8))
        spread[balance] = auxiliary(model).item()
    assert spread[0.3] < spread[0.0]
    assert spread[0.3] < 2.1


def test_muon_takes_experts_but_no_router_embedding_or_head() -> None:
    model = build_model(SHAPE.model_copy(update={"tie": False}))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    _, muon = build_optimizer(PretrainConfig(optimizer="muon"), {"model": model}).parts
    taken = {names[id(parameter)] for group in muon.param_groups for parameter in group["params"]}
    left = {name for name, parameter in model.named_parameters() if parameter.ndim == 2} - taken
    assert left == {"embed_tokens.weight", "lm_head.weight", "layers.0.mlp.gate.weight", "layers.1.mlp.gate.weight"}


def test_checkpointed_experts_pay_the_same_for_imbalance() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = build_model(SHAPE, seed=2).train()
        model.checkpointing = checkpointing
        next_token(balance=0.5)(model, rows((12, 7, 9))).total.backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    assert all(torch.allclose(*pair, rtol=1e-6, atol=1e-7) for pair in zip(*gradients, strict=True))


def test_dialogues_pay_for_balance_too_and_padding_counts_for_nothing() -> None:
    model = build_model(NetworkConfig(layers=2, width=16, heads=2, vocabulary=64, context=32, experts=4)).train()
    rows = [(list(range(3, 3 + length)), [False, *[True] * (length - 1)]) for length in (20, 7)]
    loss = assistant_tokens(model, collate(rows), 0.5)
    plain = assistant_tokens(model, collate(rows))
    assert float((loss.total - plain.total).detach()) == pytest.approx(0.5 * float(loss.sums["balance"]), rel=1e-4)
    read = [len(ids) - 1 for ids, _ in rows]
    routed = [auxiliary_parts(model, collate([row]).tokens) for row in rows]
    share, mean = (sum(part[n] * k for part, k in zip(routed, read, strict=True)) / sum(read) for n in (0, 1))
    balance = float(loss.sums["balance"]) / loss.targets
    assert balance == pytest.approx(float(4 * (share * mean).sum().detach()), rel=1e-5)
    padded = auxiliary_parts(model, collate(rows).tokens)
    assert balance != pytest.approx(float(4 * (padded[0] * padded[1]).sum().detach()), rel=1e-4)


def auxiliary_parts(model: torch.nn.Module, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Choices of each expert a token, and its mean probability, over all layers of a pass."""
    model(tokens)
    logits = torch.cat([part.routing for part in model.modules() if isinstance(part, Mixture)])
    chosen = torch.nn.functional.one_hot(logits.topk(2, -1).indices, 4).sum(1).float()
    return chosen.mean(0), logits.softmax(-1).mean(0)
