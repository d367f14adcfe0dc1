"""What images a run has stored, by prompt group, and what happened to those groups: a private
database over images/index.jsonl and groups.jsonl.

It is filled as they grow and lives on the disk's temporary space for as long as it is open,
so that ten thousand groups cost neither memory nor a second reading.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from services.run_store.forms import GroupEvent
from services.runs_api.human_agreement import LabelledGroups

Sort = Literal["newest", "oldest", "best", "worst"]
Place = tuple[float | None, int]
"""Where a page ended: the score sorted by (None: without one, or sorted by number), and group."""

TABLES = """
CREATE TABLE groups (id INTEGER PRIMARY KEY, step INTEGER, policy_version INTEGER,
    prompt_id TEXT, prompt TEXT, sigmas TEXT);
CREATE INDEX groups_by_prompt ON groups (prompt_id, id);
CREATE INDEX groups_by_step ON groups (step);
CREATE TABLE images (group_id INTEGER, sample INTEGER, digest TEXT, predictions TEXT,
    PRIMARY KEY (group_id, sample)) WITHOUT ROWID;
CREATE TABLE files (digest TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE removed (digest TEXT PRIMARY KEY, rule TEXT) WITHOUT ROWID;
CREATE TABLE verdicts (group_id INTEGER, sample INTEGER, reward TEXT, step INTEGER, state TEXT,
    value REAL, said TEXT, PRIMARY KEY (group_id, reward, sample)) WITHOUT ROWID;
CREATE INDEX verdicts_by_value ON verdicts (reward, step, value);
CREATE TABLE scores (reward TEXT, group_id INTEGER, mean REAL, spread REAL,
    PRIMARY KEY (group_id, reward)) WITHOUT ROWID;
CREATE INDEX scores_by_mean ON scores (reward, mean, group_id);
CREATE TABLE events (group_id INTEGER, time REAL, event TEXT, reward TEXT, line TEXT,
    PRIMARY KEY (group_id, time, event, reward)) WITHOUT ROWID;
"""
BEGIN = "generated"
"""The event that every history begins with."""
ABOUT_A_GROUP = ("group_id", "step", "policy_version", "prompt_id", "prompt")
SCORE = """
INSERT OR REPLACE INTO scores
SELECT reward, group_id, avg(value), max(value) - min(value) FROM verdicts
WHERE group_id = ? GROUP BY reward
"""


@dataclass(frozen=True)
class Image:
    """One stored image and what each reward said of it."""

    sample: int
    digest: str
    predictions: Sequence[str]
    """Digests of the clean predictions of every step but the last; empty where not recorded."""
    removed_by: str | None
    """The rule of retention that named it; another group may show the same file still."""
    rewards: Mapping[str, Mapping[str, Any]]
    """Reward name to `state`, `value` (null unless ready), `reason` and maybe `parts`."""

    @property
    def path(self) -> list[str]:
        """Digests of what it was predicted to be after every step; the last is the image."""
        return [*self.predictions, self.digest]


@dataclass(frozen=True)
class Score:
    """A reward over the images of a group that it has judged."""

    mean: float | None
    spread: float | None
    """Highest minus lowest; 0 is a group without contrast."""


@dataclass(frozen=True)
class Group:
    """The stored images of one prompt."""

    group_id: int
    step: int
    policy_version: int
    prompt_id: str
    prompt: str
    sigmas: Sequence[float]
    """Noise levels of its path, one more than steps; empty where not recorded."""
    images: list[Image]
    scores: Mapping[str, Score]

    @property
    def num_steps(self) -> int:
        """Denoising steps whose pictures are stored, the final image's among them."""
        return 1 + max((len(image.predictions) for image in self.images), default=0)


@dataclass(frozen=True)
class GroupQuery:
    """Which groups, in what order; None is no condition."""

    sort: Sort = "newest"
    reward: str | None = None
    """Whose scores `best`, `worst` and the two bounds speak of."""
    min_reward: float | None = None
    """An image of the group has at least this."""
    max_reward: float | None = None
    """And that one has at most this."""
    from_step: int | None = None
    to_step: int | None = None
    min_version: int | None = None
    max_version: int | None = None
    prompt: str | None = None
    """Part of the prompt's text."""
    prompt_id: str | None = None
    state: str | None = None
    """A reward's verdict on an image of the group is in this state."""
    contrast: bool | None = None
    """Whether `reward` tells the images of the group apart."""


class GroupIndex:
    """Not for two threads at once."""

    def __init__(self) -> None:
        self._database = sqlite3.connect("", check_same_thread=False, isolation_level=None)
        self._database.executescript(TABLES)
        self.labelled = LabelledGroups(self._database)

    def close(self) -> None:
        """Give its space back."""
        self._database.close()

    def add(self, appearances: Iterable[Mapping[str, Any]]) -> None:
        """Lines of the image store's index; a group told again is replaced."""
        lines = list(appearances)
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT OR REPLACE INTO groups VALUES (?, ?, ?, ?, ?, ?)", map(_group, lines)
        )
        self._database.executemany(
            "INSERT OR REPLACE INTO images VALUES (?, ?, ?, ?)", map(_image, lines)
        )
        self._database.executemany(
            "INSERT OR IGNORE INTO files VALUES (?)",
            [
                (digest,)
                for line in lines
                for digest in (line["digest"], *line.get("predictions", ()))
            ],
        )
        self._judge(row for line in lines for row in _verdicts(line))
        touched = {line["group_id"] for line in lines}
        self._hear(touched)
        self._database.executemany(SCORE, [(group_id,) for group_id in touched])
        self._database.execute("COMMIT")

    def add_events(self, events: Iterable[Mapping[str, Any]]) -> None:
        """Lines of groups.jsonl; one told twice is one, and a group that a resumed run has made
        again begins anew."""
        lines = list(events)
        self._database.execute("BEGIN")
        self._database.executemany(
            "INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?)", map(_event, lines)
        )
        begun = [(line["group_id"], line["time"]) for line in lines if line["event"] == BEGIN]
        self._database.executemany("DELETE FROM events WHERE group_id = ? AND time < ?", begun)
        self.labelled.add(lines)
        labelled = {line["group_id"] for line in lines if line["event"] == "labelled"}
        self._hear(labelled)
        self._database.executemany(SCORE, [(group_id,) for group_id in labelled])
        self._database.execute("COMMIT")

    def add_tombstones(self, tombstones: Iterable[Mapping[str, Any]]) -> None:
        """Lines of images/removed.jsonl. What another group still shows is there all the same."""
        rows = [(digest, line["rule"]) for line in tombstones for digest in line["digests"]]
        self._database.executemany("INSERT OR REPLACE INTO removed VALUES (?, ?)", rows)

    def removed_by(self, digest: str) -> str | None:
        """The rule that an image was removed by, if it was."""
        query = "SELECT rule FROM removed WHERE digest = ?"
        found = self._database.execute(query, (digest,)).fetchone()
        return found[0] if found else None

    def _judge(self, rows: Iterable[tuple[Any, ...]]) -> None:
        insert = "INSERT OR REPLACE INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?)"
        self._database.executemany(insert, rows)

    def _hear(self, group_ids: Iterable[int]) -> None:
        """What people said of stored images counts as what other judges said."""
        for group_id in group_ids:
            labelled = [each for each in self.history(group_id) if each.event == "labelled"]
            if labelled:
                rows = self._database.execute(
                    "SELECT sample, step FROM images JOIN groups ON id = group_id WHERE id = ?",
                    (group_id,),
                ).fetchall()
                self._judge(_label(each, *row) for each in labelled for row in rows)

    def history(self, group_id: int) -> list[GroupEvent]:
        """What has happened to a group, oldest first; nothing in runs of old."""
        select = "SELECT line FROM events WHERE group_id = ? ORDER BY time"
        rows = self._database.execute(select, (group_id,))
        return [GroupEvent.model_validate_json(line) for (line,) in rows]

    def count(self) -> int:
        """Groups that there are."""
        return self._database.execute("SELECT count(*) FROM groups").fetchone()[0]

    def steps_beside(self, first: int | None, last: int | None) -> tuple[int | None, int | None]:
        """The stored iterations next before `first` and next after `last`; without bounds the
        newest, and none."""
        query = "SELECT max(step) FROM groups WHERE ?1 IS NULL OR step < ?1"
        (before,) = self._database.execute(query, (first,)).fetchone()
        query = "SELECT min(step) FROM groups WHERE step > ?"
        (after,) = self._database.execute(query, (last,)).fetchone()
        return before, after

    def rewards(self) -> list[str]:
        """Names of the rewards that have judged."""
        found = self._database.execute("SELECT DISTINCT reward FROM scores ORDER BY reward")
        return [name for (name,) in found]

    def has_image(self, digest: str) -> bool:
        """Whether the run ever stored that image."""
        query = "SELECT 1 FROM files WHERE digest = ?"
        return self._database.execute(query, (digest,)).fetchone() is not None

    def group(self, group_id: int) -> Group | None:
        """One group."""
        found = self._groups("g.id = ?", [group_id], "g.id", 1)
        return found[0] if found else None

    def page(
        self, query: GroupQuery, limit: int, after: Place | None = None
    ) -> tuple[list[Group], Place | None]:
        """Groups in order, from behind the place `after`; and the next place, if there is more."""
        conditions, values = _conditions(query)
        order, beyond, more = _order(query, after)
        where = " AND ".join(f"({part})" for part in (*conditions, *beyond)) or "1"
        join = (query.reward,) if query.sort in ("best", "worst") else ()
        groups = self._groups(where, [*join, *values, *more], order, limit + 1, bool(join))
        if len(groups) <= limit:
            return groups, None
        last = groups[limit - 1]
        score = last.scores.get(query.reward or "")
        return groups[:limit], (score.mean if join and score else None, last.group_id)

    def histogram(
        self, reward: str, from_step: int | None, to_step: int | None, num_bins: int
    ) -> tuple[list[float], list[int]]:
        """Edges of equal bins over the verdicts of some iterations, and how many are in each."""
        where = "reward = ? AND value IS NOT NULL AND step BETWEEN ? AND ?"
        first, last = from_step or 0, 2**62 if to_step is None else to_step
        select = f"SELECT min(value), max(value) FROM verdicts WHERE {where}"
        low, high = self._database.execute(select, (reward, first, last)).fetchone()
        if low is None:
            return [], []
        width = (high - low) / num_bins or 1.0 / num_bins
        rows = self._database.execute(
            "SELECT min(cast((value - ?) / ? AS INTEGER), ?) AS bin, count(*) FROM verdicts"
            f" WHERE {where} GROUP BY bin",
            (low, width, num_bins - 1, reward, first, last),
        )
        counts = [0] * num_bins
        for number, count in rows:
            counts[number] = count
        return [low + width * edge for edge in range(num_bins + 1)], counts

    def _groups(
        self, where: str, values: Sequence[Any], order: str, limit: int, scored: bool = False
    ) -> list[Group]:
        join = "LEFT JOIN scores s ON s.group_id = g.id AND s.reward = ?" if scored else ""
        rows = self._database.execute(
            f"SELECT g.* FROM groups g {join} WHERE {where} ORDER BY {order} LIMIT ?",
            (*values, limit),
        ).fetchall()
        return [self._group(*row) for row in rows]

    def _group(
        self, id: int, step: int, version: int, prompt_id: str, prompt: str, sigmas: str
    ) -> Group:
        levels, images, scores = json.loads(sigmas), self._images(id), self._scores(id)
        return Group(id, step, version, prompt_id, prompt, levels, images, scores)

    def _images(self, group_id: int) -> list[Image]:
        rows = self._database.execute(
            "SELECT sample, i.digest, predictions, rule FROM images i"
            " LEFT JOIN removed r ON r.digest = i.digest WHERE group_id = ? ORDER BY sample",
            (group_id,),
        ).fetchall()
        said = self._database.execute(
            "SELECT sample, reward, said FROM verdicts WHERE group_id = ?", (group_id,)
        )
        rewards: dict[int, dict[str, Any]] = {sample: {} for sample, *_ in rows}
        for sample, reward, verdict in said:
            rewards[sample][reward] = json.loads(verdict)
        return [
            Image(sample, digest, json.loads(predictions), rule, rewards[sample])
            for sample, digest, predictions, rule in rows
        ]

    def _scores(self, group_id: int) -> dict[str, Score]:
        rows = self._database.execute(
            "SELECT reward, mean, spread FROM scores WHERE group_id = ?", (group_id,)
        )
        return {reward: Score(mean, spread) for reward, mean, spread in rows}


