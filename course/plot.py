"""Plots for lessons: SVG that is the same bytes for the same data, with alternative text and a summary in words.

A plot shows nothing by colour alone (series differ by hatch or marker too), and the sentence under it says what is to
be seen: it is what a screen reader reads and what a console shows.
"""

from __future__ import annotations

import html
import io
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from .error import UsageError

# Contrast of at least 4.5:1 on white, told apart in grey too (Okabe and Ito's palette, darkened).
_COLOURS = ("#00568c", "#a8480c", "#3f6b2b", "#7a3566", "#4d4d4d", "#7a5c00")
_HATCHES = ("", "//", "..", "xx", "--", "oo")
_AXIS_LETTERS = 70
"""How many letters fit below the axis, side by side."""
_LINES = (("-", "o"), ("--", "s"), (":", "^"), ("-.", "D"))
_STYLE: Any = {
    "svg.hashsalt": "course",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


class Plot:
    """A finished plot.

    Args:
        svg: the drawing.
        title: a few words.
        summary: one or two sentences that say what is to be seen.
    """

    def __init__(self, svg: str, title: str, summary: str) -> None:
        self.svg = svg
        self.title = title
        self.summary = summary

    def __repr__(self) -> str:
        return f"{self.title}. {self.summary}"

    def _repr_mimebundle_(self, **_: Any) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
        """The drawing, the summary as its alternative text, and both as plain text."""
        return {"image/svg+xml": self.svg, "text/plain": repr(self)}, {"image/svg+xml": {"alt": repr(self)}}

    def _ipython_display_(self) -> None:
        """Show the drawing, then its summary as a visible line."""
        from IPython.display import Markdown, display  # noqa: PLC0415 - only notebooks need it

        data, metadata = self._repr_mimebundle_()
        display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]
        display(Markdown(f"*In words: {self.summary}*"))  # type: ignore[no-untyped-call]


def bars(
    groups: Sequence[str],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    unit: str,
    summary: str,
    log: bool = False,
    line: tuple[str, float] | None = None,
    stacked: bool = False,
) -> Plot:
    """Draw groups of bars, each with its value above it.

    Args:
        groups: names under the groups.
        series: name of a series → one value per group.
        title: of the plot.
        unit: of the values, shown on the axis.
        summary: what is to be seen, in words.
        log: logarithmic axis.
        line: name and height of a horizontal line, such as a limit or the student's prediction.
        stacked: one bar per group, the series on top of each other (no values written).

    Raises:
        UsageError: when a series has not one value per group.
    """
    for name, values in series.items():
        if len(values) != len(groups):
            raise UsageError(f"series {name!r} has {len(values)} values for {len(groups)} groups; expected as many")
    figure, axes = _canvas()
    width = 0.8 if stacked else 0.8 / len(series)
    base = [0.0] * len(groups)
    for i, (name, values) in enumerate(series.items()):
        shift = 0.0 if stacked else (i - (len(series) - 1) / 2) * width
        drawn = axes.bar(
            [n + shift for n in range(len(groups))],
            values,
            width,
            bottom=base if stacked else None,
            label=name,
            color=_COLOURS[i % len(_COLOURS)],
            hatch=_HATCHES[i % len(_HATCHES)],
            edgecolor="white",
        )
        if stacked:
            _name_segments(axes, drawn, name, max(map(sum, zip(*series.values(), strict=True))))
            base = [b + v for b, v in zip(base, values, strict=True)]
        else:
            axes.bar_label(drawn, labels=[f"{v:.3g}" if v < 1000 else f"{v:,.0f}" for v in values], padding=2)
    if line is not None:
        axes.axhline(line[1], linestyle="--", color="black", linewidth=1.2, label=f"{line[0]}: {line[1]:g}")
    axes.set_xticks(range(len(groups)), _wrapped(groups))
    if log:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:,.10g}")
        _label_between_decades(axes)
    axes.margins(y=0.12)
    return _finish(figure, axes, title, unit, summary)


def _wrapped(groups: Sequence[str]) -> list[str]:
    """Break names into lines where there are too many, or too long ones, to stand side by side."""
    room = max(8, _AXIS_LETTERS // max(1, len(groups)))
    return [textwrap.fill(name, room, break_long_words=False) for name in groups]


def _label_between_decades(axes: Any) -> None:
    """Write 2 and 5 between the powers of ten where there are few of these, and nothing where there are many."""
    from matplotlib.ticker import LogLocator, NullFormatter  # noqa: PLC0415

    low, high = axes.get_ylim()
    if high > 100 * low:
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_minor_locator(LogLocator(subs=(2, 5)))
        axes.yaxis.set_minor_formatter("{x:,.10g}")


def _name_segments(axes: Any, drawn: Any, name: str, tallest: float) -> None:
    """Write the series' name into each segment that is high enough to hold it."""
    for segment in drawn:
        if segment.get_height() > 0.07 * tallest:
            centre = (segment.get_x() + segment.get_width() / 2, segment.get_y() + segment.get_height() / 2)
            box = {"facecolor": "white", "edgecolor": "none", "pad": 1.5}
            axes.text(*centre, name, ha="center", va="center", fontsize=10, bbox=box)


def curves(
    xs: Sequence[float],
    series: Mapping[str, Sequence[float]],
    *,
    title: str,
    x_label: str,
    unit: str,
    summary: str,
) -> Plot:
    """Draw one curve per series over `xs`; arguments as for `bars`."""
    figure, axes = _canvas()
    for i, (name, values) in enumerate(series.items()):
        style, marker = _LINES[i % len(_LINES)]
        colour = _COLOURS[i % len(_COLOURS)]
        every = max(1, len(xs) // 10)
        axes.plot(xs, values, style, marker=marker, markevery=every, color=colour, label=name)
    axes.set_xlabel(x_label)
    axes.set_ylim(bottom=0)
    return _finish(figure, axes, title, unit, summary)


def _canvas() -> tuple[Any, Any]:
    """A figure without pyplot: no global state, no window, nothing to close."""
    import matplotlib as mpl  # noqa: PLC0415 - half a second, only for plots
    from matplotlib.figure import Figure  # noqa: PLC0415

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(8, 3.6), layout="constrained")
        return figure, figure.subplots()


def _finish(figure: Any, axes: Any, title: str, unit: str, summary: str) -> Plot:
    import matplotlib as mpl  # noqa: PLC0415

    axes.set_title(title, loc="left", fontweight="bold")
    axes.set_ylabel(unit)
    axes.legend(frameon=False, fontsize=10, loc="upper left", bbox_to_anchor=(1, 1))
    out = io.StringIO()
    with mpl.rc_context(_STYLE):
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})
    return Plot(_accessible(out.getvalue(), title, summary), title, summary)


def _accessible(svg: str, title: str, summary: str) -> str:
    """Give the drawing a title and a description, and drop the XML prologue."""
    named = f"<title>{html.escape(title)}</title><desc>{html.escape(summary)}</desc>"
    svg = re.sub(r" <metadata>.*?</metadata>\n", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    return re.sub(r"(<svg\b[^>]*)>", rf'\1 role="img" aria-label="{html.escape(title)}">{named}', svg, count=1)
