"""Pictures of what a stage did, as SVG texts, for the Prefect UI and for reports. Imports no Prefect."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

# Which metrics of a stage are drawn together: title, names.
CURVES = {
    "loss": ("loss", "heldout_loss"),
    "score by the reward model": ("score",),
    "KL to the reference (nats per token)": ("kl_per_token",),
    "KL to the reference (nats per answer)": ("kl_per_answer",),
    "accuracy": ("accuracy", "heldout_accuracy"),
    "value loss": ("value_loss",),
}


def curve_svg(points: Sequence[tuple[str, Sequence[float], Sequence[float]]], ylabel: str, xlabel: str = "step") -> str:
    """A line chart as an SVG text: one line per (label, steps, values), with dots where points are few."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    # The text stays text, and the salt makes the picture the same bytes for the same points.
    style = {"svg.hashsalt": "headwater", "svg.fonttype": "none", "font.family": ["sans-serif"], "font.size": 10}
    with matplotlib.rc_context(style):  # type: ignore[arg-type]
        figure = Figure(figsize=(7, 3.2))
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for label, steps, values in points:
            axes.plot(steps, values, label=label, linewidth=1.6, marker="o" if len(steps) <= 30 else None, markersize=3)
        axes.set_xlabel(xlabel)
        if xlabel == "step":
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylabel(ylabel)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if len(points) > 1 or points[0][0] != ylabel:
            axes.legend(frameon=False)
        figure.tight_layout()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    return buffer.getvalue()


def bands_svg(points: Sequence[tuple[float, float]], threshold: float | None = None) -> str:
    """The S-curve of deduplication's bands, (similarity, probability of being compared), with its threshold."""
    lines: list[tuple[str, Sequence[float], Sequence[float]]] = [
        ("probability of being compared", [x for x, _ in points], [y for _, y in points])
    ]
    if threshold is not None:
        lines.append((f"threshold {threshold:g}", [threshold, threshold], [0.0, 1.0]))
    return curve_svg(lines, "probability", "Jaccard similarity of word n-grams")


def svg_uri(svg: str) -> str:
    """The picture as a `data:` address."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"


def svg_image(svg: str, title: str) -> str:
    """A picture in markdown that both Prefect UIs draw."""
    return f"![{title}]({svg_uri(svg)})"


def curves(metrics: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """(title, SVG) for each group of curves the metric rows (step, name, value) have."""
    series: dict[str, tuple[list[float], list[float]]] = {}
    for row in metrics:
        steps, values = series.setdefault(row["name"], ([], []))
        steps.append(row["step"])
        values.append(row["value"])
    drawn = []
    for title, names in CURVES.items():
        points = [(name, *series[name]) for name in names if name in series]
        if points:
            drawn.append((title, curve_svg(points, title)))
    return drawn
