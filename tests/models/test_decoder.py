"""The decoder does what its equations say: causal, cached as uncached, apart where masked, balanced where sparse."""

from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch.nn import functional as F

from models.network.build import ScalarHead, build_model, choose_dtype
from models.network.config import NetworkConfig
from models.network.decoder import Decoder, RMSNorm
from models.network.masks import as_tensor, in_blocks, within_documents
from models.network.rope import rotate, rotation

SHAPES = {
    "llama": {},
    "grouped": {"kv_heads": 2},
    "qwen3": {"kv_heads": 1, "qk_norm": True, "head_width": 8, "tie": False},
    "mixtral": {"experts": 4, "experts_per_token": 2, "hidden": 32},
}


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Matrices this small only wait for each other on several threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def config(name: str = "grouped", **other) -> NetworkConfig:
    shape = {"vocabulary": 64, "layers": 2, "width": 48, "heads": 4, "context": 32, **SHAPES[name], **other}
    return NetworkConfig(**shape)


def model(name: str = "grouped", seed: int = 0, **other) -> Decoder:
    decoder = build_model(config(name, **other), seed)
    assert isinstance(decoder, Decoder)
    draw = torch.Generator().manual_seed(seed)
    for parameter in decoder.parameters():  # wide enough weights that an error shows
        if parameter.ndim > 1:
            parameter.data.normal_(0, 0.1, generator=draw)
        else:
            parameter.data.uniform_(0.5, 1.5, generator=draw)
    return decoder.eval()


def tokens(batch: int = 3, length: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randint(64, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_a_token_is_told_by_what_stands_before_it_and_nothing_else(name: str) -> None:
    decoder, x = model(name), tokens()
    changed = x.clone()
    changed[:, 7] = (changed[:, 7] + 1) % 64
    before, after = decoder(x), decoder(changed)
    assert torch.allclose(before[:, :7], after[:, :7], atol=1e-6)
    assert not torch.isclose(before[:, 7:], after[:, 7:], atol=1e-4).all(-1).any()


@pytest.mark.parametrize("name", SHAPES)
@torch.no_grad()
def test_the_cache_changes_nothing(name: str) -> None:
    decoder, x = model(name), tokens()
    whole = decoder(x)
    cache = decoder.new_cache(3, 12)
    pieces = [decoder(x[:, a:b], cache=cache) for a, b in ((0, 5), (5, 6), (6, 9), (9, 12))]
    assert torch.allclose(torch.cat(pieces, 1), whole, atol=1e-5)
    with pytest.raises(ValueError, match="the cache holds 12 tokens"):
        decoder(x[:, :1], cache=cache)


@torch.no_grad()
def test_rows_left_behind_in_the_cache_dont_change_the_others() -> None:
    decoder, x = model(), tokens()
    cache = decoder.new_cache(3, 12)
    decoder(x[:, :8], cache=cache)
    cache.select(torch.tensor([2, 0]))
    assert torch.allclose(decoder(x[[2, 0], 8:], cache=cache), decoder(x)[[2, 0], 8:], atol=1e-5)


@torch.no_grad()
def test_the_default_mask_is_the_causal_one() -> None:
    decoder, x = model(), tokens()
    causal = torch.ones(12, 12, dtype=torch.bool).tril()[None, None]
    assert torch.allclose(decoder(x), decoder(x, attend=causal), atol=1e-5)


@torch.no_grad()
def test_packed_documents_read_as_they_do_alone() -> None:
    decoder, x = model(), tokens(1, 12)
    segments = torch.tensor([[0] * 5 + [1] * 4 + [-1] * 3])
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 0, 0, 0]])
    packed = decoder(x, positions, within_documents(segments))
    assert torch.allclose(packed[:, :5], decoder(x[:, :5]), atol=1e-5)
    assert torch.allclose(packed[:, 5:9], decoder(x[:, 5:9]), atol=1e-5)
    assert packed.isfinite().all()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@torch.no_grad()
