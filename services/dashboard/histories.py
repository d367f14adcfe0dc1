"""What the events of a group say, in words: where it has been, what people said, what was learned
from it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from services.labels.schemas.groups import GroupLease
from services.run_store.forms import GroupEvent

Steps = Sequence[float | None]
"""One value a denoising step."""


@dataclass(frozen=True)
class Station:
    """A line of the timeline."""

    time: float
    """Unix seconds."""
    after_s: float
    """Seconds since the group was generated."""
    text: str
    detail: str
    policy_version: int | None = None
    """The trainer's then; None where it was not told."""
    staleness: int | None = None
    """By how many versions the group was behind it."""


@dataclass(frozen=True)
class People:
    """What people did with a group."""

    state: str
    """`not asked`, `asked`, `labelled` or `expired`."""
    revision: int
    question: str
    reason: str
    by_image: Sequence[tuple[float | None, ...]]
    """Of each image of the whole group: votes n, likes among them, their weight rho, the posterior
    mean mu and its standard deviation."""


@dataclass(frozen=True)
class Lesson:
    """What the surrogate learned from a group, at its newest draw."""

    event: GroupEvent
    num_draws: int
    own: Sequence[Steps]
    """What the surrogate itself made of each image before; empty where people said nothing."""

    def advantages(self) -> list[Steps]:
        """By image; equal in all steps are one."""
        return _shortened(self.event.advantages)

    def rewards(self) -> dict[str, list[Steps]]:
        """The same of every reward."""
        return {name: _shortened(rows) for name, rows in self.event.rewards.items()}


def timeline(
    events: Sequence[GroupEvent], made_by: int, leases: Sequence[GroupLease] = ()
) -> list[Station]:
    """Every event and lease in words, oldest first; the group is by policy version `made_by`."""
    start = events[0].time if events else 0.0
    held = [
        Station(granted, granted - start, "taken by a person", _until(lease))
        for lease in leases
        for granted in [lease.granted_at.timestamp()]
    ]
    happened = [
        Station(
            event.time,
            event.time - start,
            *_words(event),
            event.policy_version,
            event.policy_version - made_by,
        )
        for event in events
    ]
    return sorted([*happened, *held], key=lambda station: station.time)


def _until(lease: GroupLease) -> str:
    if lease.finished_at is None:
        return "and held now"
    return f"{lease.state} after {(lease.finished_at - lease.granted_at).total_seconds():.1f} s"


def people_of(events: Iterable[GroupEvent]) -> People:
    """Where people are with a group."""
    found = People("not asked", 0, "", "", ())
    for event in events:
        if event.event == "asked":
            found = People("asked", 0, "", "", ())
        elif event.event == "labelled":
            known = [row[-1] if row else None for row in event.values]
            parts = [*event.parts, *({} for _ in known[len(event.parts) :])]
            k = _prior_weight(parts)
            by_image = [
                (*(part.get(name) for name in ("n", "likes", "rho")), mu, _spread(mu, part, k))
                for mu, part in zip(known, parts, strict=False)
            ]
            state = "labelled" if event.states.get("ready") else "expired"
            about = (event.revision, event.version, event.reason)
            found = People(state, *about, by_image if state == "labelled" else ())
    return found


def _prior_weight(parts: Iterable[Mapping[str, float]]) -> float | None:
    """k of rho = n / (n + k), the same in the whole group; None where nobody voted."""
    votes = ((part.get("n", 0.0), part.get("rho", 0.0)) for part in parts)
    return next((n / rho - n for n, rho in votes if rho > 0), None)


def _spread(mu: float | None, part: Mapping[str, float], k: float | None) -> float | None:
    """Of a Beta posterior: sd = sqrt(mu (1 - mu) / (n + k + 1))."""
    if mu is None or k is None or not 0 <= mu <= 1:
        return None
    return math.sqrt(mu * (1 - mu) / (part.get("n", 0.0) + k + 1))


def lesson_of(events: Iterable[GroupEvent]) -> Lesson | None:
    """The newest draw of the surrogate's learner; None where it has not drawn the group."""
    events = list(events)
    drawn = [event for event in events if event.event == "surrogate"]
    own = [event.values for event in events if event.event == "compared"]
    return Lesson(drawn[-1], len(drawn), own[-1] if own else []) if drawn else None


def _words(event: GroupEvent) -> tuple[str, str]:
    """What happened, and more of it."""
    states = ", ".join(f"{count} {state}" for state, count in sorted(event.states.items()))
    said = "; ".join(part for part in (states, event.reason) if part)
    match event.event:
        case "generated":
            return "generated", f"by policy v{event.by}"
        case "judged":
            took = f"took {event.latency_s:.2f} s" if event.latency_s else ""
            return f"judged by {event.reward}", "; ".join(part for part in (said, took) if part)
        case "asked":
            return "people were asked", event.reward
        case "labelled":
            votes = sum(part.get("n", 0.0) for part in event.parts)
            heard = f"{votes:.0f} votes, revision {event.revision}; " if votes else ""
            return "labelled by people" if votes else "people gave no answer", heard + said
        case "generator":
            return "drawn by the generator", ""
        case "surrogate":
            about = f"rewards' revision {event.revision}, weight {event.weight:.3g}"
            return "drawn by the surrogate", about
        case "compared":
            return "the surrogate's own rewards beside people's", ""
    return "left the buffer", ""


def _shortened(rows: Sequence[Steps]) -> list[Steps]:
    """Rows of one column where all columns say the same (`terminal` rewards)."""
    same = all(len(set(row)) <= 1 for row in rows)
    return [row[:1] if same else row for row in rows]
