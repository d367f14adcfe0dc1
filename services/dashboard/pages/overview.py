"""Overview: is it well, how far is it, does the reward rise, who waits for whom."""

from dataclasses import dataclass
from typing import Any

from services.dashboard.charts import Curve, lines
from services.dashboard.data_tables import Cell, Table
from services.dashboard.elements import bars, chip, empty, link, tag, tile
from services.dashboard.frame import TONES, Shell, Visit
from services.dashboard.numbers import (
    BAND,
    duration,
    evaluation_names,
    held_out_curve,
    newest,
    newest_phases,
    percent,
    reward_band,
    reward_names,
    short,
    waiting_for_rewards,
)
from services.dashboard.pages.labels import pace, since
from services.dashboard.panels import Board, Stamp
from services.dashboard.pictures import on_disk, thumbnail
from services.run_store.news import waits_of
from services.runs_api.alerts import Alert
from services.runs_api.group_index import Group, GroupQuery
from services.runs_api.library import OpenRun

SHOWN_GROUPS = 6
SHOWN_FACTS = ("state", "iteration", "iterations", "error")
WINDOW = 20
"""Newest iterations that the time left is worked out from."""


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    facts: dict[str, Any]
    labels: list[tuple[str, str, str]]
    numbers: dict[str, float | None]
    eta_s: float | None
    num_to_judge: float | None
    """Images that wait for a reward; None where no reward told."""
    rewards: list[Curve]
    held_out: list[Curve]
    phases: dict[str, float]
    alerts: list[Alert]
    groups: list[Group]
    there: frozenset[str]


TILES = {
    "rollout/images_per_s": "images/s",
    "advantage/zero_signal": "without contrast",
    "replay/held": "groups held",
}
READERS = ("generator", "surrogate")
STALENESS = [f"replay/staleness_{who}_{which}" for who in READERS for which in ("p50", "p95")]


def load(shell: Shell, run: OpenRun) -> Model:
    """Everything as it is now."""
    facts = run.facts()
    labels = label_tiles(shell, run.id)
    with run.numbers() as table:
        points = {name: table.latest(name) for name in (*TILES, *STALENESS)}
        rewards = [reward_band(table, name) for name in reward_names(table.names)]
        held_out = [held_out_curve(table, name) for name in evaluation_names(table)]
        spent = newest_phases(table, WINDOW)
        waiting = [table.latest(name) for name in waiting_for_rewards(table)]
        stamp = newest(table, run)
        recent = list(table.times[-WINDOW:])
    left = (facts.get("iterations") or 0) - (facts.get("iteration") or 0)
    speed = (recent[-1] - recent[0]) / (len(recent) - 1) if len(recent) > 1 else None
    with run.images() as index:
        groups, _ = index.page(GroupQuery(), SHOWN_GROUPS)
    return Model(
        stamp,
        {name: facts.get(name) for name in SHOWN_FACTS} | {"waiting": waits_of(facts)},
        labels,
        {name: point.value if point else None for name, point in points.items()},
        left * speed if speed is not None and facts["state"] == "running" else None,
        sum(point.value or 0 for point in waiting if point) if waiting else None,
        rewards,
        held_out,
        spent,
        [alert for alert in run.alerts() if alert.cleared_at is None],
        groups,
        on_disk(run, groups),
    )


def label_tiles(shell: Shell, run_id: str) -> list[tuple[str, str, str]]:
    """Name, value and note; none where nobody is asked. Whatever is wrong there, the run's own
    numbers are shown."""
    try:
        found = shell.labels.look(run_id, with_names=False)
    except ValueError as error:
        return [("labels", "-", str(error))]
    if found is None or not any(found.queue.groups.values()):
        return []
    queue = found.queue
    return [
        ("labels a minute", short(pace(found.minutes)), f"{found.num_labels} so far"),
        ("open groups", str(queue.groups["open"]), since("oldest", queue.oldest_open_at, found.at)),
        ("answers wanted", str(queue.num_wanted), f"{queue.num_leases} groups are held"),
    ]


async def draw(visit: Visit, run: OpenRun) -> None:
    """Its panels."""
    board = Board(run.id, lambda: load(visit.shell, run))

    def panels() -> None:
        board.panel("State", _state, wide=True)
        board.chart(
            "Reward of the rollouts",
            lambda model: lines(model.rewards),
            note=BAND,
        )
        board.chart("Held-out score", lambda model: lines(model.held_out))
        board.panel("Who waits on whom", _waits, numbers=_seconds)
        board.panel("Alerts that last", lambda m: _alerts(run, m), of=lambda m: m.alerts)
        board.panel("Newest groups", lambda m: _groups(run, m), wide=True, of=_shown_groups)

    await board.start(panels)


def _shown_groups(model: Model) -> object:
    return model.groups, model.there


def _state(model: Model) -> None:
    facts = model.facts
    with tag("dl", classes="tiles"):
        total = f" of {facts['iterations']}" if facts["iterations"] is not None else ""
        tile("iteration", f"{facts['iteration']}{total}")
        tile("policy version", short(model.stamp.policy_version, 6))
        if model.eta_s is not None:
            tile("time left", duration(model.eta_s, 0), "at the newest pace")
        for name, title in TILES.items():
            value = model.numbers[name]
            text = percent(value) if name.endswith("zero_signal") else short(value)
            tile(title, text)
        tile("images to judge", short(model.num_to_judge), "in the rewards' queues")
        for reader in READERS:
            half, most = (
                short(model.numbers[f"replay/staleness_{reader}_{which}"])
                for which in ("p50", "p95")
            )
            tile(f"staleness, {reader}", f"{half} / {most}", "median / 95% of the newest draw")
        for name, value, note in model.labels:
            tile(name, value, note)
    for wait in facts["waiting"]:
        tag("p", f"waiting for {wait}", "quiet")
    if facts["error"]:
        tag("pre", str(facts["error"]), "log", tabindex="0")


def _seconds(model: Model) -> Table | None:
    rows: list[list[Cell]] = [[name, seconds] for name, seconds in model.phases.items()]
    return Table(("phase", "seconds"), rows) if rows else None


def _waits(model: Model) -> None:
    total = sum(model.phases.values())
    if not total:
        empty("Nothing told yet.")
        return
    longest_first = sorted(model.phases.items(), key=lambda item: -item[1])
    bars(
        (name, seconds / total, f"{seconds:.1f} s ({seconds / total:.0%})")
        for name, seconds in longest_first
    )
    tag(
        "p",
        f"Seconds over the newest {WINDOW} iterations. In an async run phases overlap; the longest "
        "is who the others wait on.",
        "quiet",
    )


def _alerts(run: OpenRun, model: Model) -> None:
    if not model.alerts:
        empty("None.")
    for alert in model.alerts:
        with tag("p"):
            chip(alert.severity, TONES[alert.severity])
            tag("span", f" {alert.title}. {alert.detail}")
    link("All alerts", f"/runs/{run.id}/alerts")


def _groups(run: OpenRun, model: Model) -> None:
    if not model.groups:
        empty("No image is stored yet (telemetry.images_every).")
    with tag("div", classes="strip"):
        for group in model.groups:
            with link("", f"/runs/{run.id}/groups/{group.group_id}", "card"):
                thumbnail(run, group.images[0], group.prompt, model.there)
                tag("span", group.prompt, "prompt")
