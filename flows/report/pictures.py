"""Small pictures for the report, as SVG texts drawn by hand: no library, the same bytes for the same numbers."""

from __future__ import annotations

from html import escape

from datalake.curate.histograms import Histogram

_WIDTH, _HALF, _FOOT = 240, 34, 14
_KEPT, _REJECTED, _LINE, _SOFT = "#2b6ca3", "#b8692e", "#1d2530", "#5d6b7a"


def histogram_svg(one: Histogram) -> str:
    """Kept documents upwards, rejected ones downwards, each to its own fullest bin; a dashed line at each threshold."""
    step = _WIDTH / len(one.kept)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {2 * _HALF + _FOOT}"'
        f' width="{_WIDTH}" height="{2 * _HALF + _FOOT}" font-family="sans-serif" font-size="9">'
    ]
    for counts, colour, up in ((one.kept, _KEPT, True), (one.rejected, _REJECTED, False)):
        most = max(counts, default=0) or 1
        for k, count in enumerate(counts):
            if count:
                height = max(1.0, (_HALF - 2) * count / most)  # what is there can be seen
                top = _HALF - height if up else _HALF
                parts.append(
                    f'<rect x="{k * step + 0.5:.1f}" y="{top:.1f}" width="{step - 1:.1f}" height="{height:.1f}"'
                    f' fill="{colour}"/>'
                )
    parts.append(f'<path d="M0 {_HALF}H{_WIDTH}" stroke="{_SOFT}" stroke-width="0.5"/>')
    for rule in one.rules:
        at = one.place(rule.threshold) * _WIDTH
        at = min(max(at, 0.75), _WIDTH - 0.75)
        parts.append(
            f'<path d="M{at:.1f} 0V{2 * _HALF}" stroke="{_LINE}" stroke-width="1.5" stroke-dasharray="3 2">'
            f"<title>{escape(str(rule))}</title></path>"
        )
    foot = 2 * _HALF + _FOOT - 3
    parts.append(f'<text x="0" y="{foot}" fill="{_SOFT}">{one.edges[0]:.4g}</text>')
    parts.append(f'<text x="{_WIDTH}" y="{foot}" fill="{_SOFT}" text-anchor="end">{one.edges[-1]:.4g}</text>')
    return "".join(parts) + "</svg>"
