"""Curves and bars as options of ECharts. Where a run was silent a curve has a gap."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from services.run_store.news import SILENT_S
from services.runs_api.metric_table import Series

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
GAP_TIMES = 5.0


@dataclass(frozen=True)
class Curve:
    """One curve of a chart."""

    name: str
    series: Series
    spread: Series | None = None
    """Drawn as a band of one standard deviation to each side."""
    is_dashed: bool = False


def with_gaps(series: Series) -> list[list[float | None]]:
    """[iteration, value] points, with a missing one where the run told nothing for far longer than
    its iterations take."""
    gaps = [after - before for before, after in pairwise(series.times)]
    limit = max(SILENT_S, GAP_TIMES * statistics.median(gaps)) if gaps else SILENT_S
    points: list[list[float | None]] = []
    for index, (step, value) in enumerate(zip(series.steps, series.values, strict=True)):
        if index and gaps[index - 1] > limit:
            points.append([(series.steps[index - 1] + step) / 2, None])
        points.append([step, value])
    return points


def lines(curves: Sequence[Curve], top: float | None = None) -> dict[str, Any] | None:
    """Curves over iterations; None without one."""
    if not curves:
        return None
    series: list[dict[str, Any]] = []
    for number, curve in enumerate(curves):
        colour = COLOURS[number % len(COLOURS)]
        if curve.spread is not None:
            series += _band(curve.series, curve.spread, colour, f"band {number}")
        series.append(
            {
                "name": curve.name,
                "type": "line",
                "data": with_gaps(curve.series),
                "connectNulls": False,
                "showSymbol": len(curve.series.steps) < 40,
                "symbolSize": 5,
                "lineStyle": {"width": 2, "type": "dashed" if curve.is_dashed else "solid"},
                "itemStyle": {"color": colour},
            }
        )
    return _frame([curve.name for curve in curves], "value", top) | {"series": series}


def stacks(parts: Mapping[str, Series]) -> dict[str, Any] | None:
    """Bars over iterations, one part on the other; None without one."""
    if not parts:
        return None
    steps = sorted({step for part in parts.values() for step in part.steps})
    series = []
    for number, (name, part) in enumerate(parts.items()):
        told = dict(zip(part.steps, part.values, strict=True))
        bars = {
            "name": name,
            "type": "bar",
            "stack": "all",
            "data": [told.get(step) for step in steps],
            "itemStyle": {"color": COLOURS[number % len(COLOURS)]},
            "barCategoryGap": "10%",
        }
        series.append(bars)
    frame = _frame(list(parts), "category", None)
    frame["xAxis"]["data"] = steps
    frame["yAxis"]["scale"] = False
    return frame | {"series": series}


def _band(mean: Series, spread: Series, colour: str, stack: str) -> list[dict[str, Any]]:
    known = dict(zip(spread.steps, spread.values, strict=True))
    low, width = [], []
    for step, value in zip(mean.steps, mean.values, strict=True):
        std = known.get(step)
        if value is None or std is None:
            low.append([step, None])
            width.append([step, None])
        else:
            low.append([step, value - std])
            width.append([step, 2 * std])
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
    return [{**quiet, "data": low}, {**quiet, **filled, "data": width}]


def _frame(names: list[str], kind: str, top: float | None) -> dict[str, Any]:
    label = {"color": AXIS, "fontSize": 11}
    line = {"lineStyle": {"color": AXIS, "opacity": 0.3}}
    return {
        "animation": False,
        "grid": {"left": 8, "right": 14, "top": 34, "bottom": 8, "containLabel": True},
        "legend": {
            "data": names,
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
