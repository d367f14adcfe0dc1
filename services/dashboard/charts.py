"""Curves and bars as options of ECharts. Where a run was silent a curve has a gap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from services.dashboard.data_tables import Cell, Table
from services.dashboard.plain_text import plain
from services.runs_api.metric_table import Series, Stack
from tdm_core.clustered_share import Share

# Told apart in both themes and by the colour-blind (Okabe and Ito's, darkened where too pale).
COLOURS = (
    "#3b73c8",
    "#d55e00",
    "#00916e",
    "#b0568f",
    "#a8780a",
    "#5b8fb0",
    "#7a6bb8",
    "#7d7d7d",
    "#8a4b2a",
)
AXIS = "#7a8290"


@dataclass(frozen=True)
class Curve:
    """One curve of a chart."""

    name: str
    series: Series
    band: tuple[Series, Series] | None = None
    """Its lower and its upper edge, at the very same iterations."""
    is_dashed: bool = False
    colour: int | None = None
    """Place among the colours; None is the curve's among the curves."""


def with_gaps(series: Series, values: Sequence[float | None]) -> list[list[float | None]]:
    """[iteration, value] points, with a missing one where the run was silent."""
    points: list[list[float | None]] = []
    silences = set(series.silences)
    for index, (step, value) in enumerate(zip(series.steps, values, strict=True)):
        if index in silences:
            points.append([(series.steps[index - 1] + step) / 2, None])
        points.append([step, value])
    return points


@dataclass(frozen=True)
class Chart:
    """Options of ECharts, and the same numbers as a table."""

    options: dict[str, Any]
    table: Table


def lines(curves: Sequence[Curve], top: float | None = None) -> Chart | None:
    """Curves over iterations; None without one."""
    if not curves:
        return None
    series: list[dict[str, Any]] = []
    for number, curve in enumerate(curves):
        place = number if curve.colour is None else curve.colour
        colour = COLOURS[place % len(COLOURS)]
        if curve.band is not None:
            series += _band(*curve.band, colour, f"band {number}")
        line = _line(curve.name, with_gaps(curve.series, curve.series.values), colour)
        line["lineStyle"]["type"] = "dashed" if curve.is_dashed else "solid"
        series.append(line)
    frame = _frame([curve.name for curve in curves], "value", top)
    return Chart(frame | {"series": series}, _table_of(curves))


def stacks(stack: Stack) -> Chart | None:
    """Bars over stretches of iterations, one part on the other; None without one."""
    spans = [str(first) if first == last else f"{first}-{last}" for first, last in stack.spans]
    return columns("iterations", spans, stack.parts)


def columns(
    what: str, places: Sequence[str], parts: Mapping[str, Sequence[float | None]]
) -> Chart | None:
    """Bars at named places, one part on the other; None without one."""
    if not parts:
        return None
    series = [
        {
            "name": plain(name),
            "type": "bar",
            "stack": "all",
            "data": list(values),
            "itemStyle": {"color": COLOURS[number % len(COLOURS)]},
            "barCategoryGap": "10%",
        }
        for number, (name, values) in enumerate(parts.items())
    ]
    frame = _frame(list(parts), "category", None)
    frame["xAxis"]["data"] = list(places)
    frame["yAxis"]["scale"] = False
    rows = [list(row) for row in zip(places, *parts.values(), strict=True)]
    return Chart(frame | {"series": series}, Table((what, *parts), rows))


def shares(
    what: str, places: Sequence[str], parts: Mapping[str, Sequence[Share | None]]
) -> Chart | None:
    """Shares at named places, each with its interval as a band; None without one."""
    if not any(share for of_part in parts.values() for share in of_part):
        return None
    series: list[dict[str, Any]] = []
    head = [what]
    rows: list[list[Cell]] = [[place] for place in places]
    for number, (name, of_part) in enumerate(parts.items()):
        colour = COLOURS[number % len(COLOURS)]
        low = [share and share.low for share in of_part]
        width = [share and share.high - share.low for share in of_part]
        series += _ribbon(low, width, colour, f"band {number}")
        series.append(_line(name, [share and share.value for share in of_part], colour))
        head += [name, f"{name}, low", f"{name}, high"]
        for row, share in zip(rows, of_part, strict=True):
            row += [share.value, share.low, share.high] if share else [None] * 3
    frame = _frame(list(parts), "category", 1.0)
    frame["xAxis"]["data"] = list(places)
    frame["yAxis"] |= {"min": 0}
    return Chart(frame | {"series": series}, Table(tuple(head), rows))


def _line(name: str, points: Sequence[Any], colour: str) -> dict[str, Any]:
    return {
        "name": plain(name),
        "type": "line",
        "data": points,
        "connectNulls": False,
        "showSymbol": len(points) < 40,
        "symbolSize": 5,
        "lineStyle": {"width": 2},
        "itemStyle": {"color": colour},
    }


def _table_of(curves: Sequence[Curve]) -> Table:
    """A row an iteration that any curve tells of."""
    told: dict[str, dict[int, float | None]] = {}
    for curve in curves:
        told[curve.name] = dict(zip(curve.series.steps, curve.series.values, strict=True))
        for edge, series in zip(("low", "high"), curve.band or (), strict=False):
            told[f"{curve.name}, {edge}"] = dict(zip(series.steps, series.values, strict=True))
    steps = sorted({step for values in told.values() for step in values})
    rows = [[step, *(values.get(step) for values in told.values())] for step in steps]
    return Table(("iteration", *told), rows)


def _band(low: Series, high: Series, colour: str, stack: str) -> list[dict[str, Any]]:
    width = [
        None if bottom is None or top is None else top - bottom
        for bottom, top in zip(low.values, high.values, strict=True)
    ]
    return _ribbon(with_gaps(low, low.values), with_gaps(low, width), colour, stack)


def _ribbon(
    low: Sequence[Any], width: Sequence[Any], colour: str, stack: str
) -> list[dict[str, Any]]:
    quiet = {
        "type": "line",
        "stack": stack,
        "stackStrategy": "all",
        "showSymbol": False,
        "lineStyle": {"opacity": 0},
        "silent": True,
        "tooltip": {"show": False},
    }
    filled = {"areaStyle": {"color": colour, "opacity": 0.14}}
    return [
        {**quiet, "data": low},
        {**quiet, **filled, "data": width},
    ]


def _frame(names: list[str], kind: str, top: float | None) -> dict[str, Any]:
    label = {"color": AXIS, "fontSize": 11}
    line = {"lineStyle": {"color": AXIS, "opacity": 0.3}}
    return {
        "animation": False,
        "grid": {"left": 8, "right": 14, "top": 34, "bottom": 8, "containLabel": True},
        "legend": {
            "data": [plain(name) for name in names],
            "type": "scroll",
            "top": 0,
            "left": 0,
            "textStyle": {"color": AXIS},
            "itemWidth": 12,
            "itemHeight": 8,
            "icon": "roundRect",
        },
        # Plain text: names come from configs, and no label of a chart is markup.
        "tooltip": {"trigger": "axis", "renderMode": "richText", "confine": True},
        "xAxis": {
            "type": kind,
            "minInterval": 1,
            "axisLabel": label,
            "splitLine": {"show": False},
            "axisLine": line,
            **({"min": "dataMin", "max": "dataMax"} if kind == "value" else {}),
        },
        "yAxis": {
            "type": "value",
            "scale": True,
            "axisLabel": label,
            "splitLine": line,
            **({} if top is None else {"max": top}),
        },
    }
