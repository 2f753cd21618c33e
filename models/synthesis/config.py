"""Settings of what models write for training: instructions, answers, judgements.

Imports nothing heavier than pydantic.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from datalake.dedup.config import SigningConfig
from datalake.files import File, Files
from datalake.text.language_config import Language
from models.network.config import OpenModel
from models.serving.config import Endpoint

Tongue = Literal["en", "zh"]


class WriterConfig(BaseModel):
    """Who writes: a model at hand or an endpoint, and how answers are drawn."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: Annotated[Literal["base", "sft"] | OpenModel | None, Field(union_mode="left_to_right")] = Field(
        None,
        title="Model",
        description="A Hugging Face folder or GGUF file; or the run's own: `base` (in `instruct`: the one that `sft` "
        "starts from), `sft` (in `feedback`: the one that `sft` gives)",
    )
    endpoint: Endpoint | None = Field(None, title="Endpoint", description="An OpenAI-compatible server")
    format: Literal["chat", "text"] = Field(
        "chat", title="Format", description="`text`: to be gone on from, for a model that isn't tuned to answer"
    )
    temperature: float = Field(0.7, ge=0, le=10, title="Temperature")
    top_p: float = Field(1.0, gt=0, le=1, title="Top p")
    new_tokens: int = Field(512, ge=1, le=1_000_000, title="New tokens", description="At most, of one answer")
    batch: int = Field(8, ge=1, le=4096, title="Batch", description="Answers that a model at hand writes at once")

    @model_validator(mode="after")
    def _one_writer(self) -> Self:
        if (self.model is None) == (self.endpoint is None):
            raise ValueError("name a `model` or an `endpoint`, one of them")
        return self

    @property
    def own(self) -> bool:
        """Whether it is the run's own model."""
        return isinstance(self.model, str)


class _Section(BaseModel):
    """What the stages share that let a model write."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    writer: WriterConfig = Field(title="Writer", description="Who writes")
    seed: int = Field(0, ge=0, le=2**31, title="Seed")

    @property
    def writers(self) -> dict[str, WriterConfig]:
        """Whoever writes, by the name of the setting."""
        return {"writer": self.writer}

    @property
    def own(self) -> bool:
        """Whether the run's own model writes."""
        return any(one.own for one in self.writers.values())


class InstructConfig(_Section):
    """Self-instruct (Wang et al. 2022, arXiv:2212.10560): instructions and their answers, written from a few tasks."""

    seeds: Files = Field(
        Files(),
        title="Seed tasks",
        description="Files of tasks with answers, as `conversations` reads them; none: the run's own dialogues",
    )
    instructions: int = Field(1_000, ge=1, le=10_000_000, title="Instructions", description="How many are wanted")
    rounds: int = Field(50, ge=1, le=1_000_000, title="Rounds", description="At most")
    requests: int = Field(8, ge=1, le=10_000, title="Requests a round")
    examples: int = Field(6, ge=1, le=100, title="Examples", description="Seed tasks shown in a request")
    written: int = Field(2, ge=0, le=100, title="Written examples", description="Earlier instructions shown besides")
    more: int = Field(8, ge=1, le=100, title="Asked for", description="Instructions that a request asks for")
    languages: tuple[Tongue, ...] = Field(
        ("en",), min_length=1, title="Languages", description="One a request, in turn"
    )
    rouge: float = Field(
        0.7, gt=0, le=1, title="ROUGE-L", description="From this F1 on to an instruction before it, one is refused"
    )
    jaccard: float = Field(
        0.7, gt=0, le=1, title="Near duplicates", description="Jaccard similarity of a dialogue to another"
    )
    signing: SigningConfig = Field(
        SigningConfig(ngram=3, bands=32, rows=4), title="Signatures", description="By which near duplicates are found"
    )
    least_words: int = Field(3, ge=1, le=1_000, title="Least words", description="Of an instruction")
    most_words: int = Field(150, ge=1, le=100_000, title="Most words", description="Of an instruction")
    language: Language = Field(Language(threshold=0.6), title="Language identification")

    @model_validator(mode="after")
    def _before_sft(self) -> Self:
        if self.writer.model == "sft":
            raise ValueError("instruct.writer.model: `sft` learns from what is written here: take `base`, or a folder")
        return self


class FeedbackConfig(_Section):
    """Constitutional feedback (Bai et al. 2022, arXiv:2212.08073): answers criticised, revised and judged."""

    judge: WriterConfig | None = Field(
        None, title="Judge", description="Who says which answer is better; null: a revised one is, and nobody is asked"
    )
    answers: tuple[Literal["revised", "sampled"], ...] = Field(
        ("revised",),
        min_length=1,
        title="Answers compared",
        description="`revised`: the first answer and its revision; `sampled`: two answers to the same prompt",
    )
    principles: File = Field(
        File(), title="Principles", description="A YAML file like models/synthesis/principles.yaml; empty: that one"
    )
    kinds: tuple[str, ...] = Field((), title="Kinds of principles", description="Such as harmless; none: all")
    prompts: int = Field(1_000, ge=1, le=10_000_000, title="Prompts", description="Drawn from the dialogues, at most")
    revisions: int = Field(1, ge=1, le=10, title="Revisions", description="Of an answer, each by another principle")

    @model_validator(mode="after")
    def _somebody_judges(self) -> Self:
        if "sampled" in self.answers and self.judge is None:
            raise ValueError("feedback.judge: two sampled answers are alike to whoever doesn't judge: name a judge")
        for name, one in self.writers.items():
            if one.model == "base":
                raise ValueError(f"feedback.{name}.model: `sft` is the run's own model here")
        return self

    @property
    def writers(self) -> dict[str, WriterConfig]:
        """Whoever writes or judges, by the name of the setting."""
        return super().writers | ({"judge": self.judge} if self.judge else {})
