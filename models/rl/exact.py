"""Exactly on policy: training's pass over rollouts gives the log-probabilities of sampling, to the bit.

`models.network.bitwise` says what it takes; `holds` whether it does, with this model on this machine.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.network.bitwise import Passes, log_softmax, possible
from models.network.slots import KEYS, whole_pass
from models.rl.answers import Sampling
from models.rl.engine import Engine


def hidden(model: nn.Module, tokens_BS: Tensor) -> Tensor:
    """Hidden states (B, S, D) of rows padded on the right: the pass that training learns from, equal to sampling.

    The same bits with gradients and without. Where equality is impossible it is the model's ordinary pass.
    """
    if not possible(model):
        states: Tensor = model(tokens_BS)
        return states
    if getattr(model, "checkpointing", False):  # what is computed again, later, is out of reach
        return whole_pass(model, tokens_BS)
    with Passes():
        return whole_pass(model, tokens_BS)


def holds(model: nn.Module, sampling: Sampling, rows: int = 4) -> bool:
    """Whether sampling equals training here, with this model: some rows of unequal length are written by few slots, so
    that some come late, and read as training does, all at once, `rows` of them and one alone, with gradients."""
    if not possible(model):
        return False
    context, vocabulary = int(model.config.context), int(model.config.vocabulary)  # type: ignore[union-attr, arg-type]
    vocabulary = min(vocabulary, sampling.vocabulary or vocabulary)
    new = max(1, min(sampling.new_tokens, 12, context // 3))
    lengths = [1 + (7 * row) % max(1, min(3 * KEYS, context - new)) for row in range(max(rows, 5) + 3)]
    prompts = [
        [(11 * row + 5 * place + 1) % vocabulary for place in range(length)] for row, length in enumerate(lengths)
    ]
    small = Sampling(new, sampling.temperature, (), sampling.vocabulary)
    answers = Engine(model, small, max(2, len(prompts) // 2), exact=True)(prompts, range(len(prompts)))
    width = max(len(answer.prompt) + len(answer.tokens) for answer in answers)
    tokens_BS = torch.zeros(len(answers), width, dtype=torch.long)
    for row, answer in enumerate(answers):
        ids = answer.prompt + answer.tokens
        tokens_BS[row, : len(ids)] = torch.tensor(ids)
    for part in (slice(None), slice(0, rows), slice(len(answers) - 1, None)):
        with torch.enable_grad():
            states_BSD = hidden(model, tokens_BS[part])
            ours, theirs = [], []
            for states_SD, answer in zip(states_BSD, answers[part], strict=True):
                first = len(answer.prompt) - 1
                ours.append(states_SD[first : first + len(answer.tokens)])
                theirs += answer.log_probs
            log_probs_NV = log_softmax(model, torch.cat(ours), sampling.temperature, sampling.vocabulary)
        taken = torch.tensor([token for answer in answers[part] for token in answer.tokens])
        if log_probs_NV.detach().gather(1, taken[:, None])[:, 0].tolist() != theirs:
            return False
    return True
