"""Labels: how fast they come, what waits for people, what they like, whether they agree; for admins
also who they are."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from statistics import mean
from typing import Any

from fastapi import Request
from nicegui import ui

from services.dashboard.charts import Chart, columns
from services.dashboard.data_tables import Cell, Table
from services.dashboard.dialogs import answered
from services.dashboard.elements import bars, button, chip, empty, link, table, tag, tile
from services.dashboard.frame import Shell, Visit, ago, outline
from services.dashboard.numbers import duration, percent, short
from services.dashboard.panels import Board, Stamp, clock
from services.labels.pace import Seconds
from services.labels.reward_queue import MAX_RECEIVES
from services.labels.statistics import ANSWERS, Labeller, Lease, Minute, Statistics
from services.runs_api.library import OpenRun
from tdm_core.clustered_share import FEW, Share

RECENT = 5
"""Whole minutes that the present pace is of."""
NOT_CONNECTED = (
    "No label service is connected: the database that this dashboard has holds keys alone."
)
REMEDIES = (
    "Where both shall run here: tdm-r1 serve --runs RUNS, and an admin makes a question.",
    "Where its data lie in another folder of this machine: tdm-r1 dashboard --data FOLDER.",
    "Where it runs elsewhere: tdm-r1 dashboard --labels-url http://HOST:PORT, with a key of role "
    "viewer or admin in the environment as TDMR1_LABELS_KEY (or labels_url and labels_key in the "
    "settings file).",
)


@dataclass(frozen=True)
class Model:
    """What the page shows."""

    stamp: Stamp
    found: Statistics | None
    """None where no label service is connected."""


def load(shell: Shell, run_id: str | None, with_names: bool) -> Model:
    """Everything as it is now."""
    found = shell.labels.look(run_id, with_names)
    at = time.time() if found is None else found.at.timestamp()
    return Model(Stamp(at), found)


def pace(minutes: Sequence[Minute]) -> float | None:
    """Labels a minute, lately; None where that cannot be told."""
    recent = [minute.num_labels for minute in minutes[-RECENT:]]
    return mean(recent) if recent else None


async def draw(visit: Visit, run: OpenRun | None) -> None:
    """Its panels, of a run or of all."""
    with_names = visit.principal.role == "admin"
    run_id = run.id if run else None
    board = Board(run_id or "all-runs", lambda: load(visit.shell, run_id, with_names))
    ask = partial(_ask, visit, board, tag("div"))  # outside the panels, which are drawn anew
    if run is not None:
        with tag("p", classes="quiet"):
            link("All runs together", "/labels")

    def panels() -> None:
        panel = partial(_panel, board)
        panel("State", _state, lambda found: (_counts(found), pace(found.minutes)), wide=True)
        board.chart(
            "Labels a minute",
            lambda model: _minutes(model.found),
            wide=True,
            note="Gold is left out, and the minute that is not over.",
        )
        panel("Time per group", _times, lambda found: found.pace, True, _time_table)
        panel("Groups by state", _groups, lambda found: found.queue.groups, numbers=_states)
        panel("Agreement and gold", _quality, _agreement)
        panel("What people like", _likes, lambda found: found.questions, wide=True)
        panel("Who labels", _people, lambda found: found.for_admins, wide=True)
        panel("Held now", partial(_leases, ask), lambda found: found.for_admins, wide=True)
        rewards = lambda found: (found.rewards, found.for_admins)  # noqa: E731
        panel("Rewards on their way", _rewards, rewards, wide=True)

    await board.start(panels)


def register(shell: Shell) -> None:
    """The page of all runs, at /labels."""

    @ui.page("/labels", response_timeout=30)
    async def page(request: Request) -> None:
        visit = Visit.of(shell, request)
        with outline(visit, None, "Labels of all runs"):
            await draw(visit, None)


def _panel(
    board: Board[Model],
    title: str,
    fill: Any,
    of: Any,
    wide: bool = False,
    numbers: Any = lambda found: None,
) -> None:
    """A panel of what was found; the first one says where nothing can be."""

    def show(model: Model) -> None:
        if model.found is not None:
            fill(model.found)
        elif title == "State":
            tag("p", NOT_CONNECTED)
            for remedy in REMEDIES:
                tag("p", remedy, "quiet")
        else:
            empty("No label service is connected.")

    board.panel(
        title,
        show,
        wide,
        of=lambda model: model.found and of(model.found),
        numbers=lambda model: model.found and numbers(model.found),
    )


def _counts(found: Statistics) -> tuple[Any, ...]:
    return found.num_labels, found.num_active, found.queue, found.rewards, found.newest_at


def _state(found: Statistics) -> None:
    queue = found.queue
    if found.run_id is not None and not any(queue.groups.values()):
        tag("p", "No group of this run is at the label service: it has asked nobody.", "quiet")
    with tag("dl", classes="tiles"):
        tile("labels a minute", short(pace(found.minutes)), f"over {RECENT} minutes")
        tile("labels", str(found.num_labels), since("newest", found.newest_at, found.at))
        tile("people at work", str(found.num_active), "in the last 15 minutes")
        tile(
            "open groups",
            str(queue.groups["open"]),
            since("oldest", queue.oldest_open_at, found.at),
        )
        tile("answers wanted", str(queue.num_wanted), f"{queue.num_leases} groups are held")
        waiting = found.rewards.depth + found.rewards.in_flight
        oldest = since("oldest", found.rewards.oldest_created_at, found.at)
        tile("rewards not taken", str(waiting), oldest)
        tile("dead letters", str(found.rewards.dead))


def since(what: str, then: datetime | None, now: datetime) -> str:
    """How long ago, where that is known."""
    return "" if then is None else f"{what} {ago((now - then).total_seconds())}"


def _minutes(found: Statistics | None) -> Chart | None:
    if found is None or not found.minutes:
        return None
    starts = [f"{minute.start:%H:%M}" for minute in found.minutes]
    return columns("minute", starts, {"labels": [minute.num_labels for minute in found.minutes]})


def _times(found: Statistics) -> None:
    with tag("dl", classes="tiles"):
        for name, times in _kinds(found):
            if times is None:
                tile(f"{name}, median", "-")
                continue
            note = f"90% within {duration(times.p90)}, {times.num_groups} groups"
            tile(f"{name}, median", duration(times.median), note)
        tile("groups ready an hour", short(found.pace.ready_an_hour), "lately: an hour at most")
    tag(
        "p",
        f"Of the groups that the newest {ANSWERS} answers are of, by the service's clock. A "
        "person's time on a group runs from when they had it and had answered the one before: one "
        "that waits in their browser takes none. Their breaks are in it.",
        "quiet",
    )


def _time_table(found: Statistics) -> Table:
    rows: list[list[Cell]] = [
        [name, times and times.median, times and times.p90, times and times.num_groups]
        for name, times in _kinds(found)
    ]
    return Table(("time", "median s", "90% within s", "groups"), rows)


def _kinds(found: Statistics) -> tuple[tuple[str, Seconds | None], ...]:
    return (
        ("a person on a group", found.pace.on_a_group),
        ("from put to ready", found.pace.until_ready),
    )


def _groups(found: Statistics) -> None:
    groups = found.queue.groups
    total = sum(groups.values())
    if not total:
        empty("No group is or was here.")
        return
    bars([(state, num / total, f"{num} ({num / total:.0%})") for state, num in groups.items()])


def _states(found: Statistics) -> Table:
    return Table(("state", "groups"), [[state, num] for state, num in found.queue.groups.items()])


def _quality(found: Statistics) -> None:
    gold = found.gold
    with tag("dl", classes="tiles"):
        tile("alpha", short(found.alpha), _about_alpha(found))
        tile("right on gold", _share(gold.accuracy), _answers(gold.accuracy))
        tile("gold groups", str(gold.num_groups), "that are asked")
        tile("suspended", str(gold.num_suspended), "too often wrong on gold")
        tile("shut out", str(gold.num_excluded), "by an admin")
    tag(
        "p",
        "Krippendorff's alpha: 1 is agreement, 0 chance; unknown where no image has two judges. "
        f"Its interval is over groups, {FEW} at least; none where nobody disagrees. "
        "Gold, and who is suspended or shut out, is of the whole service.",
        "quiet",
    )


def _agreement(found: Statistics) -> tuple[Any, ...]:
    return found.alpha, found.alpha_interval, found.num_shared_images, found.gold


def _about_alpha(found: Statistics) -> str:
    ends = found.alpha_interval
    interval = f"95% {ends[0]:.2f} to {ends[1]:.2f}, " if ends else ""
    return f"{interval}over {found.num_shared_images} images of several people"


def _answers(share: Share | None) -> str:
    if share is None:
        return ""
    return f"{_interval(share)}, {share.num:.0f} answers of {share.num_clusters} people"


def _share(share: Share | None) -> str:
    return percent(share and share.value)


def _interval(share: Share | None) -> str:
    return "-" if share is None else f"{share.low:.0%} to {share.high:.0%}"


def _likes(found: Statistics) -> None:
    if not found.questions:
        empty("Nothing is asked.")
        return
    rows = [
        [
            each.question_id,
            _share(each.like_rate),
            _interval(each.like_rate),
            str(each.num_likes),
            str(each.num_dislikes),
            str(each.num_unsure),
            str(each.num_skips),
            str(each.like_rate.num_clusters if each.like_rate else 0),
        ]
        for each in found.questions
    ]
    head = ("question", "like rate", "95%", "likes", "dislikes", "unsure", "skipped", "groups")
    table(head, rows, "Like rate of each question")
    tag(
        "p",
        f"Of the newest {ANSWERS} answers of people whose votes count. Votes on one group resemble "
        "one another, and the interval knows it.",
        "quiet",
    )


def _people(found: Statistics) -> None:
    if found.for_admins is None:
        empty("Only an admin's key sees who labels.")
        return
    if not found.for_admins.people:
        empty("Nobody has labelled yet.")
        return
    head = ("name", "votes", "median time", "like rate", "right on gold", "state", "look at")
    table(head, [_person(each) for each in found.for_admins.people], "Who labels")
    tag(
        "p",
        f"Votes are likes and dislikes among the newest {ANSWERS}. A flag is a reason to look, "
        "never a sentence.",
        "quiet",
    )


def _person(person: Labeller) -> list[Any]:
    habits = person.habits
    state, tone = habits.state, "calm" if habits.state == "active" else "bad"
    if habits.state == "active" and person.weight == 0:
        state, tone = "suspended", "bad"
    latency = habits.median_latency_ms
    return [
        person.name,
        str(habits.num_votes),
        "-" if latency is None else f"{latency / 1000:.1f} s",
        percent(habits.like_rate),
        f"{person.gold_right} of {person.gold_answered}" if person.gold_answered else "-",
        lambda: chip(state, tone),
        ", ".join(habits.flags) or "-",
    ]


def _leases(ask: Callable[[Lease], Any], found: Statistics) -> None:
    if found.for_admins is None:
        empty(f"{found.queue.num_leases} groups are held. Only an admin's key sees by whom.")
        return
    if not found.for_admins.leases:
        empty("Nobody holds a group.")
        return
    rows = [
        [
            each.group_id,
            each.name,
            str(each.num_unanswered),
            clock(each.granted_at.timestamp()),
            clock(each.expires_at.timestamp()),
            lambda lease=each: _take_back(ask, lease),
        ]
        for each in found.for_admins.leases
    ]
    head = ("group", "by", "left to answer", "since", "until", "take back")
    table(head, rows, "Groups that are held")


def _take_back(ask: Callable[[Lease], Any], lease: Lease) -> None:
    what = f"Take {lease.group_id} back from {lease.name}"
    button("Take back", lambda: ask(lease), "plain", aria_label=what)


async def _ask(visit: Visit, board: Board[Model], dialogs: Any, lease: Lease) -> None:
    with dialogs:
        if await _agreed(lease):
            await _revoke(visit, lease)
            await board.refresh()


async def _agreed(lease: Lease) -> bool:
    title = f"Take {lease.group_id} back?"
    with ui.dialog() as dialog, tag("div", classes="dialog panel"):
        dialog.props["aria-label"] = title
        tag("h2", title)
        tag("p", f"It goes to whoever asks next, and never again to {lease.name}.")
        note = "What they send all the same counts while nobody else has been given it."
        tag("p", note, "quiet")
        with tag("div", classes="actions"):
            button("Cancel", lambda: dialog.submit(False), "plain", autofocus=True)
            button("Take back", lambda: dialog.submit(True))
    return bool(await answered(dialog))


async def _revoke(visit: Visit, lease: Lease) -> None:
    principal = await visit.is_admin_still()
    if principal is None:
        ui.notify("Your key may not take groups back (any more).", type="negative")
        return
    try:
        state = await asyncio.to_thread(visit.shell.labels.revoke, lease.assignment_id, principal)
    except ValueError as error:
        ui.notify(str(error), type="negative")
        return
    if state == "revoked":
        ui.notify(f"{lease.group_id} is taken back from {lease.name}.", type="positive")
    else:
        ui.notify(f"{lease.group_id} was not held any more: {state}.", type="info")


def _rewards(found: Statistics) -> None:
    rewards = found.rewards
    with tag("dl", classes="tiles"):
        tile("waiting", str(rewards.depth))
        tile("handed out", str(rewards.in_flight), "not acknowledged yet")
        tile("dead", str(rewards.dead), f"handed out {MAX_RECEIVES} times in vain")
    if not rewards.dead:
        return
    if found.for_admins is None:
        tag("p", "Only an admin's key sees which are dead, and why.", "quiet")
        return
    rows = [
        [each.group_id, each.reason, clock(each.created_at.timestamp())]
        for each in found.for_admins.dead_letters
    ]
    table(("group", "reason", "since"), rows, "Dead letters")
    tag("p", "POST /reward-queue/dead-letters:redrive puts them back into the queue.", "quiet")
