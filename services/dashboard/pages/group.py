"""Group: its images after every step, every verdict with its reason, what became of it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from services.dashboard.elements import chip, empty, link, table, tag, tile
from services.dashboard.frame import Visit
from services.dashboard.histories import Steps, lesson_of, people_of, timeline
from services.dashboard.label_source import LabelSource
from services.dashboard.numbers import short, signed
from services.dashboard.panels import Board, Stamp, clock
from services.dashboard.pictures import (
    address,
    by_reward,
    on_disk,
    picture,
    step_name,
    thumbnail,
    verdicts,
)
from services.labels.schemas.groups import GroupLease
from services.run_store.forms import GroupEvent
from services.runs_api.group_index import Group, GroupQuery, Image
from services.runs_api.library import OpenRun

SAME_PROMPT = 12
NOT_RECORDED = "Not recorded: the run is from before histories were (groups.jsonl)."
TONES = {"labelled": "good", "asked": "warn", "expired": "calm", "not asked": "calm"}


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    group: Group | None
    history: list[GroupEvent]
    leases: list[GroupLease]
    same_prompt: list[Group]
    there: frozenset[str]


def load(run: OpenRun, labels: LabelSource, group_id: int) -> Model:
    """The group, and others of its prompt."""
    with run.images() as index:
        group = index.group(group_id)
        history = index.history(group_id)
        same = []
        if group is not None:
            query = GroupQuery("oldest", prompt_id=group.prompt_id)
            same = index.page(query, SAME_PROMPT)[0]
    if group is None:
        return Model(Stamp(None), None, history, [], [], frozenset())
    time = history[-1].time if history else _stored_at(run, group)
    stamp = Stamp(time, group.step, group.policy_version)
    leases = _leases(run, labels, group_id) if people_of(history).state != "not asked" else []
    return Model(stamp, group, history, leases, same, on_disk(run, [*same, group]))


def _leases(run: OpenRun, labels: LabelSource, group_id: int) -> list[GroupLease]:
    try:
        return labels.leases(f"{run.id}-{group_id}")
    except ValueError:  # the Labels page says why
        return []


def _stored_at(run: OpenRun, group: Group) -> float | None:
    with run.numbers() as numbers:
        told = [t for s, t in zip(numbers.steps, numbers.times, strict=True) if s > group.step]
    return told[0] if told else run.facts().get("updated_at")


async def draw(group_id: int, visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    labels = visit.shell.labels
    board: Board[Model] = Board(f"{run.id}-group-{group_id}", lambda: load(run, labels, group_id))

    def panel(title: str, fill: Callable[[Group, Model], None], wide: bool = True) -> None:
        def show(model: Model) -> None:
            if model.group is not None:
                fill(model.group, model)
            else:
                empty("This run stored no images of that group.")

        board.panel(title, show, wide, of=_shown)

    def panels() -> None:
        panel("Prompt", partial(_about, run))
        panel("Images after every step", partial(_images, run))
        panel("Verdicts", _verdicts)
        panel("What became of it", _timeline)
        panel("What the surrogate learned from it", _lesson, wide=False)
        panel("What people say", _people, wide=False)
        panel("The same prompt over time", partial(_over_time, run))

    await board.start(panels)


def _shown(model: Model) -> tuple[Any, ...]:
    return model.group, model.history, model.leases, model.there, model.same_prompt


def _about(run: OpenRun, group: Group, model: Model) -> None:
    tag("p", group.prompt, "prompt large")
    with tag("dl", classes="tiles"):
        tile("group", str(group.group_id))
        tile("prompt", group.prompt_id)
        tile("rolled out in iteration", str(group.step))
        tile("by policy version", str(group.policy_version))
        tile("people", people_of(model.history).state if model.history else "not recorded")
        for name, score in group.scores.items():
            contrast = f"spread {short(score.spread)}" if score.spread else "no contrast"
            tile(f"mean {name}", short(score.mean), contrast)
    json = f"/api/v1/runs/{run.id}/groups/{group.group_id}"
    with tag("p"):
        link("As JSON", json)
        tag("span", ", ")
        link("its history", f"{json}/history")


def _images(run: OpenRun, group: Group, model: Model) -> None:
    if group.num_steps == 1:
        empty(
            "What the images were predicted to be on their way is not recorded "
            "(telemetry.predictions_per_group)."
        )
    lesson = lesson_of(model.history)
    advantages = lesson.advantages() if lesson else []
    for image in by_reward(group, next(iter(group.scores), None)):
        with tag("article", classes="group"):
            with tag("header"):
                tag("h3", f"sample {image.sample}")
                tag("span", verdicts(image), "quiet")
                if image.sample < len(advantages):
                    steps = " ".join(signed(value) for value in advantages[image.sample])
                    tag("span", f"advantage {steps}", "quiet")
            _path(run, group, image, model)


def _path(run: OpenRun, group: Group, image: Image, model: Model) -> None:
    with tag("div", classes="path"):
        for step, digest in enumerate(image.path, 1):
            name = step_name(group.sigmas, step, len(image.path))
            alt = f"{name}: sample {image.sample} of: {group.prompt}"
            with tag("figure"):
                with link("", address(run, digest, "orig"), target="_blank"):
                    picture(run, digest, alt, model.there, image.removed_by, "512")
                tag("figcaption", name)


def _verdicts(group: Group, model: Model) -> None:
    rows = [
        [str(image.sample), name, said["state"], short(said["value"]), _parts(said), said["reason"]]
        for image in group.images
        for name, said in image.rewards.items()
    ]
    table(("sample", "reward", "state", "value", "parts", "reason"), rows, "Verdicts")


def _parts(said: Mapping[str, Any]) -> str:
    parts = {name: value for name, value in said.get("parts", {}).items() if name != "label_seq"}
    return ", ".join(f"{name} {value:.3g}" for name, value in parts.items())


def _timeline(group: Group, model: Model) -> None:
    if not model.history:
        empty(NOT_RECORDED)
        return
    rows = [
        [
            clock(station.time),
            f"+{station.after_s:.1f} s",
            station.text,
            "-" if station.policy_version is None else f"v{station.policy_version}",
            "-" if station.staleness is None else str(station.staleness),
            station.detail,
        ]
        for station in timeline(model.history, group.policy_version, model.leases)
    ]
    table(("time", "after", "what", "policy", "behind", "more"), rows, "What became of it")
    tag(
        "p",
        "Policy: the trainer's version then, one an iteration. Behind: by how many versions the "
        "group was older.",
        "quiet",
    )


def _lesson(group: Group, model: Model) -> None:
    lesson = lesson_of(model.history)
    if lesson is None:
        empty("The surrogate has not drawn it." if model.history else NOT_RECORDED)
        return
    event = lesson.event
    again = f" It was drawn {lesson.num_draws} times; the newest counts." * (lesson.num_draws > 1)
    tag(
        "p",
        f"At policy v{event.policy_version}, {event.policy_version - group.policy_version} "
        f"behind; revision {event.revision} of its rewards, weight {short(event.weight)}.{again}",
        "quiet",
    )
    columns = {**lesson.rewards(), "advantage": lesson.advantages()}
    columns |= {"its own reward": lesson.own} if lesson.own else {}
    head = [name for column, rows in columns.items() for name in _heads(column, rows)]
    stored = {image.sample for image in group.images}
    rows = [
        [f"{sample} (above)" if sample in stored else str(sample), *_cells(columns, sample)]
        for sample in range(len(event.advantages))
    ]
    table(("sample", *head), rows, "Rewards and advantages")
    if len(head) == len(columns):
        empty("Every step has the same, since the final image's reward is that of the whole path.")


def _heads(column: str, rows: Sequence[Steps]) -> list[str]:
    num_steps = len(rows[0]) if rows else 0
    return [column] if num_steps == 1 else [f"{column}, step {k + 1}" for k in range(num_steps)]


def _cells(columns: Mapping[str, Sequence[Steps]], sample: int) -> Iterator[str]:
    for column, rows in columns.items():
        show = signed if column == "advantage" else short
        yield from (show(value) for value in rows[sample])


def _people(group: Group, model: Model) -> None:
    if not model.history:
        empty(NOT_RECORDED)
        return
    people = people_of(model.history)
    with tag("p"):
        chip(people.state, TONES[people.state])
        about = f" question {people.question}, revision {people.revision}" * bool(people.question)
        tag("span", f"{about} {people.reason}")
    if people.by_image:
        rows = [
            [str(sample), *(short(value) for value in of_image)]
            for sample, of_image in enumerate(people.by_image)
        ]
        head = ("sample", "labels n", "likes", "weight rho", "posterior mu", "sd")
        table(head, rows, "What people say")


def _over_time(run: OpenRun, group: Group, model: Model) -> None:
    others = [other for other in model.same_prompt if other != group]
    if not others:
        empty("No other stored group has this prompt.")
    with tag("div", classes="strip"):
        for other in others:
            with link("", f"/runs/{run.id}/groups/{other.group_id}", "card"):
                thumbnail(run, other.images[0], other.prompt, model.there)
                tag("span", f"iteration {other.step}", "quiet")
