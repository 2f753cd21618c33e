"""Products in bfloat16 beside weights in float32: what stays precise, and that a model learns the same."""

import pytest
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from models.methods.pretrain import PretrainConfig
from models.network.build import build_model
from models.network.config import NetworkConfig
from models.objectives.next_token import next_token
from models.text.sampler import Batch
from models.training.device import choose
from models.training.loop import Callback, fit
from models.training.optimizer import build_optimizer
from models.training.schedule import build_schedule
from models.training.state import State

SHAPE = NetworkConfig(vocabulary=64, layers=2, width=32, heads=4, kv_heads=2, context=24, qk_norm=True)


def batch(step):
    """Rows that count up by 1, 2 or 3, two documents in each: what can be learned."""
    generator = torch.Generator().manual_seed(step)
    starts, strides = torch.randint(64, (16, 2), generator=generator), torch.randint(1, 4, (16, 2), generator=generator)
    tokens = ((starts[..., None] + strides[..., None] * torch.arange(12)) % 64).flatten(1)
    targets = tokens.roll(-1, 1).index_fill(1, torch.tensor([11, 23]), -100)
    segments = torch.arange(24).div(12, rounding_mode="floor").expand(16, 24)
    return Batch(tokens, targets, torch.arange(24).remainder(12).expand(16, 24), segments)


class Kept(Callback):
    def __init__(self):
        self.losses = []

    def on_step(self, run, row):
        self.losses.append(row["loss"])


def train(precision, steps=30, optimizer="adamw"):
    model, kept = build_model(SHAPE, seed=1), Kept()
    optimizers = build_optimizer(PretrainConfig(learning_rate=1e-2, optimizer=optimizer), {"model": model})
    fit(
        model,
        next_token(z_loss=1e-4),
        lambda step: [[batch(step)]],
        optimizers,
        build_schedule("constant", steps),
        [kept],
        State(),
        steps=steps,
        device=choose(precision, "cpu"),
    )
    return model, optimizers, kept.losses


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_weights_and_moments_stay_in_float32_and_the_loss_near(optimizer):
    _, _, exact = train("float32", optimizer=optimizer)
    model, optimizers, near = train("bfloat16", optimizer=optimizer)
    assert near != exact
    assert near[-1] == pytest.approx(exact[-1], rel=0.02)
    assert near[-1] < 0.8 * near[0]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    states = [value for part in optimizers.parts for state in part.state.values() for value in state.values()]
    assert {value.dtype for value in states if isinstance(value, torch.Tensor)} == {torch.float32}


def test_products_are_in_bfloat16_norms_angles_and_the_loss_in_float32():
    seen = {}

    class Types(TorchFunctionMode):
        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                seen.setdefault(getattr(function, "__name__", ""), set()).add(result.dtype)
            return result

    model = build_model(SHAPE, seed=1)
    with choose("bfloat16", "cpu").computing(), Types():
        next_token(z_loss=1e-4)(model, batch(0)).total.backward()
    half, whole = {torch.bfloat16}, {torch.float32}
    assert (seen[F.linear.__name__], seen["scaled_dot_product_attention"]) == (half, half)
    for name in ("rms_norm", "cos", "sin", "cross_entropy", "logsumexp"):
        assert seen[name] == whole, name
    assert {parameter.grad.dtype for parameter in model.parameters()} == whole
