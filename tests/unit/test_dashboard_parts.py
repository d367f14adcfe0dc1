"""What the dashboard works out by itself: gaps in curves, bands, bars, sessions, addresses."""

import asyncio
import csv
import io
from dataclasses import replace

import pytest

from services.dashboard.charts import Curve, lines, stacks
from services.dashboard.data_tables import Table
from services.dashboard.frame import Shell, Visit, ago
from services.dashboard.numbers import newest_phases, phases, reward_band, size
from services.dashboard.pages.gallery import read_query
from services.dashboard.pages.workers import gpu, heard
from services.dashboard.panels import Stamp, describe
from services.dashboard.sessions import INVITE_LIFETIME, Sessions
from services.runs_api.library import Library
from services.runs_api.metric_table import Series, Stack
from services.runs_api.workers import Gpu, Worker
from services.web.auth import Credentials
from tests.labels.people import SettableClock
from tests.runs_api.people import Keys, NoLabels
from tests.unit.test_run_curves import line, table_of

pytestmark = pytest.mark.unit


def series(*values):
    steps = list(range(1, len(values) + 1))
    return Series("x", steps, [10.0 * step for step in steps], steps, list(values), len(steps), [])


def told(*lines):
    """A table of lines that are (time, numbers); the numbers' `__` is `/`."""
    return table_of(
        *(line(step, **numbers) | {"time": time} for step, (time, numbers) in enumerate(lines, 1))
    )


def curves(*curves):
    """The series of a chart with these curves."""
    chart = lines(curves)
    assert chart is not None
    return chart.options["series"]


def bars(table):
    """The chart of its phases."""
    chart = stacks(phases(table))
    assert chart is not None
    return chart.options


def test_a_silence_is_a_gap_and_never_a_flat_line():
    table = told(*((time, {"x": time}) for time in (0.0, 10.0, 20.0, 500.0)))
    (curve,) = curves(Curve("x", table.series("x")))
    assert curve["data"] == [[1, 0.0], [2, 10.0], [3, 20.0], [3.5, None], [4, 500.0]]


def test_slow_iterations_and_missing_numbers_are_no_silence():
    table = told((0.0, {"x": 1.0}), (100.0, {"x": None}), (250.0, {"x": 3.0}))
    (curve,) = curves(Curve("x", table.series("x")))
    assert curve["data"] == [[1, 1.0], [2, None], [3, 3.0]]


def test_a_band_lies_around_the_mean_is_missing_where_either_is_and_breaks_with_it():
    numbers = [(0.5, 0.1), (None, 0.1), (0.7, None), (1.0, 0.25)]
    times = (0.0, 9.0, 18.0, 400.0)
    table = told(
        *(
            (time, {"reward__r__mean": mean, "reward__r__std": std})
            for time, (mean, std) in zip(times, numbers, strict=True)
        )
    )
    low, width, mean = curves(reward_band(table, "r"))
    assert low["data"] == [[1, 0.4], [2, None], [3, None], [3.5, None], [4, 0.75]]
    assert width["data"] == [[1, 0.2], [2, None], [3, None], [3.5, None], [4, 0.5]]
    assert mean["data"] == [[1, 0.5], [2, None], [3, 0.7], [3.5, None], [4, 1.0]]


def long_run(num):
    """Phases whose peaks are at different iterations, and a reward whose band has its own."""
    return told(
        *(
            (
                10.0 * step,
                {
                    "seconds__sync": 1.0 + 5.0 * (step % 7 == 0),
                    "seconds__train": 2.0 + 9.0 * (step % 11 == 0),
                    "seconds__iteration": 12.0,
                    "seconds__reward__ocr": 1.0,
                    "reward__r__mean": step % 13 / 13,
                    "reward__r__std": step % 5 / 5,
                },
            )
            for step in range(1, num + 1)
        )
    )


def test_the_parts_of_a_long_runs_bars_are_means_of_the_same_iterations():
    table = long_run(5000)
    chart = bars(table)
    assert [part["name"] for part in chart["series"]] == ["sync", "train"]
    columns = list(zip(*(part["data"] for part in chart["series"]), strict=True))
    assert len(columns) == len(chart["xAxis"]["data"]) == 200
    assert chart["xAxis"]["data"][1] == "26-50"
    steps = range(26, 51)
    means = [
        sum(1.0 + 5.0 * (step % 7 == 0) for step in steps) / 25,
        sum(2.0 + 9.0 * (step % 11 == 0) for step in steps) / 25,
    ]
    assert columns[1] == pytest.approx(means)


