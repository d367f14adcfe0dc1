"""Who did what, of several logs in one order: pages without a gap, filters, what cannot be read."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from services.dashboard.trail import read_trail
from services.label_client.models import AuditRecord
from services.labels.audit import AuditFilter
from services.run_store import commands
from services.run_store.run_folder import RunFolder
from services.runs_api.jobs import Job, SampleIn, record
from services.web.pagination import pack, unpack

pytestmark = pytest.mark.unit
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
ALL = AuditFilter()
ID = f"{7:020d}-{7:08x}"


class Logs:
    """Label services' logs in memory, and one key's name."""

    def __init__(self, **logs):
        self.logs = {
            name: (lambda wanted, after, limit, rows=rows: self._read(rows, wanted, after, limit))
            for name, rows in logs.items()
        }

    def _read(self, rows, wanted, after, limit):
        found = sorted(rows, key=lambda row: (row.at, row.seq), reverse=True)
        if after is not None:
            found = [row for row in found if (row.at, row.seq) < after]
        return [row for row in found if wanted.actor in (None, row.actor)][:limit]

    def names(self, actors):
        return {actor: "ops" for actor in actors if actor == "key:1"}


def row(seq, second, actor="key:1", action="key.create", object="key"):
    at = NOON + timedelta(seconds=second)
    return AuditRecord(seq=seq, actor=actor, action=action, object=object, at=at)


def run_with(path, *commanded):
    """A run's folder; of each command its id, type and second."""
    (path / "commands").mkdir(parents=True)
    for id, type, second in commanded:
        at = NOON.timestamp() + second
        told = {"id": id, "type": type, "state": "applied", "by": "key:1", "arguments": {"a": 1}}
        text = json.dumps(told | {"times": {"requested": at, "applied": at + 1}})
        (path / "commands" / f"{id}.json").write_text(text)
    return RunFolder(path)


def pages(admin, runs, limit, wanted=ALL):
    """Every page's entries, by where and what."""
    found, cursor = [], None
    while True:
        trail = read_trail(admin, runs, wanted, cursor, limit)
        assert trail.faults == []
        found.append([(each.where, each.action, each.object) for each in trail.entries])
        cursor = trail.cursor
        if cursor is None:
            return found


@pytest.mark.parametrize("limit", [1, 2, 3, 50])
def test_pages_of_several_logs_have_no_gap_and_no_repeat_whatever_is_of_one_time(tmp_path, limit):
    admin = Logs(
        labels=[row(n, second, object=f"a{n}") for n, second in enumerate((0, 1, 1, 1, 4))],
        zoo=[row(n, second, object=f"z{n}") for n, second in enumerate((1, 1, 2, 4))],
    )
    runs = [
        run_with(tmp_path / "one", ("1", "pause", 1), ("2", "stop", 1)),
        run_with(tmp_path / "two", ("1", "set", 1), ("2", "stop", 3)),
    ]
    (whole,) = pages(admin, runs, 100)
    assert len(whole) == len(set(whole)) == 13
    assert [each for page in pages(admin, runs, limit) for each in page] == whole


def test_what_comes_meanwhile_moves_no_page(tmp_path):
    rows = [row(n, n, object=f"k{n}") for n in range(6)]
    admin = Logs(labels=rows)
    first = read_trail(admin, [], ALL, None, 3)
    rows.append(row(99, 99))
    second = read_trail(admin, [], ALL, first.cursor, 3)
    assert [each.object for each in second.entries] == ["k2", "k1", "k0"]
    assert second.cursor is None


def test_a_runs_deeds_tell_who_what_and_what_became_of_it(tmp_path):
    run = run_with(tmp_path / "run", ("1", "set", 1))
    (run.path / "jobs").mkdir()
    job = Job(
        id=ID,
        checkpoint="step_000002",
        asked=SampleIn(prompt="<img src=x onerror=alert(1)>", num_images=2),
        out=f"samples/{ID}",
        by="operator",
        key="k",
        started_at=NOON.timestamp() + 5,
    ).ended("it broke")
    record(run, ID).write_text(job.model_dump_json())
    told = [{"checkpoint": "step_000002", "at": NOON.timestamp() + 3, "by": ""}]
    (run.path / "promoted.json").write_text(json.dumps(told))
    trail = read_trail(Logs(), [run], ALL, None, 9)
    seen = [(e.actor, e.actor_name, e.action, e.object, e.outcome, e.detail) for e in trail.entries]
    prompt = "2 of: <img src=x onerror=alert(1)>; it broke"
    assert seen == [
        ("operator", None, "checkpoint.sample", "step_000002", "failed", prompt),
        ("cli", None, "checkpoint.promote", "step_000002", "done", ""),
        ("key:1", "ops", "command.set", "run", "applied", "a=1"),
    ]


def test_filters_hold_for_runs_too_and_a_run_is_an_object(tmp_path):
    runs = [run_with(tmp_path / name, ("1", "pause", 1), ("2", "stop", 5)) for name in "ab"]

    def found(**wanted):
        trail = read_trail(Logs(), runs, AuditFilter(**wanted), None, 9)
        return [(each.where, each.action) for each in trail.entries]

    assert found(object="a") == [("a", "command.stop"), ("a", "command.pause")]
    assert found(action="command.pause") == [("b", "command.pause"), ("a", "command.pause")]
    late = found(since=NOON + timedelta(seconds=5))
    assert late == [("b", "command.stop"), ("a", "command.stop")]
    assert found(actor="key:2") == []


def test_what_cannot_be_read_is_said_and_hides_nothing_else(tmp_path):
    def away(wanted, after, limit):
        raise ValueError("http://labels refuses: 403")

    admin = Logs(labels=[row(0, 0)])
    admin.logs["http://labels"] = away
    run = run_with(tmp_path / "run", ("1", "pause", 1))
    (run.path / "promoted.json").write_text("[{}]")
    # Of a file that is no command the run says so itself.
    (run.path / "commands" / "0.json").write_text("{}")
    assert commands.unanswered(run.path) == []
    trail = read_trail(admin, [run], ALL, None, 9)
    assert [each.action for each in trail.entries] == [
        "command.unreadable",
        "command.pause",
        "key.create",
    ]
    first, second = trail.faults
    assert first == "The audit log of http://labels cannot be read: http://labels refuses: 403"
    assert second.startswith("Of run run not everything can be read: ")


@pytest.mark.parametrize(
    "cursor",
    ["x", "\xe9", "W10=", "WyIyMDI2LTAxLTAxVDEyOjAwOjAwIiwgImxhYmVscyIsICIxIl0="],
)
def test_a_cursor_that_no_page_had_is_refused_with_what_helps(cursor):
    with pytest.raises(ValueError, match=r"before=.* is no place in this log; leave it out"):
        read_trail(Logs(), [], ALL, cursor, 9)


def test_a_cursor_of_another_log_with_a_number_that_no_row_has_is_refused():
    first = read_trail(Logs(labels=[row(n, n) for n in range(2)]), [], ALL, None, 1)
    time, log, _ = unpack(str(first.cursor), 3)
    for id in ("-1", str(2**63), "x"):
        with pytest.raises(ValueError, match="no place in this log"):
            read_trail(Logs(), [], ALL, pack([time, log, id]), 9)