@pytest.mark.parametrize("name", ["grouped", "qwen3"])  # heads of 16; of 8, which FlexAttention's kernels don't take
def test_blocks_say_what_a_dense_mask_says(name: str) -> None:
    decoder, x = model(name, width=64), tokens(2, 200)
    segments = torch.tensor([[0] * 70 + [1] * 120 + [-1] * 10, [0] * 130 + [1] * 70])
    dense, blocks = within_documents(segments), in_blocks(segments)
    assert torch.equal(as_tensor(blocks), dense)
    assert torch.allclose(decoder(x, attend=blocks), decoder(x, attend=dense), atol=1e-5)
    assert not torch.allclose(decoder(x), decoder(x, attend=dense), atol=1e-3)


@torch.no_grad()
def test_only_distances_matter_to_rotary_positions() -> None:
    decoder, x = model(), tokens()
    shifted = torch.arange(100, 112).expand(3, 12)
    assert torch.allclose(decoder(x), decoder(x, shifted), atol=1e-3)
    stretched = torch.arange(0, 24, 2).expand(3, 12)
    assert not torch.allclose(decoder(x), decoder(x, stretched), atol=1e-2)


def test_rotation_turns_each_pair_by_its_angle() -> None:
    x = torch.randn(1, 1, 1, 6, generator=torch.Generator().manual_seed(0))
    cos, sin = rotation(torch.tensor([[5]]), config(head_width=6, rope_base=100.0), torch.float32)
    turned = rotate(x, cos, sin)[0, 0, 0]
    for pair in range(3):
        angle = 5 / 100 ** (2 * pair / 6)
        a, b = float(x[0, 0, 0, pair]), float(x[0, 0, 0, pair + 3])
        assert turned[pair] == pytest.approx(a * math.cos(angle) - b * math.sin(angle), abs=1e-5)
        assert turned[pair + 3] == pytest.approx(b * math.cos(angle) + a * math.sin(angle), abs=1e-5)


def test_rms_norm_is_its_formula() -> None:
    norm = RMSNorm(4, 0.5)
    norm.weight.data = torch.tensor([1.0, 2.0, 3.0, 4.0])
    x = torch.tensor([[1.0, -1.0, 3.0, 0.0]])
    expected = x / math.sqrt(11 / 4 + 0.5) * norm.weight
    assert torch.allclose(norm(x), expected)
    assert torch.allclose(norm(x.bfloat16()).float(), expected, atol=0.1)


@pytest.mark.parametrize("name", SHAPES)
def test_every_parameter_is_counted_and_learns(name: str) -> None:
    decoder = model(name).train()
    assert sum(parameter.numel() for parameter in decoder.parameters()) == decoder.config.parameters
    x = tokens()
    F.cross_entropy(decoder.logits(decoder(x))[:, :-1].flatten(0, 1), x[:, 1:].flatten()).backward()
    for label, parameter in decoder.named_parameters():
        assert parameter.grad is not None, label
        assert parameter.grad.abs().sum() > 0 or ".experts." in label, label


def test_a_tiny_model_learns_to_repeat() -> None:
    decoder = build_model(config()).train()
    optimizer = torch.optim.AdamW(decoder.parameters(), 3e-3)
    x = torch.arange(24).remainder(5)[None].repeat(4, 1) + torch.arange(4)[:, None] * 5
    losses = []
    for _ in range(60):
        loss = F.cross_entropy(decoder.logits(decoder(x))[:, :-1].flatten(0, 1), x[:, 1:].flatten())
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert losses[0] == pytest.approx(math.log(64), abs=0.2)
    assert losses[-1] < 0.1


@torch.no_grad()
def test_a_fresh_model_is_nearly_its_embedding() -> None:
    decoder = build_model(config())
    x = tokens()
    assert F.cosine_similarity(decoder(x), decoder.embed_tokens(x), dim=-1).mean() > 0.6
    assert decoder.layers[1].mlp.down_proj.weight.std().item() == pytest.approx(0.002, rel=0.1)
    assert decoder.layers[1].mlp.gate_proj.weight.std().item() == pytest.approx(48**-0.5, rel=0.1)


