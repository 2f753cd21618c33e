"""A scaling law fitted to finished trainings, as Hoffmann et al. 2022 (appendix D.3) do: the Huber loss of ln L, summed
over the trainings, minimised by L-BFGS from a grid of starts; intervals by the bootstrap over trainings, as Besiroglu
et al. 2024 (arXiv 2404.10102).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import least_squares, minimize

from datalake.errors import UserError
from models.scaling.laws import Chinchilla, Law
from models.scaling.points import Floats, Points

DELTA = 1e-3  # of the Huber loss, in ln L: beyond it errors count by their size and no more by its square
FALL = 1e-6  # in ln L, which no training tells: a law whose losses differ by less over the sizes knows nothing of them
TRIED = 8  # of the starts, those with the least loss: the others lead to the same minimum or a worse one
ROUNDS = 100  # of the bootstrap's least squares: to 0.01 of a standard error (of Kaplan's form 0.05), measured
_LAST = {"maxiter": 5000, "maxfun": 20_000, "ftol": 1e-15, "gtol": 1e-9}
_TIGHT: dict[str, Any] = {"xtol": 1e-14, "ftol": 1e-14, "gtol": 1e-14, "max_nfev": 5000}


@dataclass(frozen=True)
class Fit:
    """A law with its constants. parameters: k, as the law works on them; draws: R others (R, k), as likely as these,
    from the bootstrap; spread: standard deviation of ln L of a single training around the law, robustly; objective: the
    sum that was minimised; sizes, budgets: the least and most parameters, and tokens, among the trainings."""

    law: Law
    parameters: Floats
    objective: float
    draws: Floats
    spread: float
    sizes: tuple[float, float]
    budgets: tuple[float, float]

    @property
    def constants(self) -> dict[str, float]:
        """As papers write them."""
        return dict(zip(self.law.names, self.law.constants(self.parameters[None])[0].tolist(), strict=True))

    @property
    def intervals(self) -> dict[str, tuple[float, float]]:
        """Of each constant the one that holds 95% of the draws."""
        low, high = np.quantile(self.law.constants(self.draws), [0.025, 0.975], axis=0)
        return dict(zip(self.law.names, zip(low.tolist(), high.tolist(), strict=True), strict=True))

    def loss(self, size: float, tokens: float) -> float:
        """Expected loss of a model of so many parameters on so many tokens."""
        return float(self.law.loss(self.parameters, tokens, size)[0])

    def interval(self, size: float, tokens: float) -> tuple[float, float]:
        """Where a training's loss will lie in 95 of 100 cases: the draws' losses, each with the spread around it."""
        losses = self.law.loss(self.draws, tokens, size)
        noise = np.random.Generator(np.random.Philox(0)).standard_normal((64, len(losses)))
        low, high = np.quantile(losses * np.exp(self.spread * noise), [0.025, 0.975])
        return float(low), float(high)


def fit(points: Points, law: Law | None = None, resamples: int = 400, seed: int = 0) -> Fit:
    """A law (Chinchilla's unless given) fitted to trainings, with its bootstrap.

    Raises UserError where they are too few for its constants, or their losses don't fall with more parameters or more
    tokens: a law then has constants, and all others would do as well.
    """
    law = law or Chinchilla()
    starts = np.array(list(law.starts(points)))
    needed = starts.shape[1] + 1
    if len(points) < needed:
        raise UserError(f"{len(points)} trainings are too few for {starts.shape[1]} constants: give {needed} at least")
    x, y, z = np.log(points.parameters), np.log(points.tokens), np.log(points.loss)
    once = np.ones((1, len(points)))

    def of_one(parameters: Floats) -> tuple[float, Floats]:
        losses, slopes = _huber(law, parameters[None], x, y, z, once)
        return losses[0] / DELTA, slopes[0] / DELTA

    n = len(points)
    weights = np.random.Generator(np.random.Philox(seed)).multinomial(n, np.full(n, 1 / n), size=resamples)
    with np.errstate(all="ignore"):  # a search may look where the law has no numbers
        best = np.argsort(_huber(law, starts, x, y, z, once)[0], kind="stable")[:TRIED]
        ended = [minimize(of_one, starts[place], jac=True, method="L-BFGS-B", options=_LAST) for place in best]
        least = min(ended, key=lambda one: float(np.nan_to_num(one.fun, nan=np.inf)))
        _falls(law, least.x, x, y)
        draws = _redrawn(law, least.x, x, y, z, weights.astype(np.float64))
    errors = np.sort(np.abs(law.log_loss(least.x[None], x, y)[0][0] - z))
    spread = float(1.4826 * np.median(errors[len(least.x) :]))  # such a fit passes through as many as it has constants
    return Fit(law, least.x, float(least.fun) * DELTA, draws, spread, *_reach(points))


def _falls(law: Law, parameters: Floats, x: Floats, y: Floats) -> None:
    """Raises UserError where a law's losses are the same for the least and the most parameters, or tokens."""
    for what, values, ends in (
        ("parameters", x, [(np.full_like(y, end), y) for end in (x.min(), x.max())]),
        ("tokens", y, [(x, np.full_like(x, end)) for end in (y.min(), y.max())]),
    ):
        first, last = (law.log_loss(parameters[None], *end)[0] for end in ends)
        if not np.max(first - last) > FALL:
            raise UserError(
                f"the losses don't fall with more {what}, from {np.exp(values.min()):.3g} to"
                f" {np.exp(values.max()):.3g}: no law can be told from these trainings; train longer, or further apart"
            )


def fit_squares(points: Points, law: Law) -> Fit:
    """A law by least squares of L itself, as Gadre et al. 2024 fit theirs to a handful of trainings; without draws."""
    x, y = np.log(points.parameters), np.log(points.tokens)

    def errors(parameters: Floats) -> Floats:
        return np.exp(law.log_loss(parameters[None], x, y)[0][0]) - points.loss

    ended = [least_squares(errors, start, **_TIGHT) for start in law.starts(points)]
    least = min(ended, key=lambda one: float(one.cost))
    return Fit(law, least.x, 2 * float(least.cost), least.x[None], 0.0, *_reach(points))


def _reach(points: Points) -> tuple[tuple[float, float], tuple[float, float]]:
    """The least and most parameters, and tokens."""
    least, most = ((float(end(points.parameters)), float(end(points.tokens))) for end in (np.min, np.max))
    return (least[0], most[0]), (least[1], most[1])


def _huber(law: Law, parameters: Floats, x: Floats, y: Floats, z: Floats, weights: Floats) -> tuple[Floats, Floats]:
    """The Huber losses (R) of R fits, each over the points with weights (R, n), and their slopes (R, k)."""
    predicted, slopes = law.log_loss(parameters, x, y)
    error = predicted - z
    far = np.abs(error)
    losses = (weights * np.where(far <= DELTA, error * error / 2, DELTA * (far - DELTA / 2))).sum(1)
    pull = weights * np.clip(error, -DELTA, DELTA)
    return losses, np.stack([(pull * slope).sum(1) for slope in slopes], 1)


def _redrawn(law: Law, fitted: Floats, x: Floats, y: Floats, z: Floats, weights: Floats) -> Floats:
    """Fits (R, k) to the points as often as `weights` (R, n) say, by least squares that are weighed anew in each round
    (Huber 1964, Ann. Math. Statist. 35:73-101): all at once, and close to their minima, where L-BFGS takes each fit by
    itself to its own. A step has a length that the law's curves bear; what the points say nothing of stays."""
    drawn: Floats = np.tile(fitted, (len(weights), 1))
    ridge = np.eye(len(fitted))
    for _ in range(ROUNDS):
        predicted, slopes = law.log_loss(drawn, x, y)
        error, slope = predicted - z, np.stack(slopes, 1)
        pull = slope * (weights * np.minimum(1.0, DELTA / np.maximum(np.abs(error), 1e-12)))[:, None]
        curved = pull @ slope.transpose(0, 2, 1)
        curved += ridge * np.trace(curved, axis1=1, axis2=2)[:, None, None] * 1e-11
        drawn = drawn - np.clip(np.linalg.solve(curved, pull @ error[..., None])[..., 0], -0.5, 0.5)
    return drawn
