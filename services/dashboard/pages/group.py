"""Group: its images large, every verdict with its reason, and where it comes from."""

from dataclasses import dataclass

from services.dashboard.elements import empty, link, table, tag, tile
from services.dashboard.frame import Visit
from services.dashboard.numbers import short
from services.dashboard.panels import Board, Stamp
from services.dashboard.pictures import address, by_reward, on_disk, thumbnail
from services.runs_api.group_index import Group, GroupQuery
from services.runs_api.library import OpenRun

SAME_PROMPT = 12


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    group: Group | None
    same_prompt: list[Group]
    there: frozenset[str]


def load(run: OpenRun, group_id: int) -> Model:
    """The group, and others of its prompt."""
    with run.images() as index:
        group = index.group(group_id)
        same = []
        if group is not None:
            query = GroupQuery("oldest", prompt_id=group.prompt_id)
            same = index.page(query, SAME_PROMPT)[0]
    time = None
    if group is not None:
        with run.numbers() as numbers:
            told = [t for s, t in zip(numbers.steps, numbers.times, strict=True) if s > group.step]
            time = told[0] if told else run.facts().get("updated_at")
    stamp = Stamp(time, group.step, group.policy_version) if group else Stamp(None)
    there = on_disk(run, [*same, *([group] if group else [])])
    return Model(stamp, group, same, there)


async def draw(group_id: int, visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    board = Board(lambda: load(run, group_id), lambda model: model.stamp)

    def panels() -> None:
        board.panel("Prompt", lambda model: _about(run, model), wide=True)
        board.panel("Images", lambda model: _images(run, model), wide=True)
        board.panel("Verdicts", _verdicts, wide=True)
        board.panel("The same prompt over time", lambda model: _over_time(run, model), wide=True)

    await board.start(panels)


def _about(run: OpenRun, model: Model) -> None:
    group = model.group
    if group is None:
        empty("This run stored no images of that group.")
        return
    tag("p", group.prompt, "prompt large")
    with tag("dl", classes="tiles"):
        tile("group", str(group.group_id))
        tile("prompt", group.prompt_id)
        tile("rolled out in iteration", str(group.step))
        tile("by policy version", str(group.policy_version))
        for name, score in group.scores.items():
            contrast = f"spread {short(score.spread)}" if score.spread else "no contrast"
            tile(f"mean {name}", short(score.mean), contrast)
    link("As JSON", f"/api/v1/runs/{run.id}/groups/{group.group_id}")


def _images(run: OpenRun, model: Model) -> None:
    if model.group is None:
        return
    reward = next(iter(model.group.scores), None)
    with tag("div", classes="strip large"):
        for image in by_reward(model.group, reward):
            with tag("figure"):
                with link("", address(run, image.digest, "orig"), target="_blank"):
                    thumbnail(run, image, model.group.prompt, model.there, "512")
                tag("figcaption", f"sample {image.sample}")


def _verdicts(model: Model) -> None:
    if model.group is None:
        return
    rows = [
        [str(image.sample), name, said["state"], short(said["value"]), said["reason"]]
        for image in model.group.images
        for name, said in image.rewards.items()
    ]
    table(("sample", "reward", "state", "value", "reason"), rows, "Verdicts")


def _over_time(run: OpenRun, model: Model) -> None:
    others = [group for group in model.same_prompt if group != model.group]
    if not others:
        empty("No other stored group has this prompt.")
    with tag("div", classes="strip"):
        for group in others:
            with link("", f"/runs/{run.id}/groups/{group.group_id}", "card"):
                thumbnail(run, group.images[0], group.prompt, model.there)
                tag("span", f"iteration {group.step}", "quiet")