def test_equal_seeds_give_equal_weights() -> None:
    first, same, other = (build_model(config(), seed).state_dict() for seed in (3, 3, 4))
    assert all(torch.equal(first[name], same[name]) for name in first)
    assert not torch.equal(first["embed_tokens.weight"], other["embed_tokens.weight"])
    named = build_model({"family": "decoder", **config().model_dump()}, 3).state_dict()
    assert all(torch.equal(first[name], named[name]) for name in first)


@pytest.mark.parametrize("name", SHAPES)
def test_checkpointed_layers_keep_less_and_give_the_same_gradients(name: str) -> None:
    gradients, kept = {}, {}
    for checkpointing in (False, True):
        decoder = model(name).train()
        decoder.checkpointing = checkpointing
        saved: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, s=saved: s.append(t.numel()) or t, lambda t: t):
            loss = decoder.logits(decoder(tokens(), attend=within_documents(torch.zeros(3, 12)))).logsumexp(-1).sum()
        loss.backward()
        kept[checkpointing] = sum(saved)
        gradients[checkpointing] = [parameter.grad for parameter in decoder.parameters()]
    assert all(torch.equal(*pair) for pair in zip(*gradients.values(), strict=True))
    assert kept[True] < kept[False] / 3


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_the_decoder_compiles_without_a_graph_break(backend: str) -> None:
    torch.compiler.reset()
    decoder, x = model("qwen3").train(), tokens()
    compiled = torch.compile(decoder, fullgraph=True, backend=backend)
    packed = within_documents(torch.tensor([[0] * 5 + [1] * 7]).expand(3, 12))
    for attend, decoder.checkpointing in ((None, False), (packed, True)):
        gradients = []
        for network in (decoder, compiled):
            decoder.zero_grad()
            hidden = network(x, None, attend)
            hidden.square().sum().backward()
            gradients.append([hidden, *(parameter.grad for parameter in decoder.layers.parameters())])
        for ours, theirs in zip(*gradients, strict=True):
            assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_scalar_head_starts_at_zero_or_by_its_width() -> None:
    trunk = model()
    critic = ScalarHead(trunk)
    values = critic(tokens())
    assert values.shape == (3, 12)
    assert values.abs().max() == 0
    wide = Decoder(config(width=1024, heads=4, layers=1))
    reward = ScalarHead(wide, "normal", torch.Generator().manual_seed(0))
    assert reward.head.weight.std().item() == pytest.approx(1 / math.sqrt(1025), rel=0.1)
    x = tokens()
    hidden = trunk(x)
    critic.head.weight.data.fill_(0.5)
    critic.head.bias.data.fill_(2.0)
    assert torch.allclose(critic(x), hidden.sum(-1) * 0.5 + 2, atol=1e-4)


def test_half_precision_stays_near(monkeypatch) -> None:
    decoder, x = model(), tokens()
    with torch.no_grad():
        exact = decoder.logits(decoder(x))
        rough = decoder.bfloat16().logits(decoder(x))
    assert rough.dtype == torch.bfloat16
    assert F.cosine_similarity(exact.flatten(), rough.float().flatten(), dim=0) > 0.99
    assert choose_dtype("cpu") in (torch.float32, torch.bfloat16)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"heads": 4, "kv_heads": 3}, "can't share"),
        ({"width": 50}, "no multiple"),
        ({"width": 36, "heads": 4}, "odd"),
        ({"experts": 1}, "experts_per_token"),
        ({"depth": 3}, "Extra inputs"),
        ({"layers": 0}, "greater than or equal to 1"),
    ],
)
def test_shapes_that_dont_fit_are_refused(wrong: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        NetworkConfig(**{"width": 48, "heads": 4, **wrong})


def test_one_dial_gives_a_shape() -> None:
    shape = NetworkConfig.of_depth(4, vocabulary=1000, context=128)
    assert (shape.width, shape.heads, shape.head_width, shape.vocabulary) == (256, 4, 64, 1024)
    assert shape.sized(4097).vocabulary == 4160
    assert shape == NetworkConfig(vocabulary=1024, layers=4, width=256, heads=4, context=128, hidden=704)
    assert NetworkConfig(**shape.model_dump()) == shape
