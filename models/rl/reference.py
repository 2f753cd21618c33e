"""What a model says of answers before its first step: the reference that DPO and KTO hold it to.

It is taken once. A file beside the states keeps it, by the base, the answers and how it was computed: a resumed run
reads the same bits, and so does another method, or another beta, on the same answers.
"""

from __future__ import annotations

import math
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from datalake.atomic import write_atomically
from datalake.identity import fingerprint
from models.objectives.answers import Said, answer_log_probs, as_rows
from models.training.method import Begun

# Rows of a pass, never the config's batch: what the reference says is the same for any. Alone on a CPU in float32,
# where a pass of several gains nothing: then it depends on no other answer either.
ROWS = 32
SECONDS = 30.0  # between two times that what is there is written


class Reference:
    """The log-probabilities (N), in nats, of answers by the model of version `base`, once `take` was called.

    wanted: the places of those that are asked for; all unless given, NaN elsewhere. passes: which are computed
    together, each a list of places; those of like length unless given.
    """

    def __init__(
        self,
        base: str,
        answers: Sequence[Said],
        wanted: Collection[int] | None = None,
        passes: Sequence[Sequence[int]] | None = None,
    ) -> None:
        self.base, self.answers, self.passes = base, answers, passes
        self.wanted = range(len(answers)) if wanted is None else set(wanted)
        self.log_probs = torch.full((len(answers),), math.nan)

    def take(self, begun: Begun) -> None:
        """Read them from the file, compute with the model as it is those that aren't there, and write them."""
        key = fingerprint({"base": self.base, "how": str(begun.device), "answers": self.answers, "passes": self.passes})
        path = begun.folder / f"reference-{key}.safetensors"
        self._read(path)
        left = [places for places in self._passes(begun) if any(self._asked(place) for place in places)]
        if not begun.ranks.end(bool(left)):
            return
        written = time.monotonic()
        said = log_probs_of(begun, ([self.answers[place] for place in places] for places in left))
        for number, (places, found) in enumerate(zip(left, said, strict=True), 1):
            self.log_probs[list(places)] = found
            if begun.ranks.leads and (number == len(left) or time.monotonic() - written > SECONDS):
                write_atomically(path, save({"log_probs": self.log_probs}))
                written = time.monotonic()
            begun.say(f"the model before its first step: {number:,} of {len(left):,} passes over answers")

    def _asked(self, place: int) -> bool:
        return place in self.wanted and bool(self.log_probs[place].isnan())

    def _passes(self, begun: Begun) -> Sequence[Sequence[int]]:
        if self.passes is not None:
            return self.passes
        alone = begun.device.device.type == "cpu" and begun.device.compute == torch.float32
        rows = 1 if alone else ROWS
        order = sorted(range(len(self.answers)), key=lambda number: len(self.answers[number][0]))
        return [order[first : first + rows] for first in range(0, len(order), rows)]

    def _read(self, path: Path) -> None:
        with suppress(OSError, KeyError, SafetensorError):
            log_probs = load(path.read_bytes())["log_probs"]
            if log_probs.shape == self.log_probs.shape:
                self.log_probs = log_probs


@torch.no_grad()
def log_probs_of(begun: Begun, passes: Iterable[Sequence[Said]]) -> Iterator[Tensor]:
    """The log-probability, in nats, of each answer of each pass by the model as it is now, without its dropout."""
    model: nn.Module = begun.model
    training = model.training
    for answers in passes:
        model.eval()
        tokens, targets = (part.to(begun.device.device) for part in as_rows(answers))
        with begun.device.computing():
            said = answer_log_probs(model, tokens, targets).float().cpu()
        model.train(training)
        yield said
