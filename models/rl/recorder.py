"""The sample table of learning from rollouts: some answers of chosen steps, with what each was worth.

Figures over a batch hide what a policy has come to write; a few answers show it. They lie beside the metrics in
`samples.jsonl`, one JSON object an answer, and become rows of `runs.samples`. Which answers are kept is a function of
(seed, step) alone, and texts are made of those alone: decoding a whole batch each step would cost more than it tells.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datalake.atomic import write_atomically
from models.rl.answers import Answer
from models.training.callbacks import Metrics
from models.training.epochs import draw
from models.training.loop import Callback, Run
from models.training.metrics import SAMPLES

LONG = 2_000  # characters of a prompt or an answer that are kept
_STREAM = 1 << 22  # of random numbers: which answers are shown


class Recorder(Callback):
    """Keeps `rows` answers of the first step, of every `every`th, and of the last.

    Called by whoever makes the rollouts, once a step and before its updates, with everything; it stands among the
    run's callbacks and remembers what it wrote, so that a resumed run has every answer in the file once.
    """

    name = "recorder"

    def __init__(self, words: Any, seed: int, every: int, rows: int = 4) -> None:
        self.words, self.seed, self.every, self.rows = words, seed, every, rows
        self.lines: list[str] = []
        self.latest: list[str] = []  # of the last step, where that isn't kept so far
        self._path: Path | None = None

    def step(self, step: int, answers: Sequence[Answer], columns: Mapping[str, Sequence[float]]) -> None:
        """The rollouts of a step, counted from 0, and by name what each of them has: `score`, `reward_<name>`, `kl`
        (nats an answer), `advantage`."""
        some = draw(self.seed, _STREAM, step).permutation(len(answers))[: self.rows]
        self.latest = [
            json.dumps(
                {
                    "step": step + 1,
                    "prompt": self._text(answers[place].prompt),
                    "answer": self._text(answers[place].tokens),
                    "tokens": sum(answers[place].written),
                    "ended": bool(answers[place].ended),
                    "figures": {name: _finite(float(column[place])) for name, column in columns.items()},
                },
                ensure_ascii=False,
            )
            + "\n"
            for place in sorted(some.tolist())
        ]

    def on_start(self, run: Run) -> None:
        """Writes the answers up to the state's step, whatever a killed run left."""
        if run.ranks.leads:
            metrics = next((one for one in run.callbacks if isinstance(one, Metrics)), None)
            self._path = metrics.path.with_name(SAMPLES) if metrics is not None else None
        if self._path is not None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path, "".join(self.lines).encode())

    def on_step(self, run: Run, row: dict[str, float]) -> None:
        """Keeps the step's answers where it is time."""
        if run.state.step == 1 or run.state.step % self.every == 0:
            self._keep()

    def on_end(self, run: Run) -> None:
        """Keeps those of the last step, whichever that came to be."""
        self._keep()

    def saved(self) -> dict[str, Any]:
        """All answers kept so far."""
        return {"lines": self.lines, "latest": self.latest}

    def load(self, saved: dict[str, Any]) -> None:
        """Puts them back."""
        self.lines, self.latest = list(saved["lines"]), list(saved["latest"])

    def _keep(self) -> None:
        if self._path is not None and self.latest:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write("".join(self.latest))
        self.lines += self.latest
        self.latest = []

    def _text(self, ids: Sequence[int]) -> str:
        """Tokens as people read them, special ones included; the middle of what is long is left out."""
        text: str = self.words.decode(list(ids), clean_up_tokenization_spaces=False)
        return text if len(text) <= LONG else f"{text[: LONG // 2]} … {text[-LONG // 2 :]}"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
