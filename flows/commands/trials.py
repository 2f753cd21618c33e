"""`headwater sweep` and `headwater ablate`: small models trained beside each other before a large one is paid for."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from datalake.errors import UserError
from datalake.printable import printable, write
from flows.commands.common import COMMON, Common
from flows.output import Console

if TYPE_CHECKING:
    from flows.ending import Ending
    from tasks.log import RunLog

Set = Annotated[
    tuple[str, ...], Parameter(name="--set", negative="", help="Override a value: --set deduplicate.threshold=0.7")
]


def sweep(
    recipe: Path,
    *,
    set: Set = (),
    depths: str = "1,2,3",
    ratios: str = "2.5,5,10",
    held_out: int = 4,
    aspect: int = 64,
    workers: int | None = None,
    common: Common = COMMON,
) -> int:
    """Small models fit a law of scaling, and foretell a larger one.

    They are trained beside each other.

    Parameters
    ----------
    recipe
        What to train on; its `pretrain` says what the models have in common.
    depths
        Of the small models, in layers.
    ratios
        Tokens per parameter that each of them is trained on.
    held_out
        Depth of the larger model, at the middle ratio.
    aspect
        Width per layer, of all models.
    workers
        Trainings at once.
    """
    from models.scaling.config import SweepConfig

    try:
        shape: dict[str, Any] = {
            "depths": [int(one) for one in depths.split(",")],
            "ratios": [float(one) for one in ratios.split(",")],
            "held_out": held_out,
            "aspect": aspect,
        }
        SweepConfig(**shape)
    except ValueError:
        raise UserError(
            f"--depths {depths}, --ratios {ratios}: give three different numbers above 0 each, as in 1,2,3; --aspect"
            f" {aspect}, --held-out {held_out}: an even number and a depth"
        ) from None
    return _run("sweep", recipe, set, workers, common, _print_sweep, **shape)


def ablate(
    recipe: Path,
    *,
    against: Annotated[tuple[str, ...], Parameter(negative="")],
    set: Set = (),
    seeds: int = 5,
    workers: int | None = None,
    common: Common = COMMON,
) -> int:
    """The same small model on two mixtures, and which is better.

    Parameters
    ----------
    recipe
        The first mixture, and the model in its `pretrain`.
    against
        What the second mixture has otherwise: --against mixture.weights.code=0
    seeds
        Trainings of each mixture.
    workers
        Trainings at once.
    """
    from flows.recipe import load

    if not 2 <= seeds <= 1000:
        raise UserError(f"--seeds {seeds}: a number from 2 to 1000 is wanted")
    load(recipe, [*set, *against])  # a mistake in the second one is said before any work
    return _run("ablate", recipe, set, workers, common, _print_ablation, against=list(against), seeds=seeds)


def _run(
    flow: str, path: Path, set: tuple[str, ...], workers: int | None, common: Common, draw: Any, **parameters: Any
) -> int:
    """Run one of the flows; a failed stage is one line and exit 1."""
    from flows.ending import in_order
    from flows.recipe import load
    from flows.start import FailedRunError, find_inputs, start

    def follow(log: RunLog) -> None:
        log.on_report = lambda report: tell(report.line) if report.asked_for else None

    def tell(text: str) -> None:
        write(printable(text), sys.stderr)

    def body(ending: Ending) -> tuple[int, str]:
        named, lose = str(path.absolute()), ending.lose
        try:
            found = start(recipe, named, common.folder, None, overrides, follow, tell, lose, flow, **parameters)
        except FailedRunError as error:
            return 1, str(error)
        common.output.answer(found, draw)
        return 0, ""

    overrides = set if workers is None else (*set, f"runtime.workers={workers}")
    recipe = load(path, overrides)
    find_inputs(recipe)
    return in_order(body)


def _print_sweep(console: Console, found: Mapping[str, Any]) -> None:
    console.table(["parameters", "tokens", "loss"], found["points"])
    law, large = found["chinchilla"], found["held_out"]
    rows = [[name, law[name], *ends] for name, ends in law["intervals"].items()]
    console.line()
    console.table(["constant", "value", "low", "high"], rows)
    console.line(
        f"\n{large['parameters']:,} parameters on {large['tokens']:,} tokens: {large['expected']:.4f} expected"
        f" ({large['low']:.4f} to {large['high']:.4f}), {large['loss']:.4f} came out: off by {large['error']:+.2%}"
    )


def _print_ablation(console: Console, found: Mapping[str, Any]) -> None:
    names = ["documents of", "documents", "first", "second", "difference", "low", "high", "verdict"]
    console.table(names, [[row[name] for name in names] for row in found["bits_per_byte"]])
    console.line(
        f"bits per byte, {found['bits_per_byte'][0]['seeds']} pairs of trainings; the verdict is on the second"
    )
