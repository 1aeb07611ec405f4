"""Plots: the same bytes for the same data, and words beside the picture."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from course.error import UsageError
from course.plot import Plot, bars, curves

_SVG = "{http://www.w3.org/2000/svg}"


def _bars(**more) -> Plot:
    return bars(
        ["a", "b <&>"],
        {"promised": [64, 2048], "held": [19.1, 21.6]},
        title="Memory",
        unit="MiB",
        summary='Held is less than promised, "much" less.',
        **more,
    )


def _curves() -> Plot:
    lines = {"one": [1, 4, 9.0], "two": [2, 3, 4.0]}
    return curves([1, 2, 3], lines, title="Cost", x_label="services", unit="€", summary="They cross.")


@pytest.mark.parametrize(
    "draw", [_bars, lambda: _bars(log=True, line=("guess", 100)), lambda: _bars(stacked=True), _curves]
)
def test_a_plot_is_the_same_bytes_each_time(draw):
    """Nothing random and no date is in the drawing."""
    assert draw().svg == draw().svg


@pytest.mark.parametrize("draw", [_bars, _curves])
def test_a_plot_is_valid_svg_with_a_title_and_a_description(draw):
    """The drawing parses as XML and names itself and what is to be seen."""
    plot = draw()
    root = ET.fromstring(plot.svg)
    assert root.tag == f"{_SVG}svg"
    assert root.attrib["role"] == "img"
    assert root.attrib["aria-label"] == plot.title
    assert root.findtext(f"{_SVG}title") == plot.title
    assert root.findtext(f"{_SVG}desc") == plot.summary


def test_values_are_written_on_the_bars():
    """Each bar's value can be read without the axis."""
    texts = " ".join(ET.fromstring(_bars().svg).itertext())
    for value in ("64", "2,048", "19.1", "21.6", "MiB", "promised", "held"):
        assert value in texts


def test_the_words_travel_with_the_drawing():
    """A console and a screen reader get the summary."""
    data, metadata = _bars()._repr_mimebundle_()
    assert data["text/plain"] == 'Memory. Held is less than promised, "much" less.'
    assert metadata["image/svg+xml"]["alt"] == data["text/plain"]


def test_a_series_of_the_wrong_length_is_named():
    """The message says which series and how many values were expected."""
    with pytest.raises(UsageError, match="series 'held' has 1 values for 2 groups"):
        bars(["a", "b"], {"held": [1]}, title="", unit="", summary="")


def test_long_names_of_groups_are_broken_into_lines():
    """Five names stand side by side without touching; where there is room, a name stays whole."""
    names = ["native", "qemu-x86_64", "Unicorn", "your translator", "your interpreter"]
    narrow = [*ET.fromstring(bars(names, {"a": [1] * 5}, title="", unit="", summary="").svg).itertext()]
    assert "your interpreter" not in narrow
    assert {"your", "translator", "interpreter", "qemu-x86_64"} <= {text.strip() for text in narrow}
    wide = bars(["your translator", "your interpreter"], {"a": [1, 2]}, title="", unit="", summary="").svg
    assert "your interpreter" in wide


def test_a_logarithmic_axis_writes_numbers_out():
    """A million is 1,000,000, not a power of ten; small numbers stay as they are."""
    svg = bars(["a", "b"], {"x": [0.2, 3_000_000]}, title="", unit="", summary="", log=True).svg
    texts = {text.strip() for text in ET.fromstring(svg).itertext()}
    assert {"1,000,000", "1", "0.1"} <= texts
    assert "1e+06" not in texts