def _group(line: Mapping[str, Any]) -> tuple[Any, ...]:
    return (*(line[name] for name in ABOUT_A_GROUP), json.dumps(line.get("sigmas", [])))


def _image(line: Mapping[str, Any]) -> tuple[Any, ...]:
    predictions = json.dumps(line.get("predictions", []))
    return line["group_id"], line["sample"], line["digest"], predictions


def _event(line: Mapping[str, Any]) -> tuple[Any, ...]:
    about = (line[name] for name in ("group_id", "time", "event"))
    return *about, line.get("reward", ""), json.dumps(line)


def _verdicts(line: Mapping[str, Any]) -> Iterator[tuple[Any, ...]]:
    about = line["group_id"], line["sample"]
    for reward, said in line["rewards"].items():
        yield (*about, reward, line["step"], said["state"], said["value"], json.dumps(said))


def _label(event: GroupEvent, sample: int, step: int) -> tuple[Any, ...]:
    """What people said of one image, as a verdict."""
    value = event.values[sample][-1] if sample < len(event.values) else None
    state = "ready" if value is not None else next(iter(event.states.keys() - {"ready"}), "failed")
    said = {
        "state": state,
        "value": value,
        "reason": "" if value is not None else event.reason,
        "version": event.version,
        "parts": event.parts[sample] if sample < len(event.parts) else {},
    }
    return event.group_id, sample, event.reward, step, state, value, json.dumps(said)


