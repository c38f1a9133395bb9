"""Charts as this page draws them: in its colours, with titles of axes, as wide as what they stand in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

ALONE = "#8b93a1"
COLOURS = ("#b8562f", "#2f7f86", "#c1962c", "#7d5a8c", "#5f7f3a", "#a63d57")  # copper, as stills are, and others
BLANK = "#f3efe9"  # of squares that say nothing; the page replaces it in the dark
DIVERGING = ["#2f7f86", BLANK, "#b8562f"]
HEIGHT = 240
FEW = 4  # steps up to which points are drawn: a line of one step is not seen

Rows = list[dict[str, Any]]


def colour_of(place: int, *, has_baseline: bool) -> str:
    """The colour of a way to train: grey for the student alone, which comes first."""
    if has_baseline and place == 0:
        return ALONE
    return COLOURS[(place - has_baseline) % len(COLOURS)]


def coloured(ways: Sequence[str], has_baseline: bool) -> list[tuple[str, str]]:
    return [(way, colour_of(place, has_baseline=has_baseline)) for place, way in enumerate(ways)]


def lines(rows: Rows, colours: list[tuple[str, str]], y: str, *, form: str = "", rule: float | None = None) -> Any:
    """Values over steps: each seed thin, their mean thick in its 95 % interval.

    Args:
        rows: ``step``, ``value``, ``way``, ``line`` (one thin line each); ``mean``, ``low`` and ``high`` in rows that
            are of a mean.
        colours: Of the ways.
        y: Title of the axis.
        form: Of its numbers, as d3 writes it.
        rule: Where a dashed line is drawn across.
    """
    names, shades = zip(*colours, strict=True)
    colour = alt.Color("way:N", scale=alt.Scale(domain=list(names), range=list(shades)), legend=None)
    axis = alt.Axis(format=form) if form else alt.Axis()
    x = alt.X("step:Q", title="optimizer step", axis=alt.Axis(format="~s", tickCount=6))
    scale = alt.Scale(domain=around([row["value"] for row in rows if "value" in row], rule), nice=True)
    base = of(rows).encode(x=x, color=colour)
    tooltip = [alt.Tooltip("way:N"), alt.Tooltip("line:N", title="run"), alt.Tooltip("step:Q", format=",")]
    points = len({row["step"] for row in rows}) < FEW
    single = base.transform_filter("isValid(datum.value)")
    single = single.mark_line(strokeWidth=1, opacity=0.55, clip=True, point={"size": 36} if points else False)
    band = base.transform_filter("isValid(datum.low)").mark_area(opacity=0.16, clip=True)
    thick = base.transform_filter("isValid(datum.mean)").mark_line(strokeWidth=2.6, clip=True)
    layers = [
        single.encode(
            y=alt.Y("value:Q", title=y, axis=axis, scale=scale),
            detail="line:N",
            tooltip=[*tooltip, alt.Tooltip("value:Q", title=y, format=form or ".4g")],
        ),
    ]
    if any("mean" in row for row in rows):  # a layer of nothing is a warning on the console
        layers.append(thick.encode(y=alt.Y("mean:Q", title=y, axis=axis, scale=scale), detail="line:N"))
    if any("low" in row for row in rows):
        layers.insert(0, band.encode(y=alt.Y("low:Q", title=y, axis=axis, scale=scale), y2="high:Q"))
    if rule is not None:
        at = of([{"value": rule}]).encode(y=alt.Y("value:Q"))
        layers.append(at.mark_rule(strokeDash=[5, 4], color=ALONE, strokeWidth=1.5))
    return sized(alt.layer(*layers))


def gains(rows: Rows, colour: str, x: str) -> Any:
    """Differences by class with their intervals: ``name``, ``gain``, ``low``, ``high``."""
    order = [row["name"] for row in rows]
    y = alt.Y("name:N", sort=order, title=None, axis=alt.Axis(labelLimit=130, grid=False, ticks=False, domain=False))
    base = of(rows).encode(y=y)
    tooltip = [alt.Tooltip("name:N", title="class"), alt.Tooltip("gain:Q", format="+.2f", title=x)]
    zero = of([{"zero": 0}]).mark_rule(color=ALONE).encode(x="zero:Q")
    spans = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=2, color=colour, opacity=0.45)
    points = base.mark_circle(size=70, color=colour, opacity=1).encode(
        x=alt.X("gain:Q", title=x, axis=alt.Axis(tickCount=5)), tooltip=tooltip
    )
    spans = spans.encode(x=alt.X("low:Q", title=x, axis=alt.Axis(tickCount=5)), x2="high:Q")
    layers = [zero, spans, points] if any("low" in row for row in rows) else [zero, points]
    return sized(alt.layer(*layers), height=max(60, 22 * len(rows)))


def heatmap(
    rows: Rows, columns: Sequence[str], lines_: Sequence[str], titles: tuple[str, str, str], **style: Any
) -> Any:
    """Squares coloured by ``value``, at ``column`` and ``line``.

    Args:
        titles: Of the columns, of the lines, and of the value.
        style: ``form`` of the numbers, and ``scale`` of the colours.
    """
    x = alt.X("column:N", sort=list(columns), title=titles[0], axis=alt.Axis(labelAngle=-45, labelLimit=90, grid=False))
    y = alt.Y("line:N", sort=list(lines_), title=titles[1], axis=alt.Axis(labelLimit=90, grid=False))
    tooltip = [
        alt.Tooltip("line:N", title=titles[1]),
        alt.Tooltip("column:N", title=titles[0]),
        alt.Tooltip("value:Q", title=titles[2], format=style["form"]),
    ]
    legend = alt.Legend(title=titles[2], orient="top", gradientLength=140, gradientThickness=8, format=style["form"])
    base = of(rows).encode(x=x, y=y, tooltip=tooltip)
    cells = base.mark_rect(cornerRadius=2).encode(color=alt.Color("value:Q", scale=style["scale"], legend=legend))
    return sized(cells, height=max(80, min(520, 30 * len(lines_))))


def steps_apart(rows: Rows, colour: str, x: str) -> Any:
    """From ``before`` to ``after``, a line a ``name``."""
    y = alt.Y("name:N", title=None, axis=alt.Axis(labelLimit=170, grid=False, ticks=False, domain=False))
    base = of(rows).encode(y=y)
    scale = alt.Scale(domain=[0, 1])
    few = alt.Axis(tickCount=5)
    bar = base.mark_rule(strokeWidth=2, color=colour, opacity=0.45).encode(
        x=alt.X("before:Q", title=x, scale=scale, axis=few), x2="after:Q"
    )
    hollow = base.mark_point(size=70, color=ALONE, filled=False, strokeWidth=2).encode(x=alt.X("before:Q", scale=scale))
    full = base.mark_circle(size=80, color=colour, opacity=1).encode(
        x=alt.X("after:Q", scale=scale),
        tooltip=[alt.Tooltip(f"{each}:Q", format=".3f") for each in ("before", "after")],
    )
    return sized(alt.layer(bar, hollow, full), height=max(50, 30 * len(rows)))


def stacked(rows: Rows, colours: list[tuple[str, str]], x: str) -> Any:
    """Bars of ``value``, a ``way`` each, in parts."""
    names, shades = zip(*colours, strict=True)
    y = alt.Y("way:N", sort=None, title=None, axis=alt.Axis(labelLimit=150, grid=False, ticks=False, domain=False))
    return sized(
        of(rows)
        .mark_bar(height=20)
        .encode(
            y=y,
            x=alt.X("value:Q", title=x, axis=alt.Axis(tickCount=6)),
            color=alt.Color("part:N", scale=alt.Scale(domain=list(names), range=list(shades)), legend=None),
            order="order:Q",
            tooltip=["way:N", "part:N", alt.Tooltip("value:Q", format=".1f", title=x)],
        ),
        height=max(50, 38 * len({row["way"] for row in rows})),
    )


def around(values: list[float], rule: float | None) -> list[float]:
    """The range of values and of a dashed line, a little wider: an interval of two seeds would dwarf them."""
    every = [*values, *([] if rule is None else [rule])]
    low, high = min(every), max(every)
    margin = 0.08 * (high - low) or abs(high) / 10 or 1.0
    return [max(low - margin, min(low, 0.0)), high + margin]


def of(rows: Rows) -> Any:
    return alt.Chart(alt.InlineData(values=rows))


def sized(chart: Any, height: int = HEIGHT) -> dict[str, Any]:
    specification: dict[str, Any] = chart.properties(width="container", height=height).to_dict()
    specification.pop("config", None)  # the page's own, for light and dark
    return {**specification, "autosize": {"type": "fit-x", "contains": "padding"}}
