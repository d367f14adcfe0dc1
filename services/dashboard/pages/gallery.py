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
from services.dashboard.pictures import (
    by_reward,
    on_disk,
    scores,
    step_name,
    thumbnail,
    verdicts,
)
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


def load(run: OpenRun, query: GroupQuery, after: Place | None) -> Model:
    """One page of groups."""
    with run.numbers() as table:
        stamp = newest(table, run)
    with run.images() as index:
        groups, place = index.page(query, ROWS, after)
        number = index.count()
        beside = index.steps_beside(query.from_step, query.to_step)
    return Model(stamp, number, groups, place, on_disk(run, groups), beside)


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
    board = Board(run.id, lambda: load(run, query, after))
    await board.start(
        lambda: board.panel(
            "Groups",
            lambda model: _rows(run, visit, query, model),
            wide=True,
            of=lambda m: (m.groups, m.num_groups, m.there, m.beside),
        )
    )


def _filters(given: dict[str, str], query: GroupQuery, rewards: list[str]) -> None:
    with form("Filters of the gallery"):
        choice("sort", "Sort", SORTS, query.sort)
        choice("reward", "Reward", {name: name for name in rewards} or {"": "none"}, query.reward)
        entry("min_reward", "at least", query.min_reward, "number", step="any")
        entry("max_reward", "at most", query.max_reward, "number", step="any")
        entry("from_step", "From iteration", query.from_step, "number", min=0)
        entry("to_step", "to iteration", query.to_step, "number", min=0)
        entry("prompt", "Prompt has", query.prompt)
        choice("state", "Verdict", STATES, query.state)
        choice("contrast", "Contrast", CONTRASTS, given.get("contrast"))
        if given.get("step"):
            tag("input", name="step", type="hidden", value=given["step"])
        tag("button", "Show", type="submit")


def _rows(run: OpenRun, visit: Visit, query: GroupQuery, model: Model) -> None:
    if not model.groups:
        empty("No group is so; loosen the filters." if _is_filtered(query) else "No image yet.")
    _iteration_bar(visit, model)
    step = _step_bar(visit, model)
    for group in model.groups:
        with tag("article", classes="group"):
            with tag("header"):
                link(group.prompt, f"/runs/{run.id}/groups/{group.group_id}", "prompt")
                about = f"group {group.group_id} - iteration {group.step} - policy v"
                tag("span", f"{about}{group.policy_version} - mean {scores(group)}", "quiet")
            with tag("div", classes="strip"):
                for image in by_reward(group, query.reward):
                    with tag("figure"):
                        thumbnail(run, image, group.prompt, model.there, step)
                        tag("figcaption", f"sample {image.sample}: {verdicts(image)}")
    with tag("nav", classes="pager", aria_label="Pages of the gallery"):
        given = {k: v for k, v in visit.query.items() if k != "after"}
        if visit.query.get("after"):
            link("First page", f"?{urlencode(given)}")
        if model.place is not None:
            link("Next page", f"?{urlencode(given | {'after': pack(model.place)})}")
        tag("span", f"{model.num_groups} groups are stored", "quiet")


def _iteration_bar(visit: Visit, model: Model) -> None:
    """Links to the groups of the iterations before and after, with the other filters."""
    bounds = ("from_step", "to_step", "after")
    given = {key: value for key, value in visit.query.items() if key not in bounds}
    with tag("nav", classes="tabs", aria_label="Iteration"):
        for name, step in zip(("Before", "After"), model.beside, strict=True):
            if step is not None:
                query = urlencode(given | {"from_step": step, "to_step": step})
                link(f"{name}: iteration {step}", f"?{query}")
        if any(visit.query.get(bound) for bound in bounds[:2]):
            link("All iterations", f"?{urlencode(given)}")


def _step_bar(visit: Visit, model: Model) -> int | None:
    """Links that show every image after one denoising step; the one chosen, None for the last."""
    longest = max(model.groups, key=lambda group: group.num_steps, default=None)
    if longest is None or longest.num_steps == 1:
        return None
    last, asked = longest.num_steps, number(visit.query, "step")
    chosen = asked if asked is not None and 1 <= asked < last else last
    given = {key: value for key, value in visit.query.items() if key != "step"}
    with tag("nav", classes="tabs", aria_label="Denoising step"):
        for step in range(1, last + 1):
            query = urlencode(given if step == last else given | {"step": str(step)})
            name = step_name(longest.sigmas, step, last)
            link(name, f"?{query}", aria_current="true" if step == chosen else None)
    return chosen if chosen < last else None


def _is_filtered(query: GroupQuery) -> bool:
    plain: dict[str, Any] = {"sort": query.sort, "reward": query.reward}
    return any(getattr(query, f.name) is not None for f in fields(query) if f.name not in plain)
