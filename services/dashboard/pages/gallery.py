"""Gallery: one row a prompt group, best image first; filters and place are in the address."""

import asyncio
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlencode

from services.dashboard.elements import choice, empty, entry, form, link, tag
from services.dashboard.frame import Visit
from services.dashboard.numbers import newest
from services.dashboard.pages import held_out
from services.dashboard.pages.rewards import number
from services.dashboard.panels import Board, Stamp
from services.dashboard.pictures import by_reward, on_disk, scores, thumbnail, verdicts
from services.dashboard.step_bar import StepBar
from services.runs_api.group_index import Group, GroupQuery, Place
from services.runs_api.library import OpenRun
from services.runs_api.routes.groups import read_cursor
from services.web.pagination import pack
from services.web.problems import Problem

ROWS = 12
SORTS = {"newest": "newest", "oldest": "oldest", "best": "best reward", "worst": "worst reward"}
VERDICTS = ("ready", "pending", "failed", "expired")
STATES = {"": "any", **{state: state for state in VERDICTS}}
VIEWS = {
    "": "Rollouts",
    "prompts": "Held-out prompts over time",
    "pair": "Two evaluations side by side",
}
CONTRASTS = {"": "any", "yes": "with", "no": "without"}
FILTERS = "filters"
"""The form's id."""


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    num_groups: int
    groups: list[Group]
    place: Place | None
    there: frozenset[str]
    beside: tuple[int | None, int | None] = (None, None)
    """Stored iterations before and after those shown."""
    seed: int | None = None
    """Of the run; None where its folder does not tell."""


def load(run: OpenRun, query: GroupQuery, after: Place | None) -> Model:
    """One page of groups."""
    with run.numbers() as table:
        stamp = newest(table, run)
    with run.images() as index:
        groups, place = index.page(query, ROWS, after)
        number = index.count()
        beside = index.steps_beside(query.from_step, query.to_step)
    seed = run.folder.origin().get("seed")
    return Model(stamp, number, groups, place, on_disk(run, groups), beside, seed)


def load_rewards(run: OpenRun) -> list[str]:
    """Those that the filters offer."""
    with run.images() as index:
        return index.rewards()


def read_query(query: dict[str, str], rewards: list[str]) -> GroupQuery:
    """Filters of an address; what makes no sense is no condition."""
    reward = query.get("reward") or (rewards[0] if rewards else None)
    sort = query.get("sort", "newest")
    return GroupQuery(
        sort if sort in SORTS and reward is not None else "newest",  # type: ignore[arg-type]
        reward,
        decimal(query, "min_reward") if reward else None,
        decimal(query, "max_reward") if reward else None,
        number(query, "from_step"),
        number(query, "to_step"),
        number(query, "min_version"),
        number(query, "max_version"),
        query.get("prompt") or None,
        query.get("prompt_id") or None,
        query.get("state") if query.get("state") in VERDICTS else None,
        {"yes": True, "no": False}.get(query.get("contrast", "")) if reward else None,
    )


def decimal(query: dict[str, str], name: str) -> float | None:
    """A finite number of the address; None for anything else."""
    try:
        value = float(query.get(name, ""))
    except ValueError:
        return None
    return value if abs(value) < 1e300 else None


async def draw(visit: Visit, run: OpenRun) -> None:
    """Its panels, of rollouts or of held-out prompts."""
    view = visit.query.get("view", "")
    with tag("nav", classes="tabs", aria_label="Views of the gallery"):
        for name, title in VIEWS.items():
            chosen = "page" if name == (view if view in VIEWS else "") else None
            link(title, f"?view={name}" if name else "?", aria_current=chosen)
    await held_out.DRAWS.get(view, draw_rollouts)(visit, run)


