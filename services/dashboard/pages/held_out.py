"""Gallery of held-out prompts: each over time, or in two evaluations side by side."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from services.dashboard.elements import choice, empty, entry, form, link, tag
from services.dashboard.frame import Visit
from services.dashboard.numbers import short, signed
from services.dashboard.panels import Board, Stamp
from services.dashboard.pictures import address, picture
from services.runs_api.checkpoints import checkpoints_of
from services.runs_api.held_out import Evaluation, HeldOutImage
from services.runs_api.library import OpenRun

COLUMNS = {"8": "8", "16": "16", "32": "32"}
SORTS = {"": "as numbered", "gained": "most gained", "lost": "most lost"}
NONE = (
    "No image of an evaluation is stored: there was none yet (evaluation.every, prompts.heldout), "
    "or the run is from before they were. Checkpoints has the sheets."
)


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    evaluations: list[Evaluation]
    checkpoints: Mapping[int, str]
    """Policy version to the name of the checkpoint of that very generator."""
    there: frozenset[str]

    @property
    def stamp(self) -> Stamp:
        """Of the newest evaluation."""
        if not self.evaluations:
            return Stamp(None)
        newest = self.evaluations[-1]
        return Stamp(newest.time, policy_version=newest.policy_version)


@dataclass(frozen=True)
class Row:
    """One held-out prompt in the evaluations shown."""

    images: Sequence[HeldOutImage | None]
    """One an evaluation; None where that one did not store it."""
    values: Sequence[float | None]
    """What the chosen reward gave each."""
    start: int = 0
    """Which of them a change is counted from."""

    @property
    def prompt(self) -> str:
        """Its text."""
        return next(image.prompt for image in self.images if image is not None)

    @property
    def change(self) -> float | None:
        """Of the value up to the last evaluation; None where either has none."""
        first, last = self.values[self.start], self.values[-1]
        return None if first is None or last is None else last - first


def load(run: OpenRun) -> Model:
    """Everything that is on the disk."""
    found, store = run.held_out.all(), run.held_out.store
    digests = {image.digest for evaluation in found for image in evaluation.images}
    there = frozenset(digest for digest in digests if store.path(digest).exists())
    saved = checkpoints_of(run.folder.checkpoints)
    return Model(found, {each.policy_version: each.name for each in saved}, there)


async def draw_over_time(visit: Visit, run: OpenRun) -> None:
    """The same prompts at every evaluation."""
    model = await asyncio.to_thread(load, run)
    reward = _reward(visit, model)
    count = visit.query.get("columns", "")
    most = int(count) if count in COLUMNS else 8
    with form("Which prompts"):
        tag("input", name="view", type="hidden", value="prompts")
        _choose_rows(visit, model, reward)
        choice("columns", "Evaluations", COLUMNS, str(most))
        tag("button", "Show", type="submit")

    def fill(model: Model) -> None:
        shown = spread_out(model.evaluations, most)
        if shown:
            # The student is what changes; the teacher only stands beside.
            start = next((n for n, each in enumerate(shown) if each.policy_version is not None), 0)
            _compare(visit, run, model, shown, rows_of(shown, reward, start), "strip")
        else:
            empty(NONE)

    await _start(run, "The same prompts and noise at every evaluation", fill)


async def draw_pair(visit: Visit, run: OpenRun) -> None:
    """Two evaluations, which may be of two checkpoints."""
    model = await asyncio.to_thread(load, run)
    reward = _reward(visit, model)
    labels = [evaluation.label for evaluation in model.evaluations]
    before = visit.query.get("before") or ("before" if "before" in labels else "")
    after = visit.query.get("after") or (labels[-1] if labels else "")
    names = {each.label: _name(each, model) for each in model.evaluations}
    with form("Which evaluations"):
        tag("input", name="view", type="hidden", value="pair")
        choice("before", "Left", names, before)
        choice("after", "Right", names, after)
        _choose_rows(visit, model, reward)
        tag("button", "Show", type="submit")

    def fill(model: Model) -> None:
        known = {evaluation.label: evaluation for evaluation in model.evaluations}
        shown = [known[label] for label in (before, after) if label in known]
        if len(shown) == 2:
            _compare(visit, run, model, shown, rows_of(shown, reward), "path")
        else:
            empty("Choose two evaluations." if known else NONE)

    await _start(run, "Two evaluations of the same prompts and noise", fill)


DRAWS: dict[str, Callable[[Visit, OpenRun], Awaitable[None]]] = {
    "prompts": draw_over_time,
    "pair": draw_pair,
}


async def _start(run: OpenRun, title: str, fill: Callable[[Model], None]) -> None:
    board = Board(run.id, lambda: load(run))
    await board.start(lambda: board.panel(title, fill, wide=True))


def _reward(visit: Visit, model: Model) -> str:
    known = [name for evaluation in model.evaluations for name in evaluation.rewards]
    asked = visit.query.get("reward", "")
    return asked if asked in known else next(iter(known), "")


def _choose_rows(visit: Visit, model: Model, reward: str) -> None:
    known = {name: name for evaluation in model.evaluations for name in evaluation.rewards}
    choice("reward", "Reward", known or {"": "none"}, reward)
    choice("sort", "Sort", SORTS, visit.query.get("sort"))
    entry("prompt", "Prompt has", visit.query.get("prompt") or None)


def spread_out(evaluations: Sequence[Evaluation], most: int) -> list[Evaluation]:
    """At most so many of them, evenly, the first and the last among them."""
    if len(evaluations) <= most:
        return list(evaluations)
    last = len(evaluations) - 1
    return [evaluations[round(place * last / (most - 1))] for place in range(most)]


def rows_of(evaluations: Sequence[Evaluation], reward: str, start: int = 0) -> list[Row]:
    """One row a prompt, as numbered."""
    by_number = [{image.number: image for image in each.images} for each in evaluations]
    numbers = sorted({number for images in by_number for number in images})
    found = []
    for number in numbers:
        images = [images.get(number) for images in by_number]
        found.append(Row(images, [image and image.value(reward) for image in images], start))
    return found


def _compare(
    visit: Visit,
    run: OpenRun,
    model: Model,
    shown: Sequence[Evaluation],
    rows: Sequence[Row],
    classes: str,
) -> None:
    """What has changed, then the rows that the address wants, in its order."""
    part = visit.query.get("prompt", "").lower()
    rows = [row for row in rows if part in row.prompt.lower()]
    _summary(shown, rows)
    evaluated = {evaluation.policy_version for evaluation in model.evaluations}
    if lacking := [name for version, name in model.checkpoints.items() if version not in evaluated]:
        empty(
            f"Not evaluated: {', '.join(lacking)}. tdm-r1 eval RUN --checkpoint N stores images of "
            "one, too."
        )
    for row in in_order(rows, visit.query.get("sort", "")):
        _row(run, row, shown, model, classes)


def in_order(rows: Sequence[Row], sort: str) -> list[Row]:
    """As numbered, or by change; what has no change comes last then."""
    if sort not in ("gained", "lost"):
        return list(rows)
    sign = -1 if sort == "gained" else 1
    return sorted(rows, key=lambda row: (row.change is None, sign * (row.change or 0.0)))


def _summary(shown: Sequence[Evaluation], rows: Sequence[Row]) -> None:
    changes = [row.change for row in rows if row.change is not None]
    if changes:
        better, worse = sum(c > 0 for c in changes), sum(c < 0 for c in changes)
        tag(
            "p",
            f"From {shown[rows[0].start].label} to {shown[-1].label}: {signed(fmean(changes))} on "
            f"average over {len(changes)} stored images; {better} better, {worse} worse, "
            f"{len(changes) - better - worse} the same.",
        )


def _row(run: OpenRun, row: Row, shown: Sequence[Evaluation], model: Model, classes: str) -> None:
    with tag("article", classes="group"):
        with tag("header"):
            tag("h3", row.prompt)
            if row.change is not None:
                tag("span", f"change {signed(row.change)}", "quiet")
        with tag("div", classes=classes):
            for evaluation, image, value in zip(shown, row.images, row.values, strict=True):
                if image is None:
                    continue
                with tag("figure"):
                    alt = f"{evaluation.label}: {row.prompt}"
                    with link("", address(run, image.digest, "orig"), target="_blank"):
                        picture(run, image.digest, alt, model.there)
                    tag("figcaption", f"{_name(evaluation, model)}: {short(value)}")


def _name(evaluation: Evaluation, model: Model) -> str:
    """An evaluation, whose generator it is of, and where that is saved."""
    if evaluation.policy_version is None:
        return evaluation.label
    saved = model.checkpoints.get(evaluation.policy_version)
    about = f"policy v{evaluation.policy_version}"
    if saved and saved != evaluation.label:
        about += f", checkpoint {saved}"
    return f"{evaluation.label} ({about})"