def _conditions(query: GroupQuery) -> tuple[list[str], list[Any]]:
    verdict = "EXISTS (SELECT 1 FROM verdicts v WHERE v.group_id = g.id AND {})"
    bounds = {"v.value >= ?": query.min_reward, "v.value <= ?": query.max_reward}
    bounded = {text: value for text, value in bounds.items() if value is not None}
    score = "EXISTS (SELECT 1 FROM scores c WHERE c.group_id = g.id AND c.reward = ? AND {})"
    wanted: list[tuple[str, list[Any]]] = [
        ("g.step >= ?", [query.from_step]),
        ("g.step <= ?", [query.to_step]),
        ("g.policy_version >= ?", [query.min_version]),
        ("g.policy_version <= ?", [query.max_version]),
        ("instr(lower(g.prompt), lower(?))", [query.prompt or None]),
        ("g.prompt_id = ?", [query.prompt_id]),
        (verdict.format("v.state = ?"), [query.state]),
    ]
    if bounded:
        text = " AND ".join(["v.reward = ?", *bounded])
        wanted.append((verdict.format(text), [query.reward, *bounded.values()]))
    if query.contrast is not None:
        text = score.format("c.spread > 0" if query.contrast else "c.spread = 0")
        wanted.append((text, [query.reward]))
    given = [(text, values) for text, values in wanted if values[0] is not None]
    return [text for text, _ in given], [value for _, values in given for value in values]


def _order(query: GroupQuery, after: Place | None) -> tuple[str, list[str], list[Any]]:
    """ORDER BY, and the condition of what lies behind `after`; groups without a score come last."""
    if query.sort in ("newest", "oldest"):
        down = query.sort == "newest"
        beyond = ["g.id < ?" if down else "g.id > ?"] if after else []
        return f"g.id {'DESC' if down else 'ASC'}", beyond, [after[1]] if after else []
    direction, sign = ("DESC", "<") if query.sort == "best" else ("ASC", ">")
    order = f"s.mean IS NULL, s.mean {direction}, g.id DESC"
    if after is None:
        return order, [], []
    score, group_id = after
    if score is None:
        return order, ["s.mean IS NULL AND g.id < ?"], [group_id]
    beyond = f"s.mean IS NULL OR s.mean {sign} ? OR (s.mean = ? AND g.id < ?)"
    return order, [beyond], [score, score, group_id]
