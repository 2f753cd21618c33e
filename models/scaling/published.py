"""What is published about scaling: constants with their source, for plans where there are no trainings of one's own."""

from __future__ import annotations

import math

import numpy as np

from models.scaling.fit import Fit
from models.scaling.laws import Chinchilla

# Hoffmann et al. 2022 as they print it (E, A, B, alpha, beta), and Kaplan et al. 2020 (N_c, D_c, alpha_N, alpha_D).
HOFFMANN = (1.69, 406.4, 410.7, 0.34, 0.28)
KAPLAN = (8.8e13, 5.4e13, 0.076, 0.095)

# Our own fit to the points of Hoffmann et al.'s figure 4 as Besiroglu et al. 2024 (arXiv 2404.10102) read them, without
# the five largest losses; for these they print 1.82, 482.0, 2085, .3478, .3658. `benchmarks/scaling.py` shows
# it: logarithms of the constants, their covariance over 400 bootstraps, the spread of single trainings.
_LOGARITHMS = (0.59730681, 6.16924636, 7.67015675, -1.05753609, -1.00192369)
_COVARIANCE = (
    (0.00020667, 0.00211074, 0.00403125, 0.00036092, 0.00052113),
    (0.00211074, 0.05980479, -0.02023718, 0.01037766, -0.00273698),
    (0.00403125, -0.02023718, 0.18933448, -0.00381833, 0.02445456),
    (0.00036092, 0.01037766, -0.00381833, 0.00180502, -0.00051614),
    (0.00052113, -0.00273698, 0.02445456, -0.00051614, 0.00317039),
)
_OBJECTIVE, _SPREAD = 0.00101827, 0.0049
_SIZES, _TOKENS = (5.7e7, 1.6e10), (8.2e8, 3.2e11)

FASTEST = 0.02  # the highest rate: Step Law was found from 60M parameters on, and is too bold for the smallest
REPEATED = 15.39  # Muennighoff et al. 2023 (arXiv 2305.16264), R*_D: beyond so many repetitions a token is worth little


def chinchilla() -> Fit:
    """Chinchilla's law, with draws from the covariance of its constants."""
    draw = np.random.Generator(np.random.Philox(0))
    draws = draw.multivariate_normal(_LOGARITHMS, _COVARIANCE, size=400, method="cholesky")
    return Fit(Chinchilla(), np.array(_LOGARITHMS), _OBJECTIVE, draws, _SPREAD, _SIZES, _TOKENS)


def worth(tokens: float, distinct: float) -> float:
    """New tokens that so many are worth where only `distinct` of them differ (Muennighoff et al. 2023, equation 5)."""
    if tokens <= distinct:
        return tokens
    return distinct * (1 + REPEATED * (1 - math.exp((1 - tokens / distinct) / REPEATED)))


def batch_tokens(tokens: float) -> float:
    """The best batch in tokens for a training on so many (Step Law, Li et al. 2025, arXiv 2503.04715)."""
    return float(0.58 * tokens**0.571)


def learning_rate(parameters: float, tokens: float) -> float:
    """The best peak rate of AdamW (the same), `FASTEST` at most. Its parameters are those without the embedding; a plan
    has all of them, which for models of a few million makes its rate the lower one."""
    return min(float(1.79 * parameters**-0.713 * tokens**0.307), FASTEST)
