"""Our own engine of rollouts: answers in process, with continuous batching, as ids and their log-probabilities.

What a row becomes is a function of its seed and its prompt: not of its neighbours, its slot, the order of the prompts
or how many rows are written at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from datalake.errors import UserError
from models.network.bitwise import ROWS, Passes, log_softmax
from models.network.generate import draw_from, write
from models.rl.answers import Answer, Observe, Sampling


class Engine:
    """Answers with the model as it is when called. `rows`: how many are written at once.

    exact: whether log-probabilities are to be those of the training pass; ask `models.rl.exact.holds`.
    version: what answers say of the weights; whoever changes those, moves it. over: whether an answer is to end where
    it stands, asked after every token, as by a text that stops it.
    """

    def __init__(
        self,
        model: nn.Module,
        sampling: Sampling,
        rows: int = 64,
        exact: bool = False,
        over: Callable[[Answer], bool] | None = None,
    ) -> None:
        self.model, self.sampling, self.rows, self.over = model, sampling, rows, over
        self.version = 0
        self.exact = exact

    def __call__(
        self, prompts: Sequence[list[int]], seeds: Sequence[int], observe: Observe | None = None
    ) -> list[Answer]:
        """As `models.rl.answers.Engine`.

        Raises UserError where a prompt is empty, or leaves no room for an answer.
        """
        sampling, context = self.sampling, self.sampling.room(self.model)
        require_room(prompts, context)
        answers = [Answer(list(prompt), version=self.version) for prompt in prompts]
        written = [0] * len(answers)
        uniforms = [
            torch.rand(sampling.new_tokens, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).tolist()
            for seed in seeds
        ]

        def choose(hidden_ND: Tensor, rows: Sequence[int]) -> tuple[list[int], list[float]]:
            log_probs_NV = log_softmax(self.model, hidden_ND, sampling.temperature, sampling.vocabulary)
            if sampling.temperature:
                uniform_N = torch.tensor([uniforms[row][written[row]] for row in rows], dtype=torch.float64)
                chosen_N = draw_from(log_probs_NV.exp(), uniform_N.to(hidden_ND.device))
            else:
                chosen_N = log_probs_NV.argmax(-1)
            return chosen_N.tolist(), log_probs_NV.gather(1, chosen_N[:, None])[:, 0].tolist()

        def follow(row: int, token: int, log_prob: float) -> Sequence[int]:
            answer = answers[row]
            answer.tokens.append(token)
            answer.written.append(True)
            answer.log_probs.append(log_prob)
            written[row] += 1
            more: list[int] = []
            if self.over is not None and self.over(answer):
                return ()
            if token in sampling.stop_ids:
                reply = observe(row, answer) if observe else None
                if reply is None:
                    answer.ended = True
                    return ()
                more = list(reply)
            length = len(answer.prompt) + len(answer.tokens) + len(more)
            if written[row] == sampling.new_tokens or length >= context:
                return ()
            answer.tokens += more
            answer.written += [False] * len(more)
            answer.log_probs += [0.0] * len(more)
            return (token, *more)

        if prompts:
            width = min(max(map(len, prompts)) + sampling.new_tokens, context)
            least, around = (ROWS, Passes) if self.exact else (1, nullcontext)
            deque(write(self.model, prompts, width, self.rows, choose, follow, least, around), maxlen=0)
        return answers


def require_room(prompts: Sequence[list[int]], context: int) -> None:
    """Raises UserError where a prompt is empty, or leaves no room for an answer in a context."""
    if not all(prompts):
        raise UserError("a prompt is empty: give at least one token, such as <|bos|>")
    longest = max(map(len, prompts), default=0)
    if longest >= context:
        raise UserError(
            f"a prompt of {longest} tokens leaves no room for an answer in a context of {context}: shorten it"
        )
