"""Published laws of scaling beside what comes out of the published trainings here.

    .venv/bin/python benchmarks/scaling.py --hoffmann svg_extracted_data.csv

Gadre et al.'s 104 models and Step Law's mixtures of experts are among the samples (`scaling/`). The points of Hoffmann
et al.'s figure 4 as Besiroglu et al. read them are data/svg_extracted_data.csv of
https://github.com/epoch-research/analyzing-chinchilla; without `--hoffmann` they are left out.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from models.scaling.fit import fit, fit_squares
from models.scaling.laws import Chinchilla, Kaplan
from models.scaling.points import Points
from models.scaling.published import KAPLAN, batch_tokens, learning_rate

# Besiroglu et al. 2024, with standard errors
BESIROGLU = {"E": (1.8169, 0.0257), "A": (482.01, 124.5), "B": (2085.43, 1293.0), "alpha": (0.3478, 0.0154)}
BESIROGLU["beta"] = (0.3659, 0.0206)
# Gadre et al. 2024: data, parameters in billions, tokens a parameter, relative error in percent on C4's validation set
GADRE = [
    ("rpj", 1.4, 640, 0.71),
    ("rpj", 6.9, 20, 0.73),
    ("c4_original", 6.9, 20, 4.30),
    ("rw_original", 6.9, 20, 1.62),
]


def hoffmann(path: Path, resamples: int) -> dict[str, Any]:
    """The fit to 240 of the 245 points, and Kaplan's form fitted to the same."""
    with path.open() as lines:
        rows = [
            (float(row["Model Size"]), float(row["Training FLOP"]) / 6 / float(row["Model Size"]), float(row["loss"]))
            for row in csv.DictReader(lines)
        ]
    points = Points.of(rows).without_largest(5)
    law = fit(points, resamples=resamples)
    errors = law.law.constants(law.draws).std(0)
    print(f"\nChinchilla's form, {len(points)} trainings of Hoffmann et al.: objective {law.objective:.8f} (.00101827)")
    print("| constant | here | standard error | Besiroglu et al. | standard error | 95% interval |")
    print("| --- | --- | --- | --- | --- | --- |")
    for (name, value), error in zip(law.constants.items(), errors, strict=True):
        low, high = law.intervals[name]
        printed = BESIROGLU[name]
        print(f"| {name} | {value:.5g} | {error:.3g} | {printed[0]:g} | {printed[1]:g} | {low:.4g} to {high:.4g} |")
    print(f"logarithms {np.round(law.parameters, 8).tolist()}, spread {law.spread:.4f}, covariance")
    print(np.array2string(np.cov(law.draws.T), precision=8, suppress_small=True, separator=", "))
    kaplan = fit(points, Kaplan(), resamples=resamples)
    print(f"\nKaplan's form, the same trainings: objective {kaplan.objective:.8f}")
    print("| constant | here | Kaplan et al., on theirs | 95% interval |\n| --- | --- | --- | --- |")
    for (name, value), printed in zip(kaplan.constants.items(), KAPLAN, strict=True):
        low, high = kaplan.intervals[name]
        print(f"| {name} | {value:.4g} | {printed:g} | {low:.4g} to {high:.4g} |")
    return {"chinchilla": {**law.constants, "objective": law.objective}, "kaplan": kaplan.constants}


def gadre(path: Path) -> dict[str, float]:
    """Errors for large models of a law from five small ones: 11M to 411M at 20 tokens a parameter, 11M at 320."""
    with path.open() as lines:
        table = list(csv.DictReader(lines))
    print("\n| trained on | model | tokens a parameter | expected | came out | error, % | Gadre et al., % |")
    print("| --- | --- | --- | --- | --- | --- | --- |")
    found = {}
    for data, billions, ratio, printed in GADRE:
        rows = [row for row in table if row["dataset"] == data]
        points = [(float(row["params"]), float(row["tokens"]), float(row["loss_c4_val"])) for row in rows]
        of = {point: round(point[1] / point[0]) for point in points}
        small = [p for p in points if p[0] < 1e9 and (of[p] == 20 or (of[p] == 320 and p[0] < 2e7))]
        [large] = [p for p in points if of[p] == ratio and abs(p[0] / billions / 1e9 - 1) < 0.05]
        expected = fit_squares(Points.of(small), Chinchilla(tied=True)).loss(*large[:2])
        error = 100 * abs(expected / large[2] - 1)
        found[f"{data} {billions}B {ratio}"] = error
        print(f"| {data} | {billions}B | {ratio} | {expected:.4f} | {large[2]:.4f} | {error:.3f} | {printed:.2f} |")
    return found


def step_law(path: Path) -> dict[str, float]:
    """How much worse than the best of each grid of rates and batches the training is that is nearest to Step Law's."""
    grids: dict[tuple[str, str, str], list[tuple[float, float, float]]] = defaultdict(list)
    with gzip.open(path, "rt") as lines:
        for row in csv.DictReader(lines):
            loss = float(row["smooth loss"])
            if math.isfinite(loss):
                grids[row["N"], row["D"], row["moe_name"]].append((float(row["lr"]), float(row["bs"]) * 2048, loss))
    excess = []
    for (size, tokens, _), runs in grids.items():
        rate, batch = learning_rate(float(size), float(tokens)), batch_tokens(float(tokens))
        near = min(runs, key=lambda run: math.log(run[0] / rate) ** 2 + math.log(run[1] / batch) ** 2)
        excess.append(100 * (near[2] / min(run[2] for run in runs) - 1))
    middle, worst = float(np.median(excess)), max(excess)
    print(
        f"\nStep Law's rule on {len(grids)} grids of mixtures of experts, {sum(map(len, grids.values()))} trainings:"
        f" the nearest training's loss is {middle:.2f}% above the grid's best (median), {worst:.2f}% at most"
    )
    return {"grids": len(grids), "median_percent": middle, "worst_percent": worst}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hoffmann", type=Path, help="the points as CSV: Model Size, Training FLOP, loss")
    parser.add_argument("--resamples", type=int, default=400)
    arguments = parser.parse_args()
    samples = Path(os.environ.get("HEADWATER_SAMPLES", "../shared/samples")) / "scaling"
    found: dict[str, Any] = {"bench": "scaling"}
    if arguments.hoffmann:
        found["hoffmann"] = hoffmann(arguments.hoffmann, arguments.resamples)
    found["gadre"] = gadre(samples / "gadre-model-size-tokens-loss.csv")
    found["step_law"] = step_law(samples / "steplaw-moe_lr_bs_loss.csv.gz")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
