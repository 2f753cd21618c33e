"""What training a decoder of a size costs: its shape, memory and FLOPs, by the house's own decoder and trainer."""

from __future__ import annotations

from models.network.config import VOCABULARY_MULTIPLE, NetworkConfig, round_up

HEAD_WIDTH = 64
LARGEST_LOGITS = 1 << 31  # bytes that the trainer keeps at once (`objectives.base.LARGEST`)
DEEPEST = 256  # layers that a decoder may have


def depth(parameters: float, vocabulary: int) -> float:
    """Layers, in parts of one, of a decoder 64 times as wide as deep (nanochat's aspect ratio): 12 D^2 parameters in
    each layer, and the embedding."""
    low, high = 0.0, float(DEEPEST)
    for _ in range(60):
        middle = (low + high) / 2
        width = HEAD_WIDTH * middle
        low, high = (middle, high) if (12 * width * middle + vocabulary) * width < parameters else (low, middle)
    return high


def shape(parameters: float, vocabulary: int, context: int) -> NetworkConfig:
    """A decoder of about so many parameters and of that aspect ratio, with heads of 64; where the embedding takes most
    of them it is a smaller one."""
    heads = max(1, round(depth(parameters, vocabulary)))
    rows = round_up(vocabulary, VOCABULARY_MULTIPLE)
    one = NetworkConfig(vocabulary=rows, layers=1, width=heads * HEAD_WIDTH, heads=heads, context=context)
    layer = one.model_copy(update={"layers": 2}).parameters - one.parameters
    layers = 1 + round((parameters - one.parameters) / layer)
    return one.model_copy(update={"layers": min(max(1, layers), 2 + 2 * heads, DEEPEST)})


def state_bytes(parameters: float, bfloat16: bool = True) -> float:
    """Weights, gradients and AdamW's two moments in float32, and the copies of the weights that products are computed
    with in bfloat16."""
    return parameters * (18 if bfloat16 else 16)


def activation_bytes(shape: NetworkConfig, tokens: float, bfloat16: bool = True) -> float:
    """What a forward pass keeps for gradients, for a micro-batch of so many tokens, and the head's logits.

    In each layer 36 bytes a token for the width and 8 for the feed-forward's (44 and 16 in float32): counted of the
    decoder's own saved tensors, attention by a kernel that keeps no scores. Logits are kept, normalised and given a
    gradient, 12 bytes a token and word, in parts where they are many.
    """
    wide, hidden = (36, 8) if bfloat16 else (44, 16)
    layers = shape.layers * (wide * shape.width + hidden * shape.hidden) * tokens
    return layers + 3 * min(4.0 * shape.vocabulary * tokens, LARGEST_LOGITS)


def attention_flops(parameters: float, vocabulary: int, context: int) -> float:
    """FLOPs a token of attention, which 6 N D leaves out (see `models.training.flops`)."""
    return 12.0 * HEAD_WIDTH * depth(parameters, vocabulary) ** 2 * context
