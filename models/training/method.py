"""A training method: a function that prepares what it trains; everything else is done here, once for all methods.

    sft = Method("sft", SftConfig, data, prepare, ...)         # at the end of models/methods/sft.py

`data(config, **inputs)` says what is trained on and which items a step sees, without a model; `prepare(config, data,
**inputs)` builds model, objective and batches. The driver puts them on a device, among ranks, resumes, trains, writes
the checkpoint and reports. Nothing heavier than pydantic is imported, so that a recipe is validated in no time.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from models.training.config import TrainingConfig
from models.training.figures import BEGINNING, FIGURES, Figure

if TYPE_CHECKING:
    from torch import nn

    from models.objectives.base import Objective
    from models.parallel.ranks import Ranks
    from models.training.device import Device
    from models.training.loop import Batches, Callback
    from models.training.spikes import Blame, Window

C = TypeVar("C", bound=TrainingConfig)
Seen = tuple[Any, ...]
OnStep = Callable[[dict[str, Any]], None]
REPORT = "report.json"  # what a method says at its end, beside its checkpoint


class Data(Protocol):
    """What a method trains on. `steps`: how many there are; `seen(step)`, from 0: the items of a step, row by row."""

    @property
    def steps(self) -> int:
        """Steps that the config comes to on this data."""

    def seen(self, step: int) -> list[Seen]:
        """The items of a step: (number in the list given, tokens read), or (document id, first token, tokens)."""


@dataclass
class Ended:
    """How training ended, for a method's own part of the report."""

    step: int
    last: Mapping[str, float]  # the last step's metrics
    before: Mapping[str, float]  # held-out figures before the first step
    heldout: Mapping[str, float]  # and the last ones
    metrics: Path
    without: Sequence[int] = ()  # steps (from 0) that trained nothing, as a spike was undone


@dataclass
class Begun:
    """A run before its first step, or before its state is put back: the model, on its device and among its ranks, with
    the weights that it starts from; `folder` is where states of such runs lie. say: shows how far the work before the
    first step is."""

    model: nn.Module
    folder: Path
    device: Device
    ranks: Ranks
    say: Callable[[str], None]
    actors: Any = None  # makes other processes that hold the model as well, where the stage has a cluster


@dataclass
class Prepared:
    """What a method gives to be trained.

    model: what states hold; `units` are its parts whose gradients are clipped apart (all of it is one unit unless
    given), `rates` the peak rates of those that have their own. written: the part that becomes the checkpoint.
    words: the tokenizer written with it. inputs: what shapes the weights beside the config. measure: held-out figures.
    compiles: whether forward pass and loss are one graph for batches of one shape. ahead: whether batches depend on the
    step alone, so that the next one's can be made while this one's are computed.
    callbacks: asked before all others. finish: called with the end, before the checkpoint is written; its part of the
    report, `figures` of its own among it. frozen: other models that are used and not trained: they go to the device as
    well. figures: what there is to show before the first step. begin: called before a state is put back, for what the
    model says with the weights it starts from. blame: what a step (from 0) saw and the loss of each document of it, for
    the ranking of what made a loss spike.
    """

    model: nn.Module
    objective: Objective
    batches: Batches
    words: Any
    inputs: Mapping[str, Any]
    finish: Callable[[Ended], dict[str, Any]]
    written: nn.Module | None = None
    units: Mapping[str, nn.Module] = field(default_factory=dict)
    rates: Mapping[str, float] = field(default_factory=dict)
    measure: Callable[[nn.Module], dict[str, float]] | None = None
    compiles: bool = False
    ahead: bool = False
    callbacks: Sequence[Callback] = ()
    frozen: Sequence[nn.Module] = ()
    figures: Sequence[Figure] = ()
    begin: Callable[[Begun], None] | None = None
    blame: Blame | None = None


