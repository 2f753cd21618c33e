"""Pictures of what a stage did, as SVG texts, for the Prefect UI and for reports. Imports no Prefect."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from textwrap import fill
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Which metrics of a stage are drawn together: title, names; a name that ends in * is for all that begin so and aren't
# drawn before.
CURVES = {
    "loss": ("loss", "heldout_loss"),
    "score": ("score", "heldout_score"),
    "rewards of pairs' answers, and their margin": ("reward_chosen", "reward_rejected", "margin"),
    "reward and its parts": ("reward", "reward_*"),
    "held-out score by other reward models": ("heldout_other_*",),
    "KL to the reference (nats per token)": ("kl_per_token",),
    "KL to the reference (nats per answer)": ("kl_per_answer",),
    "entropy (nats per token)": ("entropy",),
    "ratio": ("ratio",),
    "clip share": ("clip_fraction",),
    "explained variance": ("explained_variance",),
    "answers that end": ("eos_rate",),
    "groups without variance": ("zero_variance",),
    "tokens of an answer": ("answer_tokens", "answer_tokens_std"),
    "score-length correlation": ("length_correlation",),
    "largest gap of sampling and training (nats)": ("logprob_gap",),
    "accuracy": ("accuracy", "heldout_accuracy"),
    "value loss": ("value_loss",),
}


class Drawn(NamedTuple):
    """A picture of some metrics."""

    title: str
    svg: str
    names: tuple[str, ...]


@contextmanager
def _figure(height: float = 3.2) -> Iterator[tuple[Axes, list[str]]]:
    """Axes to draw on; the SVG text is the list's one entry afterwards."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    # The text stays text, and the salt makes the picture the same bytes for the same points.
    style = {"svg.hashsalt": "headwater", "svg.fonttype": "none", "font.family": ["sans-serif"], "font.size": 10}
    svg: list[str] = []
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(7, height))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        yield axes, svg
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        figure.tight_layout()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    svg.append(buffer.getvalue())


def curve_svg(
    points: Sequence[Sequence[Any]],
    ylabel: str,
    xlabel: str = "step",
    marks: Sequence[tuple[float, float]] = (),
) -> str:
    """A line chart as an SVG text: one line per (label, steps, values), or (label, steps, values, low, high) with
    intervals; dots where points are few; stretches of steps are marked."""
    from matplotlib.ticker import MaxNLocator

    with _figure() as (axes, svg):
        for first, last in marks:
            axes.axvspan(first, last, color="#d98b2b", alpha=0.18, linewidth=0)
        for label, steps, values, *ends in points:
            (line,) = axes.plot(steps, values, label=label, linewidth=1.6, markersize=3)
            line.set_marker("o" if len(steps) <= 30 else "")
            if ends:
                axes.errorbar(steps, values, _sides(values, *ends), fmt="none", ecolor=line.get_color(), capsize=2)
        axes.set_xlabel(xlabel)
        if xlabel == "step":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(fill(ylabel, 30))
        if len(points) > 1 or points[0][0] != ylabel:
            axes.legend(frameon=False)
    return svg[0]


def bar_svg(
    labels: Sequence[str],
    values: Sequence[float],
    low: Sequence[float] | None = None,
    high: Sequence[float] | None = None,
    chance: float | None = None,
) -> str:
    """A bar for each label, from above, with its interval where there is one, and a line at what luck alone gives."""
    with _figure(max(1.4, 0.6 + 0.34 * len(labels))) as (axes, svg):
        places = range(len(labels))
        ends = None if low is None or high is None else _sides(values, low, high)
        axes.barh(places, values, xerr=ends, height=0.7, color="#2b6ca3", error_kw={"ecolor": "#1d2530", "capsize": 3})
        if chance is not None:
            axes.axvline(chance, color="#1d2530", linewidth=1, linestyle="--")
        axes.set_yticks(places, labels)
        axes.invert_yaxis()
    return svg[0]


def _sides(values: Sequence[float], low: Sequence[float], high: Sequence[float]) -> list[list[float]]:
    """How far the ends of intervals lie below and above their values."""
    both = list(zip(values, low, high, strict=True))
    return [[max(value - end, 0.0) for value, end, _ in both], [max(end - value, 0.0) for value, _, end in both]]


def bands_svg(points: Sequence[tuple[float, float]], threshold: float | None = None) -> str:
    """The S-curve of deduplication's bands, (similarity, probability of being compared), with its threshold."""
    lines = [("probability of being compared", [x for x, _ in points], [y for _, y in points])]
    if threshold is not None:
        lines.append((f"threshold {threshold:g}", [threshold, threshold], [0.0, 1.0]))
    return curve_svg(lines, "probability", "Jaccard similarity of word n-grams")


def svg_uri(svg: str) -> str:
    """The picture as a `data:` address."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def svg_image(svg: str, title: str) -> str:
    """A picture in markdown that both Prefect UIs draw."""
    return f"![{title}]({svg_uri(svg)})"


def curves(
    metrics: Sequence[Mapping[str, Any]], marks: Mapping[str, Sequence[tuple[float, float]]] | None = None
) -> list[Drawn]:
    """A picture for each group of curves the metric rows (step, name, value) have; `marks` are stretches of steps to
    look at, by metric."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for row in metrics:
        steps, values = series.setdefault(row["name"], ([], []))
        steps.append(row["step"])
        values.append(row["value"])
    drawn: list[Drawn] = []
    done: set[str] = set()
    for title, patterns in CURVES.items():
        names = [name for pattern in patterns for name in series if _is(name, pattern) and name not in done]
        done.update(names)
        if names:
            stretches = [stretch for name in names for stretch in (marks or {}).get(name, ())]
            svg = curve_svg([(name, *series[name]) for name in names], title, marks=stretches)
            drawn.append(Drawn(title, svg, tuple(names)))
    return drawn


def _is(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern
