"""What methods share that go through items in epochs: which of them fit, which a step sees, which are held out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from models.training.config import TunedConfig
from models.training.method import Seen

if TYPE_CHECKING:
    from models.text.packing import Fitted
    from models.training.epochs import Epochs

T = TypeVar("T")


@dataclass
class Items(Generic[T]):
    """Items to train on and those held out, as tokens in at most `context` of them; `words` is the tokenizer.

    `length` tells how long an item is: those of like length share a batch.
    """

    config: TunedConfig
    fitted: Fitted[T]
    heldout: Fitted[T]
    length: Callable[[T], int]
    context: int
    words: Any

    @cached_property
    def epochs(self) -> Epochs:
        """Which of the items that fit each step sees."""
        from models.training.epochs import Epochs

        return Epochs([self.length(item) for item in self.fitted.items], self.config.seed, self.config.batch)

    @property
    def steps(self) -> int:
        """What the config comes to on these items."""
        return self.config.steps or self.epochs.steps(self.config.epochs)

    def seen(self, step: int) -> list[Seen]:
        """The items of a step: (number in the list given, tokens)."""
        fitted = self.fitted
        return [(fitted.numbers[item], self.length(fitted.items[item])) for item in self.epochs.items(step)]

    def of_step(self, step: int) -> list[T]:
        """The items of a step."""
        return [self.fitted.items[item] for item in self.epochs.items(step)]

    def drawn(self) -> list[T]:
        """The held-out items that figures during training are measured on, drawn by the seed."""
        from models.training.epochs import draw

        items = self.heldout.items
        order = draw(self.config.seed, 1 << 20).permutation(len(items))[: self.config.eval_rows]
        return [items[place] for place in order]

    def in_batches(self, items: Sequence[T], collate: Callable[[list[T]], Any]) -> list[Any]:
        """Items as batches of like length, for a figure over all of them."""
        ordered = sorted(items, key=self.length)
        batch = self.config.batch
        return [collate(ordered[first : first + batch]) for first in range(0, len(ordered), batch)]

    def report(self, noun: str, steps: int) -> dict[str, Any]:
        """How many items there were, what of them was cut or left out, by length too, and epochs."""
        fitted = self.fitted
        report = {
            noun: len(fitted.items),
            **fitted.figures(self.context),
            "epochs": steps / self.epochs.steps_per_epoch,
        }
        if self.heldout.items:
            report["heldout_dropped"] = len(self.heldout.left_out)
        return report
