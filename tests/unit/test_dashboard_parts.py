"""What the dashboard works out by itself: gaps in curves, bands, bars, sessions, addresses."""

import asyncio

import pytest

from services.dashboard.charts import Curve, lines, stacks, with_gaps
from services.dashboard.frame import Shell, Visit, ago
from services.dashboard.numbers import size
from services.dashboard.pages.gallery import read_query
from services.dashboard.panels import Stamp, describe
from services.dashboard.sessions import INVITE_LIFETIME, Sessions
from services.runs_api.library import Library
from services.runs_api.metric_table import Series
from services.web.auth import Credentials
from tests.labels.people import SettableClock
from tests.runs_api.people import Keys

pytestmark = pytest.mark.unit


def series(*values, times=None, steps=None):
    steps = list(steps or range(1, len(values) + 1))
    times = list(times or (10.0 * step for step in steps))
    return Series("x", steps, times, steps, list(values), len(values))


def test_a_silence_is_a_gap_and_never_a_flat_line():
    silent = series(1.0, 2.0, 3.0, 4.0, times=[0.0, 10.0, 20.0, 500.0])
    assert with_gaps(silent) == [[1, 1.0], [2, 2.0], [3, 3.0], [3.5, None], [4, 4.0]]


def test_slow_iterations_are_no_silence():
    assert with_gaps(series(1.0, 2.0, 3.0, times=[0.0, 100.0, 250.0])) == [
        [1, 1.0],
        [2, 2.0],
        [3, 3.0],
    ]
    assert with_gaps(series(1.0, None)) == [[1, 1.0], [2, None]]


def test_a_band_lies_around_the_mean_and_is_missing_where_either_is():
    chart = lines([Curve("r", series(0.5, None, 1.0), series(0.1, 0.1, steps=[1, 2]))])
    low, width, mean = chart["series"]
    assert low["data"] == [[1, 0.4], [2, None], [3, None]]
    assert width["data"] == [[1, 0.2], [2, None], [3, None]]
    assert mean["data"][0] == [1, 0.5]


def test_bars_of_parts_that_some_iterations_lack_stand_at_their_own():
    chart = stacks({"a": series(1.0, 2.0), "b": series(5.0, steps=[2])})
    assert chart["xAxis"]["data"] == [1, 2]
    assert [each["data"] for each in chart["series"]] == [[1.0, 2.0], [None, 5.0]]
    assert stacks({}) is None


def test_no_label_of_a_chart_is_markup():
    assert lines([Curve("<b>", series(1.0))])["tooltip"]["renderMode"] == "richText"


def test_a_chart_is_told_in_words():
    assert describe("Reward", lines([Curve("geneval", series(0.5, 0.75))])) == (
        "Reward. Newest: geneval 0.75."
    )


def test_a_stamp_says_when_and_of_what():
    assert str(Stamp(None)) == "no data yet"
    assert str(Stamp(0.0, 3, 2)) == "as of 1970-01-01 00:00 UTC - iteration 3 - policy v2"


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
        Visit(Shell(Library(tmp_path), sessions), ask(sessions, each), each, {})
        for each in (cookie, idle)
    )
    assert not asyncio.run(first.is_over())
    sessions._keys.roles.remove("viewer")
    assert asyncio.run(first.is_over())
    assert not asyncio.run(second.is_over())
    sessions._clock.advance(13 * 3600)
    assert asyncio.run(second.is_over())
