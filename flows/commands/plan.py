"""`headwater plan`: what to train for a budget, and the laws of scaling that say so."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from datalake.errors import UserError
from flows.commands.common import COMMON, Common
from flows.output import Console, note

if TYPE_CHECKING:
    from models.scaling.fit import Fit
    from models.scaling.plan import Machine, Plan, Planner, Text

FIELDS = "parameters tokens batch learning_rate loss loss_low loss_high memory_gb hours".split()  # noqa: SIM905
USUAL = 32_768, 2048  # words of a tokenizer, tokens in a row


def plan(
    *,
    fit: Path | None = None,
    flops: float | None = None,
    gpu_hours: float | None = None,
    money: float | None = None,
    loss: float | None = None,
    gpu: str | None = None,
    gpus: int = 1,
    price: float | None = None,
    mfu: float = 0.4,
    context: int | None = None,
    corpus: str | None = None,
    epochs: float = 4.0,
    common: Common = COMMON,
) -> None:
    """What to train for a budget: parameters, tokens, batch, rate, loss, memory, time.

    The corpus of the lake is asked whether it has the tokens. A plan that wants too many, or more memory than the GPU
    has, is refused.

    Parameters
    ----------
    fit
        Trainings as CSV with parameters,tokens,loss. Alone: the laws of Chinchilla and Kaplan fitted to them; with a
        budget: plan by their law, in place of Chinchilla's as published.
    flops
        The budget: 6 x parameters x tokens.
    gpu_hours
        The budget: hours of --gpu, of all of them together.
    money
        The budget: what --gpu may cost, at --price.
    loss
        The loss to reach, in nats a token, for as little as can be.
    gpu
        Such as H100, A100-40GB, 4090; or cpu, for this machine's processor.
    gpus
        So many of them share the model.
    price
        Of a GPU hour.
    mfu
        The share of the GPU's peak that training reaches.
    context
        Tokens in a row; the recipe's that filled the lake, else 2048.
    corpus
        The corpus of the lake to train on, where it has several.
    epochs
        How often its text may be seen.
    """
    budgets = {"--flops": flops, "--gpu-hours": gpu_hours, "--money": money, "--loss": loss}
    named = [name for name, value in budgets.items() if value is not None]
    if len(named) > 1 or not (named or fit):
        raise UserError(f"give one budget of {', '.join(budgets)}, or trainings with --fit")
    amounts = {**budgets, "--price": price, "--mfu": mfu, "--epochs": epochs, "--gpus": gpus}
    for name, value in amounts.items():
        if value is not None and not 0 < value < math.inf:
            raise UserError(f"{name} {value:g}: a finite number above 0 is wanted")
    if mfu > 1:
        raise UserError(f"--mfu {mfu:g}: a share of the peak is wanted, at most 1")
    if context is not None and not 8 <= context <= 1_048_576:
        raise UserError(f"--context {context}: a number from 8 to 1048576 is wanted")
    if (gpu_hours is not None or money is not None) and gpu is None:
        raise UserError("say with --gpu whose hours these are, such as H100")
    if (money is None) != (price is None):
        raise UserError("--money needs the --price of a GPU hour" if price is None else "--price needs --money")

    from models.scaling.fit import fit as fitted
    from models.scaling.laws import Chinchilla, Kaplan
    from models.scaling.points import read_points

    points = None if fit is None else read_points(fit)
    if points is not None and not named:
        laws = {"chinchilla": fitted(points, Chinchilla()), "kaplan": fitted(points, Kaplan())}
        common.output.answer({name: _law(one) for name, one in laws.items()}, _print_laws)
        return

    from models.scaling.plan import Planner, machine
    from models.scaling.published import chinchilla

    law = chinchilla() if points is None else fitted(points)
    devices = machine(gpu, gpus, mfu)
    text, vocabulary, usual = _text(common, corpus, epochs)
    planner = Planner(law, devices, text, vocabulary, context or usual)
    if flops is not None:
        made = planner.of_flops(flops)
    elif loss is not None:
        made = planner.of_loss(loss)
    else:
        hours = gpu_hours if money is None or price is None else money / price
        assert hours is not None, "one budget is given"
        made = planner.of_hours(hours)
    _say(law, planner, made, fit)
    common.output.answer(
        {name: getattr(made, name) for name in FIELDS}, lambda console, answer: _print(console, answer, made, devices)
    )


def _text(common: Common, corpus: str | None, epochs: float) -> tuple[Text | None, int, int]:
    """The lake's text, its tokenizer's size and its recipe's context. Without a lake in the usual place, and without
    one asked for: none, and what is usual."""
    from models.scaling.plan import Text

    asked_for = str(common.lake) != "lake" or corpus is not None
    if not asked_for and not common.folder.is_dir():
        return None, *USUAL
    try:
        there = common.open().tokens(corpus)
    except UserError as error:
        if asked_for:
            raise
        note(f"without a corpus: {error}")
        return None, *USUAL
    text = Text(there["corpus"], there["tokens"], epochs)
    return text, there["vocabulary"] or USUAL[0], there["context"] or USUAL[1]


def _law(fit: Fit) -> dict[str, Any]:
    return {**fit.constants, "objective": fit.objective, "intervals": fit.intervals}


def _print_laws(console: Console, laws: Mapping[str, Any]) -> None:
    """Each constant with its interval, a table a law."""
    for name, law in laws.items():
        console.line(f"{name}, objective {law['objective']:.6g}")
        rows = [[constant, law[constant], *ends] for constant, ends in law["intervals"].items()]
        console.table(["constant", "value", "low", "high"], rows)


def _say(law: Fit, planner: Planner, made: Plan, fit: Path | None) -> None:
    """What a plan rests on, on stderr."""
    machine = planner.machine
    note(
        f"loss by Chinchilla's law {'as published, refitted' if fit is None else f'fitted to {fit}'}; batch and rate by"
        f" Step Law; time at {machine.mfu:.0%} of the peak of {machine.count} x {machine.name}"
        f"{'' if machine.chosen else ' (--gpu names another)'}"
    )
    for what, value, (least, most), below, above in (
        ("the model is", made.parameters, law.sizes, "smallest", "largest"),
        ("the tokens are", made.tokens, law.budgets, "fewest", "most"),
    ):
        if not least <= value <= most:
            times, side = (value / most, above) if value > most else (least / value, below)
            note(f"{what} {times:.3g} times beyond the {side} that the law was fitted to: the loss is a guess")
    built = made.network.parameters
    if not 0.8 < built / made.parameters < 1.25:
        note(f"the section's model has {built:,} parameters: no shape with heads of 64 is nearer")
    if made.epochs is not None and made.epochs > 1:
        note(f"the corpus is seen {made.epochs:.3g} times: the loss is what its repetitions are worth")


def _print(console: Console, answer: Mapping[str, Any], made: Plan, machine: Machine) -> None:
    """The plan, and the same as a recipe's section."""
    console.table(["what", "value"], [[name, answer[name]] for name in FIELDS])
    console.line(f"\n{section(made, machine.count)}")


def section(made: Plan, count: int) -> str:
    """A plan on so many GPUs as a section of a recipe."""
    shape, batch = made.network, max(1, round(made.batch / made.network.context))
    return (
        f"pretrain: {{layers: {shape.layers}, width: {shape.width}, heads: {shape.heads}, kv_heads: {shape.kv_heads},"
        f" context: {shape.context}, batch: {batch}, accumulation: {-(-batch // (made.rows * count))},"
        f" tokens: {made.tokens}, learning_rate: {made.learning_rate:.3g}}}"
    )
