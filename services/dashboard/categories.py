"""Rewards by prompt category: what the prompts' `tag` tells apart, such as GenEval's `counting`."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from services.dashboard.charts import Curve, lines
from services.dashboard.numbers import HELD_OUT, curve, held_out_curve
from services.dashboard.panels import Board, Model
from services.runs_api.library import OpenRun
from services.runs_api.metric_table import MetricTable

TRAINED = "reward_by_tag/"
OVER_TAGS = "tag_mean"
COUNTS = ("missing", "std_error")


@dataclass(frozen=True)
class ByCategory:
    """A curve a category, named as in the run's numbers."""

    held_out: list[Curve]
    trained: list[Curve]


def measures(run: OpenRun) -> list[str]:
    """Rewards, and parts of them, that were told of the held-out prompts by category."""
    with run.numbers() as table:
        return measures_of(table.names)


def measures_of(names: Iterable[str]) -> list[str]:
    """The same of a run's numbers."""
    end = f"/{OVER_TAGS}"
    found = [name for name in names if name.startswith(HELD_OUT) and name.endswith(end)]
    return sorted(name.removeprefix(HELD_OUT).removesuffix(end) for name in found)


def categories(names: Iterable[str], measure: str) -> list[str]:
    """What a measure is told by: categories, then the mean over them; none of its parts."""
    start = f"{HELD_OUT}{measure}/"
    told = {name.removeprefix(start) for name in names if name.startswith(start)}
    if OVER_TAGS not in told:
        return []
    end = f"/{OVER_TAGS}"
    parts = {name.removesuffix(end) for name in told if name.endswith(end)}
    others = {name for name in told if name in parts or name.partition("/")[0] in parts}
    return [*sorted(told - others - {OVER_TAGS, *COUNTS}), OVER_TAGS]


def of_table(table: MetricTable, measure: str) -> ByCategory:
    """A measure of the held-out prompts, and what it is of, or else another reward, in training."""
    trained = [name for name in table.names if name.startswith(TRAINED)]
    rewards = [name.split("/")[1] for name in trained]
    reward = measure.partition("/")[0]
    if reward not in rewards:
        reward = next(iter(rewards), "")
    return ByCategory(
        [held_out_curve(table, f"{measure}/{each}") for each in categories(table.names, measure)],
        [
            curve(table, name, name.removeprefix(TRAINED))
            for name, its in zip(trained, rewards, strict=True)
            if its == reward
        ],
    )


def by_category(runs: Sequence[OpenRun], asked: str) -> ByCategory:
    """Of the measure `asked` for, or the first run's first one. A category has one colour in every
    run; runs but the first are dashed."""
    found, places = ByCategory([], []), dict[str, int]()
    measure = ""
    for run in runs:
        with run.numbers() as table:
            if run is runs[0]:
                known = measures_of(table.names)
                measure = asked if asked in known else next(iter(known), "")
            its = of_table(table, measure)
        label = "" if len(runs) == 1 else f"{run.id} "
        for all_curves, curves in ((found.held_out, its.held_out), (found.trained, its.trained)):
            for each in curves:
                place = places.setdefault(each.name.rpartition("/")[2], len(places))
                dashed = run is not runs[0]
                all_curves.append(
                    replace(each, name=label + each.name, is_dashed=dashed, colour=place)
                )
    return found


def category_panels(board: Board[Model], of: Callable[[Model], ByCategory]) -> None:
    """Their panels; `of` finds what they show in the page's model."""
    board.chart(
        "Held-out score by prompt category",
        lambda model: lines(of(model).held_out),
        note="A category is the `tag` of prompts; tag_mean is the mean over the categories.",
        otherwise="Nothing told yet: there was no evaluation, or no held-out prompt has a `tag`.",
    )
    board.chart(
        "Reward of the rollouts by prompt category",
        lambda model: lines(of(model).trained),
        note="Of the groups that the surrogate learned from in an iteration: few to a category, so "
        "its curve is rough.",
        otherwise="Nothing told yet: no prompt has a `tag`, or the run is from before it was told.",
    )