def test_a_part_that_some_iterations_lack_took_no_time_in_them():
    table = told(
        (1.0, {"seconds__a": 1.0}),
        (2.0, {"seconds__a": 3.0, "seconds__b": 8.0}),
        (3.0, {"seconds__a": None}),
        (4.0, {"seconds__b": 5.0}),
    )
    assert table.stack(["seconds/a", "seconds/b"], 2) == Stack(
        [(1, 2), (3, 4)], {"seconds/a": [2.0, None], "seconds/b": [4.0, 2.5]}
    )
    assert bars(table)["xAxis"]["data"] == ["1", "2", "3", "4"]
    assert stacks(phases(told((1.0, {"x": 1.0})))) is None


def test_who_waits_on_whom_is_of_the_newest_iterations_however_long_the_run():
    steps = range(4981, 5001)
    spent = newest_phases(long_run(5000), 20)
    assert spent == {
        "sync": sum(1.0 + 5.0 * (step % 7 == 0) for step in steps),
        "train": sum(2.0 + 9.0 * (step % 11 == 0) for step in steps),
    }
    assert newest_phases(told(), 20) == {}


def test_a_long_runs_band_is_of_the_iterations_that_its_curve_shows():
    curve = reward_band(long_run(5000), "r")
    assert curve.spread is not None
    assert len(curve.series.steps) <= 600
    assert curve.spread.steps == curve.series.steps
    assert curve.spread.values == [step % 5 / 5 for step in curve.series.steps]


def test_a_long_curve_has_its_silence_and_no_other_gap():
    times = (10.0 * step + (1000.0 if step > 3000 else 0.0) for step in range(1, 5001))
    table = told(*((time, {"x": time}) for time in times))
    (curve,) = curves(Curve("x", table.series("x", max_points=600)))
    (gap,) = (number for number, (_, value) in enumerate(curve["data"]) if value is None)
    before, after = curve["data"][gap - 1][0], curve["data"][gap + 1][0]
    assert before <= 3000 < after
    assert after - before < 40


def test_no_label_of_a_chart_is_markup():
    chart = lines([Curve("<b>", series(1.0))])
    assert chart is not None
    assert chart.options["tooltip"]["renderMode"] == "richText"


def test_a_chart_is_told_in_words():
    chart = lines([Curve("geneval", series(0.5, 0.75))])
    assert chart is not None
    assert describe("Reward", chart.options) == "Reward. Newest: geneval 0.75."


def test_a_stamp_says_when_and_of_what():
    assert str(Stamp(None)) == "no data yet"
    assert str(Stamp(0.0, 3, 2)) == "as of 1970-01-01 00:00 UTC - iteration 3 - policy v2"
    assert str(Stamp(0.0, num_skipped=2)).endswith("UTC - 2 unreadable lines left out")


def test_sizes_and_ages_are_readable():
    assert [size(n) for n in (10, 2048, 5 * 2**20, 3 * 2**40)] == [
        "10 B",
        "2.0 KiB",
        "5.0 MiB",
        "3072.0 GiB",
    ]
    assert [ago(s) for s in (3, 119, 121, 7300, 200_000)] == [
        "3 s ago",
        "119 s ago",
        "2 min ago",
        "2 h ago",
        "2 d ago",
    ]


@pytest.mark.parametrize(
    ("state", "seconds", "text"),
    [
        ("alive", -3, "just now"),
        ("alive", 9, "just now"),
        ("alive", 64, "60 s ago"),
        ("dead", 7300, "2 h ago"),
        ("unknown", 300, "5 min ago"),
        ("ended", 300, "-"),
    ],
)
def test_who_has_not_answered_for_long_looks_so(state, seconds, text):
    worker = Worker("judge-0", "judge", state, [7], 0, None, heard_at=1000.0)
    assert heard(worker, 1000.0 + seconds) == text
    assert heard(replace(worker, heard_at=None), 1000.0) == "-"


def test_a_worker_without_a_gpu_has_a_gap_and_no_zero():
    worker = Worker("judge-0", "judge", "alive", [7], 0, None)
    assert gpu(worker) == "-"
    cards = [Gpu("H100", 3 * 2**30, 80 * 2**30, 0.0), Gpu("H100", 2**30, 80 * 2**30, None)]
    said = "3.0 GiB of 80.0 GiB, 0% busy; 1.0 GiB of 80.0 GiB"
    assert gpu(replace(worker, gpus=cards)) == said
    assert gpu(replace(worker, gpus=cards, state="unknown")) == "-"