async def draw_rollouts(visit: Visit, run: OpenRun) -> None:
    """Groups, filtered and sorted, after one denoising step."""
    rewards = await asyncio.to_thread(load_rewards, run)
    query = read_query(visit.query, rewards)
    try:
        after = read_cursor(visit.query["after"]) if visit.query.get("after") else None
    except Problem:
        after = None
    _filters(visit.query, query, rewards)
    given = dict(visit.query)
    board = Board(run.id, lambda: load(run, query, after))
    bar = StepBar(given, FILTERS, board.redraw)
    await board.start(
        lambda: board.panel(
            "Groups",
            lambda model: _rows(run, given, query, model, bar),
            wide=True,
            of=lambda m: (m.groups, m.num_groups, m.there, m.beside, given.get("step")),
        )
    )


def _filters(given: dict[str, str], query: GroupQuery, rewards: list[str]) -> None:
    with form("Filters of the gallery", FILTERS):
        choice("sort", "Sort", SORTS, query.sort)
        choice("reward", "Reward", {name: name for name in rewards} or {"": "none"}, query.reward)
        entry("min_reward", "at least", query.min_reward, "number", step="any")
        entry("max_reward", "at most", query.max_reward, "number", step="any")
        entry("from_step", "From iteration", query.from_step, "number", min=0)
        entry("to_step", "to iteration", query.to_step, "number", min=0)
        entry("min_version", "From policy", query.min_version, "number", min=0)
        entry("max_version", "to policy", query.max_version, "number", min=0)
        entry("prompt", "Prompt has", query.prompt)
        choice("state", "Verdict", STATES, query.state)
        choice("contrast", "Contrast", CONTRASTS, given.get("contrast"))
        tag("button", "Show", type="submit")


def _rows(
    run: OpenRun, given: dict[str, str], query: GroupQuery, model: Model, bar: StepBar
) -> None:
    if not model.groups:
        empty("No group is so; loosen the filters." if _is_filtered(query) else "No image yet.")
    _iteration_bar(given, model)
    step = bar.show(model.groups)
    for group in model.groups:
        with tag("article", classes="group"):
            with tag("header"):
                link(group.prompt, f"/runs/{run.id}/groups/{group.group_id}", "prompt")
                tag("span", f"{_about(group, model.seed)} - mean {scores(group)}", "quiet")
            with tag("div", classes="strip"):
                for image in by_reward(group, query.reward):
                    with tag("figure"):
                        thumbnail(run, image, group.prompt, model.there, step)
                        tag("figcaption", f"sample {image.sample}: {verdicts(image)}")
    with tag("nav", classes="pager", aria_label="Pages of the gallery"):
        others = {key: value for key, value in given.items() if key != "after"}
        if given.get("after"):
            link("First page", f"?{urlencode(others)}")
        if model.place is not None:
            link("Next page", f"?{urlencode(others | {'after': pack(model.place)})}")
        tag("span", f"{model.num_groups} groups are stored", "quiet")
    tag(
        "p",
        "An image comes from its noise and its policy. The run's seed and the number of the group "
        "key the noise of a whole group (tdm_core/seeding.py); a sample is its place in it.",
        "quiet",
    )


def _about(group: Group, seed: int | None) -> str:
    parts = (
        f"group {group.group_id}",
        f"iteration {group.step}",
        f"policy v{group.policy_version}",
        f"seed {'unknown' if seed is None else seed}",
    )
    return " - ".join(parts)


def _iteration_bar(given: dict[str, str], model: Model) -> None:
    """Links to the groups of the iterations before and after, with the other filters."""
    bounds = ("from_step", "to_step", "after")
    others = {key: value for key, value in given.items() if key not in bounds}
    with tag("nav", classes="tabs", aria_label="Iteration"):
        for name, step in zip(("Before", "After"), model.beside, strict=True):
            if step is not None:
                query = urlencode(others | {"from_step": step, "to_step": step})
                link(f"{name}: iteration {step}", f"?{query}")
        if any(given.get(bound) for bound in bounds[:2]):
            link("All iterations", f"?{urlencode(others)}")


def _is_filtered(query: GroupQuery) -> bool:
    plain: dict[str, Any] = {"sort": query.sort, "reward": query.reward}
    return any(getattr(query, f.name) is not None for f in fields(query) if f.name not in plain)
