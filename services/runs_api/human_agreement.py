"""What people said of a run's groups, beside what the surrogate and the automatic rewards make of
the same images: kept from groups.jsonl, compared when something new was told.

The surrogate is heard before it learns from a group's labels; later it would grade its own
homework, and is not heard.
"""

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tdm_core.human_agreement import Agreement, Bin, Score, Voted, agreement, like_rates, places

TABLE = """
CREATE TABLE labelled (group_id INTEGER PRIMARY KEY, time REAL, revision INTEGER, made_by INTEGER,
    likes REAL, votes REAL, said TEXT);
CREATE TABLE compared (group_id INTEGER PRIMARY KEY, surrogate TEXT, finals TEXT);
"""
SURROGATE = "the surrogate"
"""No reward can be called so."""
WINDOW = 2000
"""Newest labelled groups that judges are compared over; like rates are of all."""


@dataclass(frozen=True)
class Judge:
    """One judge against people."""

    name: str
    """A reward's, or `the surrogate`."""
    is_ranked: bool
    """Scores are places within the group, 0 the lowest and 1 the highest: across groups they do not
    compare."""
    agreement: Agreement


@dataclass(frozen=True)
class HumanAgreement:
    """People against the others."""

    num_groups: int
    """That people labelled."""
    num_votes: float
    num_compared: int
    """Of them, those that others have judged too, of the newest."""
    like_rates: list[Bin]
    """By the policy version that made the images, oldest first."""
    judges: list[Judge]


class LabelledGroups:
    """Tables in a private database, filled with lines of groups.jsonl. Not for two threads."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._database.executescript(TABLE)
        self._found: HumanAgreement | None = None

    def add(self, events: Iterable[Mapping[str, Any]]) -> None:
        """More lines; one told twice is one."""
        for event in events:
            if event["event"] == "labelled":
                self._label(event)
            elif event["event"] == "compared":
                self._compare(event)

    def agreement(self) -> HumanAgreement:
        """As of what is told by now."""
        if self._found is None:
            self._found = self._agreement()
        return self._found

    def _label(self, event: Mapping[str, Any]) -> None:
        """The newest revision stands. Where the label service does not tell likes among the votes,
        nothing is known of them."""
        said = [(each.get("likes", -1.0), each.get("n", 0.0)) for each in event.get("parts", [])]
        if not said or not all(0 <= likes <= votes for likes, votes in said):
            return
        about = event["group_id"], event["time"], event.get("revision", 0), event.get("by")
        sums = [sum(column) for column in zip(*said, strict=True)]
        self._database.execute(
            "INSERT INTO labelled VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (group_id) DO UPDATE SET"
            " time = excluded.time, revision = excluded.revision, likes = excluded.likes,"
            " votes = excluded.votes, said = excluded.said,"
            " made_by = coalesce(excluded.made_by, made_by)"
            " WHERE excluded.revision >= revision",
            (*about, *sums, json.dumps(said)),
        )
        self._found = None

    def _compare(self, event: Mapping[str, Any]) -> None:
        values = [each[0] if each else None for each in event.get("values", [])]
        self._database.execute(
            "INSERT OR IGNORE INTO compared VALUES (?, ?, ?)",
            (event["group_id"], json.dumps(values), json.dumps(event.get("finals", {}))),
        )
        self._found = None

    def _agreement(self) -> HumanAgreement:
        sums = self._database.execute("SELECT made_by, likes, votes FROM labelled").fetchall()
        rates = like_rates(
            (made_by, place, Voted(likes, votes, None))
            for place, (made_by, likes, votes) in enumerate(sums)
            if made_by is not None and votes > 0
        )
        rows = self._database.execute(
            "SELECT said, surrogate, finals FROM labelled JOIN compared USING (group_id)"
            " ORDER BY time DESC LIMIT ?",
            (WINDOW,),
        )
        groups = [tuple(json.loads(text) for text in row) for row in rows]
        judges = [
            Judge(SURROGATE, True, _agreement((said, places(own)) for said, own, _ in groups))
        ]
        for name in sorted({name for *_, finals in groups for name in finals}):
            told = _agreement((said, finals.get(name, [])) for said, _, finals in groups)
            judges.append(Judge(name, False, told))
        num_votes = sum(votes for *_, votes in sums)
        return HumanAgreement(len(sums), num_votes, len(groups), rates, judges)


def _agreement(
    groups: Iterable[tuple[Sequence[tuple[float, float]], Sequence[Score]]],
) -> Agreement:
    """Votes by image and scores by image; a group whose judge told of other images is left out."""
    return agreement(
        [
            [Voted(likes, votes, score) for (likes, votes), score in zip(said, scores, strict=True)]
            for said, scores in groups
            if len(said) == len(scores)
        ]
    )