def test_an_address_that_makes_no_sense_is_no_filter():
    query = read_query(
        {
            "sort": "x",
            "min_reward": "nan",
            "max_reward": "1e999",
            "from_step": "-3",
            "state": "odd",
            "contrast": "maybe",
            "prompt": "",
        },
        ["judge"],
    )
    bounds = (query.min_reward, query.max_reward, query.from_step, query.state, query.contrast)
    assert (query.sort, query.reward, query.prompt) == ("newest", "judge", None)
    assert bounds == (None,) * 5
    assert read_query({"sort": "best"}, []).sort == "newest"


@pytest.fixture
def sessions():
    return Sessions(Keys(("viewer", "annotator", "admin")), SettableClock())


def ask(sessions, cookie):
    return asyncio.run(sessions(Credentials(cookie=cookie)))


def test_a_session_is_worth_its_key_as_long_as_that_lives(sessions):
    cookie = asyncio.run(sessions.open("viewer"))
    principal = ask(sessions, cookie)
    assert (principal.kind, principal.role) == ("session", "viewer")
    assert principal.csrf_token
    sessions._keys.roles.remove("viewer")
    assert ask(sessions, cookie) is None


def test_annotators_and_strangers_get_no_session(sessions):
    assert asyncio.run(sessions.open("annotator")) is None
    assert asyncio.run(sessions.open("nobody")) is None
    assert ask(sessions, "tdmr1s_made-up") is None


def test_a_link_is_worth_one_session_and_not_for_long(sessions):
    link = sessions.invite()
    cookie = asyncio.run(sessions.open(link))
    assert ask(sessions, cookie).role == "admin"
    assert asyncio.run(sessions.open(link)) is None
    late = sessions.invite()
    sessions._clock.advance(INVITE_LIFETIME.total_seconds())
    assert asyncio.run(sessions.open(late)) is None


def test_a_session_that_nobody_uses_ends(sessions):
    cookie = asyncio.run(sessions.open("viewer"))
    sessions._clock.advance(11 * 3600)
    assert ask(sessions, cookie) is not None
    sessions._clock.advance(13 * 3600)
    assert ask(sessions, cookie) is None


def test_a_session_that_was_closed_is_of_no_use(sessions):
    cookie = asyncio.run(sessions.open("viewer"))
    sessions.close(cookie)
    assert ask(sessions, cookie) is None


def test_an_open_page_is_over_once_its_key_or_its_session_is(sessions, tmp_path):
    cookie, idle = (asyncio.run(sessions.open(role)) for role in ("viewer", "admin"))
    first, second = (
        Visit(Shell(Library(tmp_path), sessions, NoLabels()), ask(sessions, each), each, {})
        for each in (cookie, idle)
    )
    assert not asyncio.run(first.is_over())
    sessions._keys.roles.remove("viewer")
    assert asyncio.run(first.is_over())
    assert not asyncio.run(second.is_over())
    sessions._clock.advance(13 * 3600)
    assert asyncio.run(second.is_over())


def test_a_charts_table_has_every_iteration_that_any_curve_tells_of():
    table = told(
        (0.0, {"a": 0.5}), (1.0, {"a": 0.1, "b": 2.0, "sb": 0.25}), (2.0, {"b": None, "sb": 0.5})
    )
    mean, spread = table.together(["b", "sb"])
    chart = lines([Curve("a", table.series("a")), Curve("b", mean, spread)])
    assert chart is not None
    assert chart.table == Table(
        ("iteration", "a", "b", "b, std"),
        [[1, 0.5, None, None], [2, 0.1, 2.0, 0.25], [3, None, None, 0.5]],
    )
    bars = stacks(Stack([(1, 1), (2, 4)], {"rollout": [0.5, 0.25], "reward": [None, 1.0]}))
    assert bars is not None
    assert bars.table.head == ("iterations", "rollout", "reward")
    assert bars.table.rows == [["1", 0.5, None], ["2-4", 0.25, 1.0]]


def test_a_table_as_a_file_is_exact_and_no_text_is_a_formula():
    table = Table(("=1+1", "b"), [["@x", 1 / 3], ["-2", -2.0], ["plain, too", None]])
    rows = list(csv.reader(io.StringIO(table.csv().decode())))
    assert rows == [["'=1+1", "b"], ["'@x", repr(1 / 3)], ["'-2", "-2.0"], ["plain, too", ""]]
