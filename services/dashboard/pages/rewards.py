"""Rewards: curves, by prompt category, per step, how they are spread; other runs beside."""

import asyncio
from dataclasses import dataclass
from urllib.parse import urlencode

from services.dashboard.categories import ByCategory, by_category, category_panels, measures
from services.dashboard.charts import Curve, lines
from services.dashboard.data_tables import Cell, Table
from services.dashboard.elements import choice, choices, empty, entry, form, link, tag
from services.dashboard.frame import Visit
from services.dashboard.numbers import (
    BAND,
    curve,
    curves,
    evaluation_names,
    held_out_curve,
    newest,
    reward_band,
    reward_names,
)
from services.dashboard.panels import Board, Stamp
from services.dashboard.people import people_panels
from services.dashboard.surrogate_steps import Step, surrogate_panels, surrogate_steps
from services.runs_api.human_agreement import HumanAgreement
from services.runs_api.library import Library, OpenRun

BINS = 10
MAX_RUNS = 4
SHAPE = tuple(f"advantage/{n}" for n in ("abs_mean", "std", "clipped", "zero_signal", "valid"))


@dataclass(frozen=True)
class Spread:
    """How the values of one reward are spread."""

    reward: str
    edges: list[float]
    counts: list[int]


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    rewards: list[Curve]
    held_out: list[Curve]
    by_category: ByCategory
    by_step: list[Curve]
    surrogate: list[Step]
    shape: list[Curve]
    spreads: list[Spread]
    people: HumanAgreement


def load(runs: list[OpenRun], measure: str, from_step: int | None, to_step: int | None) -> Model:
    """The first run whole, of the others the curves; those by category are of `measure`."""
    run = runs[0]
    with run.numbers() as table:
        names = reward_names(table.names)
        stamp = newest(table, run)
        shape = curves(table, SHAPE, "advantage/")
        surrogate = surrogate_steps(table)
        by_step = [
            curve(table, name, name.removeprefix("reward/"))
            for name in table.names
            if name.startswith("reward/") and "/step_" in name
        ]
    with run.images() as index:
        people = index.labelled.agreement()
        spreads = [Spread(name, *index.histogram(name, from_step, to_step, BINS)) for name in names]
    rewards, held_out = [], []
    for other in runs:
        label = "" if len(runs) == 1 else f"{other.id} "
        with other.numbers() as table:
            for name in reward_names(table.names):
                found = reward_band(table, name)
                band = found.band if len(runs) == 1 else None  # of several they would hide all
                rewards.append(
                    Curve(f"{label}{name}", found.series, band, is_dashed=other is not run)
                )
            for name in evaluation_names(table):
                score = held_out_curve(table, name).series
                held_out.append(Curve(label + name, score, is_dashed=other is not run))
    categories = by_category(runs, measure)
    return Model(stamp, rewards, held_out, categories, by_step, surrogate, shape, spreads, people)


async def draw(visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    runs = beside(visit.shell.library, run, visit.query)
    first, last = number(visit.query, "from_step"), number(visit.query, "to_step")
    measure = visit.query.get("measure", "")
    board = Board(run.id, lambda: load(runs, measure, first, last))
    known = await asyncio.to_thread(visit.shell.library.all)
    by = await asyncio.to_thread(measures, run)
    with form("Which iterations, which other runs"):
        ids = [other.id for other in known if other.id != run.id]
        beside_it = [other.id for other in runs[1:]]
        choices("with", f"Beside it, {MAX_RUNS - 1} at most", ids, beside_it)
        entry("from_step", "Histogram from iteration", first, "number", min=0)
        entry("to_step", "to iteration", last, "number", min=0)
        if by:
            choice("measure", "By category", {name: name for name in by}, measure)
        tag("button", "Show", type="submit")

    def panels() -> None:
        board.chart(
            "Mean reward of the rollouts",
            lambda model: lines(model.rewards),
            wide=True,
            note="" if len(runs) > 1 else BAND,
        )
        board.chart("Held-out score of the averaged generator", lambda m: lines(m.held_out))
        category_panels(board, lambda model: model.by_category)
        board.chart(
            "Reward by denoising step",
            lambda model: lines(model.by_step),
            note="With `terminal` rewards every step has the final image's: one curve.",
        )
        surrogate_panels(board, lambda model: model.surrogate)
        board.chart("Advantages", lambda model: lines(model.shape))
        board.panel(
            "How rewards are spread",
            lambda model: _spreads(run, model, visit.query),
            of=lambda model: model.spreads,
            numbers=_counts,
        )
        people_panels(board, lambda model: model.people)

    await board.start(panels)


def beside(library: Library, run: OpenRun, query: dict[str, str]) -> list[OpenRun]:
    """The run, and those that the address names after `with=`."""
    names = [name for name in query.get("with", "").split(",") if name and name != run.id]
    found = [other for name in names if (other := library.find(name)) is not None]
    return [run, *found][:MAX_RUNS]


def number(query: dict[str, str], name: str) -> int | None:
    """A whole number of the address; None for anything else."""
    text = query.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 16 else None


def _counts(model: Model) -> Table | None:
    rows: list[list[Cell]] = [
        [spread.reward, low, high, count]
        for spread in model.spreads
        for low, high, count in zip(spread.edges, spread.edges[1:], spread.counts, strict=False)
    ]
    return Table(("reward", "from", "to", "images"), rows) if rows else None


def _spreads(run: OpenRun, model: Model, query: dict[str, str]) -> None:
    if not any(sum(spread.counts) for spread in model.spreads):
        empty("No stored image is judged yet.")
    for spread in model.spreads:
        highest = max(spread.counts, default=0)
        if not highest:
            continue
        tag("h3", spread.reward)
        with tag("ol", classes="histogram"):
            for low, high, count in zip(
                spread.edges, spread.edges[1:], spread.counts, strict=False
            ):
                steps = {k: query[k] for k in ("from_step", "to_step") if query.get(k)}
                bounds = {"reward": spread.reward, "min_reward": low, "max_reward": high}
                gallery = f"/runs/{run.id}/gallery?{urlencode(bounds | steps)}"
                label = f"{low:.3g} to {high:.3g}: {count} images"
                with tag("li"), link("", gallery, aria_label=label, title=label):
                    tag(
                        "span",
                        classes="histogram-column",
                        style=f"height: {100 * count / highest:.0f}%",
                    )
                    tag("span", f"{low:.2g}", "edge")
    tag("p", "A column opens its images in the gallery.", "quiet")
