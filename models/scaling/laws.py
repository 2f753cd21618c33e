"""How loss falls with parameters N and tokens D: forms of the law, each with the slopes that a fit needs.

A form works on logarithms: of x = ln N and y = ln D (n) and the parameters of R fits (R, k), logarithms as well so that
no constant can fall below 0, it gives ln L and its slopes by each parameter, all (R, n). `constants` are the same as
papers write them.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import ClassVar

import numpy as np
from scipy.optimize import nnls

from models.scaling.points import Floats, Points

LARGEST = 700.0  # beyond, exp is no number


class Law(ABC):
    """A form of the law. `names`: of its constants."""

    names: ClassVar[tuple[str, ...]]

    @abstractmethod
    def log_loss(self, parameters: Floats, x: Floats, y: Floats) -> tuple[Floats, list[Floats]]:
        """ln L (R, n) and its slope (R, n) by each of the parameters (R, k)."""

    @abstractmethod
    def starts(self, points: Points) -> Iterator[list[float]]:
        """Parameters to begin a fit at: a grid over the exponents, the others so that they suit the points."""

    @abstractmethod
    def constants(self, parameters: Floats) -> Floats:
        """(R, k) as papers write them, in the order of `names`."""

    def loss(self, parameters: Floats, tokens: float, size: float) -> Floats:
        """L (R) of one model of `size` parameters on so many tokens."""
        x, y = np.array([math.log(size)]), np.array([math.log(tokens)])
        loss: Floats = np.exp(self.log_loss(np.atleast_2d(parameters), x, y)[0][:, 0])
        return loss


def _terms(*logs: Floats) -> tuple[Floats, list[Floats]]:
    """The logarithm of a sum whose terms are given by theirs, and each term's share of it."""
    largest = logs[0]
    for one in logs[1:]:
        largest = np.maximum(largest, one)
    parts = [np.exp(np.minimum(one - largest, 0.0)) for one in logs]
    whole = sum(parts[1:], parts[0])
    return largest + np.log(whole), [part / whole for part in parts]


@dataclass(frozen=True)
class Chinchilla(Law):
    """L = E + A / N^alpha + B / D^beta (Hoffmann et al. 2022, equation 10; arXiv 2203.15556).

    tied: one exponent for both, alpha = beta (Gadre et al. 2024, equation 4, in N and D instead of compute and tokens
    a parameter; arXiv 2403.08540).
    """

    tied: bool = False
    names = ("E", "A", "B", "alpha", "beta")

    def log_loss(self, parameters: Floats, x: Floats, y: Floats) -> tuple[Floats, list[Floats]]:
        """Parameters are the logarithms of E, A, B, alpha and, unless tied, beta."""
        e, a, b = (column[:, None] for column in parameters[:, :3].T)
        alpha, beta = np.exp(parameters[:, 3, None]), np.exp(parameters[:, -1, None])
        total, (floor, by_size, by_data) = _terms(e + 0 * x, a - alpha * x, b - beta * y)
        slopes = [-alpha * x * by_size, -beta * y * by_data]
        return total, [floor, by_size, by_data, *([slopes[0] + slopes[1]] if self.tied else slopes)]

    def starts(self, points: Points) -> Iterator[list[float]]:
        """E, A and B by least squares of the relative errors, none below 0."""
        grid = (0.1, 0.2, 0.3, 0.4, 0.6, 0.9, 1.3)
        for alpha, beta in ((one, one) for one in grid) if self.tied else product(grid, grid):
            columns = np.stack([np.ones(len(points)), points.parameters**-alpha, points.tokens**-beta], 1)
            scale = columns.max(0)
            found, _ = nnls(columns / scale / points.loss[:, None], np.ones(len(points)))
            first = np.log(np.maximum(found, 1e-6) / scale)
            yield [*first.tolist(), math.log(alpha), *([] if self.tied else [math.log(beta)])]

    def constants(self, parameters: Floats) -> Floats:
        """The logarithms' powers; of tied exponents the one is the other."""
        values: Floats = np.exp(np.minimum(parameters, LARGEST))
        return np.concatenate([values, values[:, 3:]], 1) if self.tied else values

    def best_size(self, parameters: Floats, flops: float) -> float:
        """N of the least loss that 6 N D = `flops` reaches (the same paper, equation 4)."""
        _, a, b, *_ = parameters
        alpha, beta = math.exp(parameters[3]), math.exp(parameters[-1])
        logarithm = (math.log(alpha / beta) + a - b + beta * math.log(flops / 6)) / (alpha + beta)
        return math.exp(min(logarithm, LARGEST))


@dataclass(frozen=True)
class Kaplan(Law):
    """L = ((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D (Kaplan et al. 2020, equation 1.5; arXiv 2001.08361)."""

    names = ("N_c", "D_c", "alpha_N", "alpha_D")

    def log_loss(self, parameters: Floats, x: Floats, y: Floats) -> tuple[Floats, list[Floats]]:
        """Parameters are alpha_N ln N_c, alpha_D ln D_c, ln alpha_N and ln alpha_D."""
        a, b = (column[:, None] for column in parameters[:, :2].T)
        alpha, beta = np.exp(parameters[:, 2, None]), np.exp(parameters[:, 3, None])
        by_size, by_data = a - alpha * x, b - beta * y
        total, (size, data) = _terms(by_size / beta, by_data / beta)
        by_beta = beta * (total - y * data) - size * by_size - data * by_data
        return beta * total, [size, data, -alpha * x * size, by_beta]

    def starts(self, points: Points) -> Iterator[list[float]]:
        """Both terms alike at the middle of the points."""
        x, y, z = (float(np.log(values).mean()) for values in (points.parameters, points.tokens, points.loss))
        for alpha, beta in product((0.02, 0.05, 0.1, 0.2, 0.4), repeat=2):
            half = z - beta * math.log(2)
            yield [half + alpha * x, half + beta * y, math.log(alpha), math.log(beta)]

    def constants(self, parameters: Floats) -> Floats:
        """Of N_c and D_c the logarithms were weighed by their exponents."""
        a, b = parameters[:, 0], parameters[:, 1]
        alpha, beta = np.exp(parameters[:, 2]), np.exp(parameters[:, 3])
        return np.stack([np.exp(np.minimum(a / alpha, LARGEST)), np.exp(np.minimum(b / beta, LARGEST)), alpha, beta], 1)
