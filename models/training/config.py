"""What every training method may be told; its own settings lie beside it, in `models/methods`.

What shapes the weights belongs to a run's identity; how often to save and to look, and at how much, is marked `Place`
and doesn't. Defaults suit a model of a few million parameters on a small CPU. Nothing heavier than pydantic is
imported, so that a recipe validates and a form draws in no time.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from datalake.identity import Place
from models.network.config import LoraConfig
from models.training.diagnosis import named


class TrainingConfig(BaseModel):
    """What every training stage shares: the batch, the optimizer, the schedule, how often to save and to evaluate."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    # What says how long a run is and how its rates go: not part of a state's identity, which knows the rates themselves
    lengths: ClassVar[tuple[str, ...]] = ("steps", "tokens", "schedule", "warmup", "decay", "floor")

    seed: int = Field(0, ge=0, lt=2**31, title="Seed", description="Of initial weights, data order and sampling.")
    batch: int = Field(16, ge=1, le=65536, title="Batch", description="Rows (sequences, dialogues or pairs) per step.")
    accumulation: int = Field(
        1,
        ge=1,
        le=4096,
        title="Accumulation",
        description="Parts a batch is computed in, to save memory or to share it among ranks: the same loss and"
        " gradient but for the last bits, since sums are added in another order.",
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        "auto",
        title="Precision",
        description="Of products; weights stay in float32. auto: bfloat16 on a GPU that has it, else float32.",
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        title="Compile",
        description="Forward pass and loss as one compiled graph. auto: on a GPU, where a method's batches have one"
        " shape. Faster after a minute's work; the last bits differ.",
    )
    activation_checkpointing: Annotated[bool, Place()] = Field(
        False,
        title="Activation checkpointing",
        description="Layers keep their input alone and are computed again for their gradients: the same numbers in"
        " less memory, for a third more time.",
    )
    optimizer: Literal["adamw", "muon"] = Field(
        "adamw", title="Optimizer", description="muon takes the inner matrices, AdamW embeddings, head and scalars."
    )
    learning_rate: float = Field(1e-3, gt=0, le=1, title="Learning rate", description="The peak, for AdamW's share.")
    muon_learning_rate: float = Field(
        0.02, gt=0, le=1, title="Muon learning rate", description="The peak for the inner matrices under muon."
    )
    schedule: Literal["constant", "cosine", "wsd"] = Field(
        "cosine",
        title="Schedule",
        description="After the warm-up: hold, half a cosine, or hold and then fall in a line.",
    )
    warmup: float = Field(
        0.03, ge=0, le=1, title="Warm-up", description="Share of the steps; the rate rises in a line."
    )
    decay: float = Field(
        0.4, ge=0, le=1, title="Decay", description="Share of the steps in which a wsd schedule falls."
    )
    floor: float = Field(0.1, ge=0, le=1, title="Floor", description="Where a schedule ends, as a share of the peak.")
    weight_decay: float = Field(0.1, ge=0, le=10, title="Weight decay", description="On matrices only.")
    beta1: float = Field(0.9, ge=0, lt=1, title="Beta 1", description="AdamW's decay of the gradient's mean.")
    beta2: float = Field(0.95, ge=0, lt=1, title="Beta 2", description="AdamW's decay of the gradient's square.")
    epsilon: float = Field(
        1e-8, gt=0, le=1, title="Epsilon", description="AdamW's term beside the root, as torch has it."
    )
    clip: float = Field(1.0, ge=0, le=1e6, title="Gradient clip", description="Largest global norm; 0 for none.")
    spike_sigma: float = Field(
        6.0,
        ge=0,
        le=100,
        title="Spike guard",
        description="Deviations above the recent mean that skip a step; 0 is off.",
    )
    spike_window: int = Field(
        0,
        ge=0,
        le=10_000,
        title="Spike window",
        description="Where three updates in a row spike, training goes back to before so many steps ahead of them and"
        " leaves out these steps' data; gradient norms are then judged as well. 0: an update that spikes is left out,"
        " and no more.",
    )
    stop_when: Annotated[tuple[str, ...], AfterValidator(named)] = Field(
        (),
        title="Stop when",
        description="Rules of models/training/diagnosis.py (kl, entropy, overfitting...): a run ends early where one of"
        " them warns, with the weights from before. Empty: it ends where it was meant to.",
    )
    lora: LoraConfig | None = Field(
        None,
        title="LoRA",
        description="Train low-rank adapters instead of all weights; the checkpoint has them added to its weights, and"
        " beside it in peft's format in `adapter`. Empty: all weights.",
    )
    checkpoint_every: Annotated[int, Place()] = Field(
        50, ge=1, le=1_000_000, title="Checkpoint every", description="Steps between two states to resume from."
    )
    keep_state: Annotated[bool, Place()] = Field(
        True,
        title="Keep the state",
        description="Of the last step before the rate falls, so that more steps go on from it: constant and wsd alone.",
    )


class EvaluatedConfig(TrainingConfig):
    """What the stages with a held-out loss add."""

    eval_every: Annotated[int, Place()] = Field(
        100, ge=0, le=1_000_000, title="Evaluate every", description="Steps between two held-out losses; 0: at the end."
    )
    eval_rows: Annotated[int, Place()] = Field(
        64, ge=1, le=1_000_000, title="Held-out rows", description="Rows that each held-out figure is measured on."
    )


class TunedConfig(EvaluatedConfig):
    """What the methods add that go through items in epochs: dialogues, pairs."""

    lengths: ClassVar[tuple[str, ...]] = (*TrainingConfig.lengths, "epochs")

    epochs: float = Field(1.0, gt=0, le=1000, title="Epochs", description="Times every item is seen.")
    steps: int | None = Field(None, ge=1, title="Steps", description="Optimizer steps; empty: what the epochs come to.")
    context: int | None = Field(
        None, ge=8, title="Context", description="Longest item in tokens; what is longer is cut. Empty: the model's."
    )
