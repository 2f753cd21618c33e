"""Supervised tuning: a pretrained decoder learns to answer, from dialogues whose assistant's tokens alone count."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from models.methods.items import Items
from models.text.config import TemplateFile
from models.training.config import TunedConfig
from models.training.method import Ended, Method, Prepared

if TYPE_CHECKING:
    from torch import nn

    from models.methods.mixing import Mixed
    from models.objectives.assistant_tokens import Dialogues as Batch
    from models.objectives.base import Loss
    from models.text.packing import Dialogue, Fitted
    from models.training.epochs import Epochs

# A dialogue: `messages` (OpenAI's), the `tools` that it may call, the `source` it comes from.
Conversation = Mapping[str, Any]


class SftConfig(TunedConfig):
    """Supervised tuning on dialogues: the loss counts the assistant's tokens only."""

    learning_rate: float = Field(5e-4, gt=0, le=1, title="Learning rate", description="The peak, for AdamW's share.")
    weight_decay: float = Field(0.0, ge=0, le=10, title="Weight decay", description="On matrices only.")
    epochs: float = Field(2.0, gt=0, le=1000, title="Epochs", description="Times every dialogue is seen.")
    balance: float = Field(
        0.01, ge=0, le=10, title="Balance", description="Weight of the load-balancing loss, for a model with experts."
    )
    template: TemplateFile = Field(
        TemplateFile(),
        title="Chat template",
        description="By name (headwater, chatml, llama-3, qwen, mistral, alpaca, alpaca-zh, deepseek), or a file with"
        " one; it goes with the checkpoint. Empty: the base's own.",
    )
    packing: bool = Field(
        True,
        title="Packing",
        description="Dialogues of a step share rows where that saves a fifth of them, each attending to itself alone:"
        " the same loss with less padding.",
    )
    weights: dict[str, float] = Field(
        default_factory=dict,
        title="Weights of the sources",
        description="Share of the tokens that each source of dialogues gets, relative to the others; one that isn't"
        " named weighs 1, one that weighs 0 is left out. Without any every dialogue is seen once an epoch.",
    )
    source_cap: int | None = Field(
        None,
        ge=1,
        title="Examples of a source at most",
        description="A source counts as having no more when its share follows its size (FLAN).",
    )
    source_temperature: float = Field(
        1.0,
        ge=1,
        le=1000,
        title="Temperature of sources",
        description="Above 1 evens out the shares of large and small sources (T5).",
    )

    @property
    def mixes(self) -> bool:
        """Whether sources have shares of their own."""
        return bool(self.weights) or self.source_cap is not None or self.source_temperature != 1

    @model_validator(mode="after")
    def _shares_by_one_rule(self) -> SftConfig:
        for source, weight in self.weights.items():
            if not 0.0 <= weight < float("inf"):
                raise ValueError(f"the weight of {source} is {weight}: give a number of at least 0")
        if self.weights and not any(self.weights.values()):
            raise ValueError("all weights are 0: leave weights out to take every source as it comes")
        if self.weights and (self.source_cap is not None or self.source_temperature != 1):
            raise ValueError("weights and source_cap or source_temperature are two rules for shares: leave one out")
        return self