@dataclass(frozen=True)
class Method(Generic[C]):
    """A method by its name, which is that of its section in a recipe and of its stage.

    after: the method whose place in the pipeline it follows. default: whether a recipe that doesn't name it has it.
    version: raise it whenever the code gives other weights for the same input. writes: whether its model answers.
    """

    name: str
    config: type[C]
    data: Callable[..., Data]
    prepare: Callable[..., Prepared]
    title: str
    after: str = ""
    default: bool = False
    version: str = "1"
    writes: bool = True

    @cached_property
    def inputs(self) -> tuple[str, ...]:
        """The names of what it is given beside its config."""
        return tuple(name for name in inspect.signature(self.prepare).parameters if name not in ("config", "data"))

    def given(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Of these inputs those that `data` takes."""
        wanted = inspect.signature(self.data).parameters
        return {name: value for name, value in inputs.items() if name in wanted}

    def seen(self, config: C, step: int, **inputs: Any) -> list[Seen]:
        """What a step, counted from 1, saw. Raises UserError for one that wasn't taken."""
        from datalake.errors import UserError

        data = self.data(config, **self.given(inputs))
        if not 1 <= step <= data.steps:
            raise UserError(f"step {step} is out of range: this stage took {data.steps} steps, 1 to {data.steps}")
        return data.seen(step - 1)

    def __call__(
        self,
        config: C,
        *inputs: Any,
        on_step: OnStep | None = None,
        states: Path | None = None,
        ranks: Ranks | None = None,
        device: str | None = None,
        actors: Any = None,
        **named: Any,
    ) -> dict[str, Any]:
        """Trains, and writes `checkpoint`, `metrics.jsonl` and states to the folder `out`, the last of the inputs;
        returns a report of plain values.

        `states`: where states of all such runs lie, so that a longer one finds a shorter one's; `out/state` unless
        given. `on_step` is told of every step's metrics; `actors` makes other processes for a method that wants some.
        Raises UserError for what a user can mend.
        """
        *first, out = inputs if "out" not in named else (*inputs, named.pop("out"))
        given = dict(zip(self.inputs, first, strict=False)) | named
        undone: dict[str, Any] = {}
        while True:
            report = _train(self, config, out, given, on_step, states, ranks, device, actors, **undone)
            stopped = report.get("stopped")
            if "windows" in report:  # from a state before the spike, without the data of those steps
                undone["windows"] = report["windows"]
            elif stopped is not None and stopped["good"] < stopped["step"] and "stopped" not in undone:
                # up to the last good step once more, from a state before it: the same weights, bit for bit
                undone["stopped"] = stopped
            else:
                return report


def _train(
    method: Method[Any],
    config: Any,
    out: Path,
    inputs: dict[str, Any],
    on_step: OnStep | None,
    states: Path | None,
    ranks: Ranks | None,
    place: str | None,
    actors: Any = None,
    stopped: dict[str, Any] | None = None,
    windows: Sequence[Window] = (),
) -> dict[str, Any]:
    """Trains until the end, or, where it is known that the run `stopped`, until its last good step; without the steps
    in `windows`. Of a run that finds itself stopped and has a good step to go back to, the report is `stopped` alone,
    of one that has to undo some steps `windows`, and nothing else is written."""
    import torch

    from datalake.atomic import write_atomically
    from datalake.identity import fingerprint
    from models.network import checkpoint
    from models.network.build import recompute_activations
    from models.network.lora import apply_lora, merged, save_adapter
    from models.parallel.ranks import ALONE
    from models.text.tokenizer import check_rows, control_ids
    from models.training import device as devices
    from models.training.callbacks import Checkpoints, Evaluation, Metrics, Progress
    from models.training.compilation import compiled
    from models.training.diagnosis import LEAST
    from models.training.loop import fit
    from models.training.optimizer import build_optimizer
    from models.training.prefetch import prefetched
    from models.training.schedule import branch_of, schedule_of
    from models.training.spikes import CONFIRMED, SpikeGuard
    from models.training.state import drop_states, load_state, rates_digest
    from models.training.stops import Stops

    ranks = ranks or ALONE
    ranks.fits(method.name, config.accumulation, config.optimizer)
    device = devices.choose(config.precision, place)
    torch.manual_seed(config.seed)
    data = method.data(config, **method.given(inputs))
    prepared = method.prepare(config, data, **inputs)
    learned: Any = prepared.model if prepared.written is None else prepared.written
    check_rows(prepared.words, learned.config.vocabulary)
    for network in (prepared.model, *prepared.frozen):
        network.to(device.device)
    units = dict(prepared.units) or {method.name: prepared.model}
    if config.lora is not None:
        written_by_dialogues = control_ids(prepared.words)
        for number, unit in enumerate(units.values()):
            apply_lora(unit, config.lora, config.seed + number, written_by_dialogues)
    if config.activation_checkpointing:
        recompute_activations(prepared.model)
    model = ranks.spread(prepared.model, device.compute)
    shaping = config.model_copy(update=dict.fromkeys(config.lengths))
    identity = fingerprint({"stage": method.name, "config": shaping, **prepared.inputs})
    schedule, branch = schedule_of(config, data.steps), branch_of(config, data.steps)
    folder = out / "state" if states is None else states / identity
    back, metrics = config.spike_window, Metrics(out / "metrics.jsonl")
    guard = SpikeGuard(config.spike_sigma, back=back, blame=prepared.blame, windows=windows)
    stops, keep = Stops(() if stopped else config.stop_when, metrics), 2
    if back:  # a state from before the window is there when it is wanted
        keep = min(3 + (back + CONFIRMED) // config.checkpoint_every, 12)
    if config.stop_when:
        # back to a good step it is a stretch of a rule: states of that many steps are kept, unless that is too many
        keep = max(keep, min(3 + max(LEAST, data.steps // 10) // config.checkpoint_every, 12))
        if config.keep_state and states is not None:
            unruled = shaping.model_copy(update={"stop_when": ()})
            other = fingerprint({"stage": method.name, "config": unruled, **prepared.inputs})
            stops.kept = Checkpoints(states / other, config.checkpoint_every, other)
    callbacks: list[Callback] = [*prepared.callbacks, guard, stops]
    evaluation = None
    if prepared.measure is not None:
        evaluation = Evaluation(prepared.measure, config.eval_every)
        callbacks.append(evaluation)
    lasting = branch if config.keep_state else None
    saving = Checkpoints(folder, config.checkpoint_every, identity, keep, lasting)
    told = {"identity": identity, "rates": rates_digest(schedule, data.steps)}
    if (done := _told(out, told)) is not None:
        return done
    if prepared.begin is not None:
        say = partial(_say, out, ranks)
        prepared.begin(Begun(model, out if states is None else states, device, ranks, say, actors))
        ranks.settle(model)
    steps = stopped["good"] if stopped else data.steps
    whole_run = {path: path.read_bytes() for path in out.glob("*.jsonl")} if stopped else {}
    if ranks.leads and prepared.figures:
        out.mkdir(parents=True, exist_ok=True)
        write_atomically(out / FIGURES, json.dumps(list(prepared.figures)).encode())
    state = load_state(folder, identity, schedule, steps)
    began = state.step
    every = guard.but_those(prepared.batches)
    early = prepared.ahead and device.device.type == "cuda"
    with prefetched(every, steps) if early else nullcontext(every) as batches:
        state = fit(
            model,
            compiled(prepared.objective, config.compile, device.device, prepared.compiles and ranks.whole_model),
            batches,
            build_optimizer(config, units, dict(prepared.rates)),
            schedule,
            [*callbacks, metrics, Progress(on_step if ranks.leads else None), saving],
            state,
            steps=steps,
            clip=config.clip,
            device=device,
            ranks=ranks,
        )
    if guard.found is not None:
        ranks.barrier()
        if ranks.leads:
            drop_states(folder, guard.found.first)
        ranks.barrier()
        return {"windows": [*guard.windows, guard.found]}
    stopped = stopped or stops.told(state.step)
    if stopped is not None and stopped["good"] < state.step:
        return {"stopped": stopped}
    whole = ranks.gathered(model).eval()
    ranks.barrier()  # what the leading rank wrote is there for all
    before, figures = ({}, {}) if evaluation is None else (evaluation.first, evaluation.last)
    report: dict[str, Any] = {
        "steps": state.step,
        "target_tokens": state.targets,
        "loss": metrics.last.get("loss"),
        "tokens_per_s": metrics.mean("tokens"),
        "mfu": None if math.isnan(metrics.mean("mfu")) else metrics.mean("mfu"),
        "memory_mb": metrics.last["memory_mb"],
        "skipped": guard.skipped,
        "computed": {
            "device": str(device),
            "threads": torch.get_num_threads(),
            "ranks": ranks.size,
            "from_step": began,
        },
    }
    with torch.no_grad():
        without = [step - 1 for step in guard.left_out]
        report |= prepared.finish(Ended(state.step, metrics.last, before, figures, metrics.path, without))
    if prepared.figures:
        report["figures"] = [*prepared.figures, *report.get("figures", ())]
    if unlearned := sorted({token for unit in units.values() for token in getattr(unit, "lora_tokens", ())}):
        report["learned_tokens"] = prepared.words.convert_ids_to_tokens(unlearned)
    report |= guard.report()
    if stopped is not None:
        report["stopped"] = stopped
    if ranks.leads:
        for path, rows in whole_run.items():  # those after the good step tell why
            write_atomically(path, rows)
        written = whole if prepared.written is None else prepared.written
        checkpoint.save(written if config.lora is None else merged(written), prepared.words, out / "checkpoint")
        if config.lora is not None:
            save_adapter(written, out / "checkpoint" / "adapter")
        write_atomically(out / REPORT, json.dumps(told | {"report": report}).encode())
        saving.clear()
    ranks.barrier()
    return report


def _say(out: Path, ranks: Ranks, text: str) -> None:
    """Shown until there is a step; what reads it finds the one before or this, never half of one."""
    from datalake.atomic import temporary

    if ranks.leads:
        out.mkdir(parents=True, exist_ok=True)
        new = temporary(out / BEGINNING)
        new.write_text(text)
        new.replace(out / BEGINNING)


def _told(out: Path, told: dict[str, str]) -> dict[str, Any] | None:
    """The report of a run that wrote its checkpoint and was then killed, before anyone took it; None where none is."""
    try:
        written = json.loads((out / REPORT).read_bytes())
    except (OSError, ValueError):
        return None
    report: dict[str, Any] = written.pop("report")
    return report if written == told and (out / "checkpoint").is_dir() else None


def in_order(methods: Iterable[Method[Any]]) -> dict[str, Method[Any]]:
    """Methods by name, each after the one that it follows."""
    left = {method.name: method for method in methods}
    ordered: dict[str, Method[Any]] = {}
    while left:
        ready = [name for name, method in sorted(left.items()) if not method.after or method.after in ordered]
        if not ready:
            raise ValueError(f"no place in the pipeline for {', '.join(left)}: what they follow is no method")
        for name in ready:
            ordered[name] = left.pop(name)
    return ordered
