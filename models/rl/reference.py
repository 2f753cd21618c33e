"""What a model says of answers before its first step: the reference that DPO and KTO hold it to.

It is taken once. A file beside the states keeps it, by the base, the answers and how it was computed: a resumed run
reads the same bits, and so does another method, or another beta, on the same answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from datalake.atomic import write_atomically
from datalake.identity import fingerprint
from models.objectives.answers import Said, answer_log_probs, as_rows
from models.training.method import Begun

ROWS = 8  # of a pass; never the config's, so that what the reference says of answers is the same for every batch size


class Reference:
    """The log-probabilities (N), in nats, of answers by the model of version `base`, once `take` was called.

    passes: which answers are computed together, each an index into them; those of like length unless given.
    """

    def __init__(self, base: str, answers: Sequence[Said], passes: Sequence[Sequence[int]] | None = None) -> None:
        if passes is None:
            order = sorted(range(len(answers)), key=lambda number: len(answers[number][0]))
            passes = [order[first : first + ROWS] for first in range(0, len(order), ROWS)]
        self.base, self.answers, self.passes = base, answers, passes
        self.log_probs = torch.zeros(len(answers))

    def take(self, begun: Begun) -> None:
        """Read them from the file, or compute them with the model as it is, and write it."""
        key = fingerprint({"base": self.base, "how": str(begun.device), "answers": self.answers, "passes": self.passes})
        path = begun.folder / f"reference-{key}.safetensors"
        there = self._read(path)
        if not begun.ranks.end(not there):  # where one rank has to compute, all do
            return
        for places, said in zip(self.passes, log_probs_of(begun, self._passes()), strict=True):
            self.log_probs[list(places)] = said
        if begun.ranks.leads:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, save({"log_probs": self.log_probs}))

    def _passes(self) -> Iterator[list[Said]]:
        for places in self.passes:
            yield [self.answers[place] for place in places]

    def _read(self, path: Path) -> bool:
        try:
            log_probs = load(path.read_bytes())["log_probs"]
        except (OSError, KeyError, SafetensorError):
            return False
        if log_probs.shape != self.log_probs.shape or not bool(log_probs.isfinite().all()):
            return False
        self.log_probs = log_probs
        return True


@torch.no_grad()
def log_probs_of(begun: Begun, passes: Iterator[list[Said]]) -> Iterator[Tensor]:
    """The log-probability, in nats, of each answer of each pass by the model as it is now, without its dropout."""
    model: nn.Module = begun.model
    training = model.training
    for answers in passes:
        model.eval()
        rows = (part.to(begun.device.device) for part in as_rows(answers))
        with begun.device.computing():
            said = answer_log_probs(model, *rows).float().cpu()
        model.train(training)
        yield said