@dataclass
class Dialogues(Items["Dialogue"]):
    """Dialogues of several sources; `sources` are those of the items that fit."""

    config: SftConfig
    sources: Sequence[str] = field(default=(), kw_only=True)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each item."""
        return [self.length(item) for item in self.fitted.items]

    @cached_property
    def epochs(self) -> Epochs | Mixed:  # type: ignore[override]
        """Which of the items that fit each step sees: in the shares of their sources, or each once an epoch."""
        from models.methods.mixing import Mixed
        from models.training.epochs import Epochs

        config = self.config
        if config.mixes:
            return Mixed(self.lengths, self.sources, self.shares, config.seed, config.batch)
        return Epochs(self.lengths, config.seed, config.batch)

    @property
    def shares(self) -> dict[str, float]:
        """The share of tokens that each source is to have. Raises UserError where no source that has one is there."""
        from datalake.errors import UserError
        from models.methods.mixing import shares_of

        tokens: dict[str, list[int]] = defaultdict(list)
        for source, length in zip(self.sources, self.lengths, strict=True):
            tokens[source].append(length)
        shares = shares_of(tokens, self.config.weights, self.config.source_cap, self.config.source_temperature)
        if not any(shares.values()):
            raise UserError(
                f"sft.weights leaves no dialogue to learn from: there are some of {', '.join(sorted(tokens))}"
            )
        return shares

    def mixture(self, steps: int) -> list[dict[str, Any]]:
        """Of each source its dialogues, the share it was to have, and the tokens and share that so many steps saw."""
        seen: dict[str, list[int]] = {source: [0, 0] for source in sorted(set(self.sources))}
        for step in range(steps):
            for item in self.epochs.items(step):
                seen[self.sources[item]][0] += self.lengths[item]
                seen[self.sources[item]][1] += sum(self.fitted.items[item][1])
        whole = max(sum(tokens for tokens, _ in seen.values()), 1)
        wanted = self.shares if self.config.mixes else {}
        return [
            {
                "source": source,
                "dialogues": self.sources.count(source),
                "wanted": wanted.get(source),
                "tokens": tokens,
                "trained": trained,
                "share": tokens / whole,
            }
            for source, (tokens, trained) in seen.items()
        ]


def data(
    config: SftConfig, base: Path, conversations: Sequence[Conversation], heldout: Sequence[Conversation]
) -> Dialogues:
    """Dialogues as tokens and assistant masks, for the model in `base`: see `taught`."""
    from models.network import checkpoint
    from models.text import tokenizer as tokenizers

    words, longest, rows = tokenizers.load(base), checkpoint.context_of(base), checkpoint.vocabulary_of(base)
    return taught(config, words, longest, rows, conversations, heldout)


def taught(
    config: SftConfig,
    words: Any,
    longest: int,
    rows: int,
    conversations: Sequence[Conversation],
    heldout: Sequence[Conversation] = (),
) -> Dialogues:
    """Dialogues as tokens and assistant masks, at most a token longer than the context: the last is only ever a target.

    `words` is the tokenizer of a model that takes `longest` tokens and has `rows` of them in its embedding.
    `models.text.packing` says what is cut and what is left out. Raises UserError when none is left, and where no token
    or every token would train.
    """
    from datalake.errors import UserError
    from models.text.mask import all_or_nothing, require_part
    from models.text.packing import NO_ANSWER, fit_all, fit_dialogue
    from models.text.template import read
    from models.text.templating import with_template

    if config.template:
        words = with_template(words, read(Path(config.template.path)), rows)
    context = min(config.context or longest, longest)

    def fit(some: Sequence[Conversation]) -> Fitted[Dialogue]:
        return fit_all(some, lambda one: fit_dialogue(one["messages"], words, context + 1, one.get("tools") or ()))

    train, judged = fit(conversations), fit(heldout)
    if not train.items:
        answered = sum(any(_learned(turn) for turn in one["messages"]) for one in conversations)
        if train.why == NO_ANSWER and answered:
            raise all_or_nothing("no token", answered)
        raise UserError(
            f"none of {len(conversations)} dialogues can be learned from in {context} tokens ({train.why}): give"
            " others, another base or an sft.template that marks answers with {% generation %}, or raise sft.context or"
            " pretrain.context"
        )
    require_part(train.items)
    sources = [str(conversations[number].get("source", "")) for number in train.numbers]
    return Dialogues(config, train, judged, lambda dialogue: len(dialogue[0]), context, words, sources=sources)


def _learned(turn: Mapping[str, Any]) -> bool:
    """Whether a message is the assistant's, and to be learned."""
    return turn["role"] == "assistant" and turn.get("weight") != "0"


def prepare(
    config: SftConfig,
    data: Dialogues,
    base: Path,
    conversations: Sequence[Conversation],
    heldout: Sequence[Conversation],
) -> Prepared:
    """The model in `base` learns the assistant's tokens of these dialogues."""
    from datalake.files import folder_version
    from models.network.checkpoint import load_language_model
    from models.objectives.assistant_tokens import assistant_tokens, collate
    from models.text.mask import SHOWN, said, stretches, visible
    from models.training.device import moved
    from models.training.figures import marked
    from models.training.loop import mean_loss

    model = load_language_model(base)
    drawn = data.drawn()
    judged = data.in_batches(drawn, collate)
    shown = [visible(stretches(*dialogue, data.words)) for dialogue in data.fitted.items[:SHOWN]]
    trains = marked("What the dialogues teach: marked tokens train", shown, said(data.fitted.items))

    def objective(network: nn.Module, batch: Batch) -> Loss:
        return assistant_tokens(network, batch, config.balance)

    def of_step(step: int) -> list[Any]:
        items = data.of_step(step)
        part = -(-len(items) // config.accumulation)
        return [collate(items[first : first + part], config.packing) for first in range(0, len(items), part)]

    def blame(network: nn.Module, step: int) -> Iterator[tuple[int, int, float]]:
        for item in data.epochs.items(step):
            batch = moved(collate([data.fitted.items[item]]), next(network.parameters()).device)
            loss = assistant_tokens(network, batch, 0.0)
            yield data.fitted.numbers[item], int(loss.targets), float(loss.sums["loss"])

    def finish(ended: Ended) -> dict[str, Any]:
        report = data.report("dialogues", ended.step)
        report["mixture"] = data.mixture(ended.step)
        if judged:
            report |= {
                "heldout_dialogues": len(drawn),
                "heldout_loss_before": ended.before["loss"],
                "heldout_loss": ended.heldout["loss"],
                "heldout_token_accuracy": ended.heldout["token_accuracy"],
            }
        return report

    return Prepared(
        model=model,
        objective=objective,
        batches=lambda step: [of_step(step)],
        ahead=True,
        words=data.words,
        inputs={
            "base": folder_version(base),
            "conversations": [[list(ids), list(mask)] for ids, mask in data.fitted.items],
            "sources": list(data.sources) if config.mixes else [],
        },
        measure=(lambda network: mean_loss(network, judged, assistant_tokens)) if judged else None,
        figures=[trains],
        finish=finish,
        blame=blame,
    )


sft = Method(
    "sft", SftConfig, data, prepare, title="Supervised fine-tuning", after="pretrain", default=True, version="5"
)
