"""Losses that must agree: one batch of documents, computed in every way there is, gives one loss and one gradient."""

import shutil
from itertools import combinations

import pytest
import torch

from datalake.errors import UserError
from models.methods.pretrain import PretrainConfig
from models.network.build import build_model, recompute_activations
from models.network.config import NetworkConfig
from models.objectives import base
from models.objectives.assistant_tokens import assistant_tokens, collate
from models.objectives.base import IGNORED
from models.objectives.next_token import next_token
from models.parallel.ranks import ALONE
from models.text.sampler import Batch
from models.training.compilation import compiled
from models.training.device import choose
from models.training.loop import Run, _backward, split
from models.training.optimizer import build_optimizer
from models.training.schedule import build_schedule
from models.training.state import State

SHAPE = NetworkConfig(vocabulary=64, layers=2, width=32, heads=4, kv_heads=2, context=24)
TOLERANCE = 1e-6  # of the loss, and of the largest gradient: float32 summed in another order
CPU = torch.device("cpu")
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") or shutil.which("clang++")), reason="inductor needs a C++ compiler"
)


def documents():
    """Of 1 to 24 tokens; none has a target for its last."""
    generator = torch.Generator().manual_seed(5)
    lengths = [(24,), (7, 9, 8), (12, 12), (1, 23), (6, 6, 6, 6), (20,), (3, 11), (24,)]
    return [[torch.randint(64, (length,), generator=generator) for length in row] for row in lengths]


def rows(packed):
    """Documents as rows of 24 tokens: a number of them in each, or (unpacked) every one by itself."""
    filled = packed or [[document] for row in documents() for document in row]
    shape = len(filled), 24
    batch = Batch(*(torch.full(shape, value) for value in (0, IGNORED, 0, -1)))
    for row, pieces in enumerate(filled):
        at = 0
        for number, document in enumerate(pieces):
            end = at + len(document)
            batch.tokens[row, at:end] = document
            batch.targets[row, at : end - 1] = document[1:]
            batch.positions[row, at:end] = torch.arange(len(document))
            batch.segments[row, at:end] = number
            at = end
    return batch


def computed(packed=True, parts=1, chunk=None, backend=None, checkpointing=False, z_loss=0.0):
    """The mean loss and its gradients, through the training loop's own step."""
    torch.compiler.reset()
    model = build_model(SHAPE, seed=3)
    if checkpointing:
        recompute_activations(model)
    objective = next_token(z_loss=z_loss)
    if backend:
        objective = compiled(objective, "on", CPU, compiles=True, backend=backend)
    optimizers = build_optimizer(PretrainConfig(), {"model": model})
    run = Run(model, optimizers, build_schedule("constant", 9), State(), 9, [], choose("float32", "cpu"), ALONE)
    with pytest.MonkeyPatch.context() as patch:
        if chunk:
            patch.setattr(base, "LARGEST_ON_CPU", chunk)
        sums, _ = _backward(run, objective, split(rows(documents() if packed else None), parts))
    assert sums["tokens"] == (192 if packed else 24 * 16)
    return sums["total"] / sums["targets"], torch.cat([p.grad.flatten() for p in model.parameters()]) / sums["targets"]


WAYS = {
    "1 x 8 rows, packed, plain, eager": {},
    "8 x 1": {"parts": 8},
    "unpacked": {"packed": False},
    "unpacked, 5 micro-batches": {"packed": False, "parts": 5},
    "chunked": {"chunk": 10_000},
    "chunked, 3 micro-batches": {"chunk": 10_000, "parts": 3},
    "checkpointed": {"checkpointing": True},
    "compiled": {"backend": "aot_eager"},
    "compiled, chunked, checkpointed": {"backend": "aot_eager", "chunk": 10_000, "checkpointing": True},
}


@pytest.mark.parametrize("z_loss", [0.0, 1e-2])
def test_every_way_gives_one_loss_and_one_gradient(z_loss):
    ways = {name: way for name, way in WAYS.items() if z_loss or "backend" not in way}
    assert_agree({name: computed(**way, z_loss=z_loss) for name, way in ways.items()})


@pytest.mark.slow
@needs_compiler
def test_the_compiler_of_a_real_run_agrees():
    real = {"compiled": {"backend": "inductor"}, "chunked": {"backend": "inductor", "chunk": 10_000}, "plain": {}}
    assert_agree({name: computed(**way, z_loss=1e-2) for name, way in real.items()})


def assert_agree(found):
    for (one, (loss, gradient)), (other, (loss_too, gradient_too)) in combinations(found.items(), 2):
        assert loss == pytest.approx(loss_too, rel=TOLERANCE), (one, other)
        furthest = (gradient - gradient_too).abs().max()
        assert furthest <= TOLERANCE * gradient.abs().max(), (one, other, float(furthest))


@pytest.mark.parametrize("chunk", [300, 10_000])
def test_chunks_count_the_likeliest_tokens_too(chunk, monkeypatch):
    model = build_model(SHAPE, seed=3)
    batch = collate([([1, *range(20, 20 + n)], [False] * (n // 2) + [True] * (n + 1 - n // 2)) for n in (5, 9, 14)])
    losses = [assistant_tokens(model, batch)]
    monkeypatch.setattr(base, "LARGEST_ON_CPU", chunk)
    losses.append(assistant_tokens(model, batch))
    monkeypatch.setattr(base, "without_looking", lambda tensor: True)
    losses.append(assistant_tokens(model, batch))
    assert {int(loss.targets) for loss in losses} == {losses[0].targets}
    for loss in losses[1:]:
        assert int(loss.sums["token_accuracy"]) == int(losses[0].sums["token_accuracy"])
        torch.testing.assert_close(loss.total, losses[0].total, rtol=TOLERANCE, atol=0)


def test_logits_in_chunks_are_never_whole():
    class Watched(torch.overrides.TorchFunctionMode):
        largest = 0

        def __torch_function__(self, function, types, args=(), kwargs=None):
            result = function(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.shape[-1:] == (64,):
                Watched.largest = max(Watched.largest, result.numel() * 4)
            return result

    with Watched():
        computed(chunk=10_000)
    assert 5_000 < Watched.largest <= 10_000


def test_what_cannot_be_one_graph_is_refused_in_one_line():
    def curious(model, batch):
        return next_token()(model, batch) if float(batch.tokens.sum()) else None

    with pytest.raises(UserError, match="set compile to off") as error:
        compiled(curious, "on", CPU, True, "eager")(build_model(SHAPE, seed=3), rows(documents()))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("choice", "device", "compiles", "is_compiled"),
    [
        ("auto", "cpu", True, False),
        ("auto", "cuda", True, True),
        ("auto", "cuda", False, False),
        ("on", "cpu", False, True),
        ("off", "cuda", True, False),
    ],
)
def test_auto_compiles_batches_of_one_shape_on_a_gpu(choice, device, compiles, is_compiled):
    objective = next_token()
    assert (compiled(objective, choice, torch.device(device), compiles) is not objective) == is_compiled
