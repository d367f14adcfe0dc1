"""What the dashboard works out by itself: gaps in curves, bands, bars, sessions, addresses."""

import asyncio
import csv
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import get_args

import pytest

from services.dashboard.categories import categories, measures_of, of_table
from services.dashboard.charts import Curve, lines, stacks
from services.dashboard.data_tables import Table
from services.dashboard.frame import Shell, Visit, ago
from services.dashboard.histories import lesson_of, people_of, timeline
from services.dashboard.numbers import held_out_curve, newest_phases, phases, reward_band, size
from services.dashboard.pages.gallery import read_query
from services.dashboard.pages.held_out import in_order, rows_of, spread_out
from services.dashboard.pages.key_forms import read_key
from services.dashboard.pages.workers import gpu, heard, pools_of
from services.dashboard.panels import Stamp, describe
from services.dashboard.pictures import verdicts
from services.dashboard.sessions import INVITE_LIFETIME, MAX_SESSIONS, Sessions
from services.labels.schemas.groups import GroupLease
from services.run_store.forms import GroupEvent
from services.runs_api.group_index import Image
from services.runs_api.held_out import Evaluation, HeldOutImage
from services.runs_api.library import Library
from services.runs_api.metric_table import Series, Stack
from services.runs_api.workers import Gpu, Worker
from services.web.auth import Credentials
from tests.labels.people import SettableClock
from tests.runs_api.people import NO_JOBS, Keys, NoAdmin, NoLabels
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


def test_a_band_lies_around_the_mean_is_missing_where_an_edge_is_and_breaks_with_it():
    numbers = [(0.5, 0.4, 0.6), (None, 0.4, None), (0.7, None, 1.0), (1.0, 0.75, 1.5)]
    times = (0.0, 9.0, 18.0, 400.0)
    table = told(
        *(
            (time, {"reward__r__mean": mean, "reward__r__p10": low, "reward__r__p90": high})
            for time, (mean, low, high) in zip(times, numbers, strict=True)
        )
    )
    low, width, mean = curves(reward_band(table, "r"))
    assert low["data"] == [[1, 0.4], [2, 0.4], [3, None], [3.5, None], [4, 0.75]]
    assert width["data"] == [[1, pytest.approx(0.2)], [2, None], [3, None], [3.5, None], [4, 0.75]]
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
                    "reward__r__p10": step % 5 / 5,
                    "reward__r__p90": step % 3 / 3 + 1,
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
    assert curve.band is not None
    low, high = curve.band
    assert len(curve.series.steps) <= 600
    assert low.steps == high.steps == curve.series.steps
    assert low.values == [step % 5 / 5 for step in low.steps]
    assert high.values == [step % 3 / 3 + 1 for step in high.steps]


def test_a_long_curve_has_its_silence_and_no_other_gap():
    times = (10.0 * step + (1000.0 if step > 3000 else 0.0) for step in range(1, 5001))
    table = told(*((time, {"x": time}) for time in times))
    (curve,) = curves(Curve("x", table.series("x", max_points=600)))
    (gap,) = (number for number, (_, value) in enumerate(curve["data"]) if value is None)
    before, after = curve["data"][gap - 1][0], curve["data"][gap + 1][0]
    assert before <= 3000 < after
    assert after - before < 40


def test_a_held_out_score_is_at_the_iteration_that_it_is_of():
    student = "evaluation__student__"
    table = told(
        (1.0, {f"{student}ocr": 0.25, f"{student}iteration": 0.0}),
        (2.0, {}),
        (3.0, {f"{student}ocr": 0.5, f"{student}iteration": 2.0}),
        (4.0, {f"{student}ocr": 0.75}),  # a run of old does not say
    )
    assert held_out_curve(table, "ocr").series.steps == [0, 2, 4]


def geneval():
    """What an evaluation tells of a reward with the part `strict`, and what training does."""
    tags = {"counting": 0.25, "a/b": 0.75, "tag_mean": 0.5}
    held_out = {"geneval": 0.4, "geneval/missing": 0.0, "geneval/std_error": 0.1}
    held_out |= {"geneval/strict": 0.3, "ocr": 0.9, "ocr/exact": 0.8, "iteration": 0.0}
    for measure in ("geneval", "geneval/strict"):
        held_out |= {f"{measure}/{tag}": value for tag, value in tags.items()}
    numbers = {f"evaluation/student/{name}": value for name, value in held_out.items()}
    trained = {"reward_by_tag/geneval/a/b": 0.5, "reward_by_tag/geneval/counting": 0.5}
    return numbers | trained | {"reward_by_tag/ocr/word": 1.0}


def test_categories_are_told_from_parts_counts_and_other_rewards():
    names = sorted(geneval())
    assert measures_of(names) == ["geneval", "geneval/strict"]
    assert categories(names, "geneval") == ["a/b", "counting", "tag_mean"]
    assert categories(names, "geneval/strict") == ["a/b", "counting", "tag_mean"]
    assert categories(names, "ocr") == []


def test_categories_have_curves_of_the_measure_and_of_its_reward():
    found = of_table(told((1.0, geneval())), "geneval/strict")
    assert [each.name for each in found.held_out] == [
        "geneval/strict/a/b",
        "geneval/strict/counting",
        "geneval/strict/tag_mean",
    ]
    assert found.held_out[1].series.values == [0.25]
    assert [each.name for each in found.trained] == ["geneval/a/b", "geneval/counting"]
    unevaluated = of_table(told((1.0, {"reward_by_tag/ocr/word": 1.0})), "")
    assert unevaluated.held_out == []
    assert [each.name for each in unevaluated.trained] == ["ocr/word"]


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


def test_who_signs_in_a_thousand_times_ends_sessions_of_their_own_alone(sessions):
    others, first = (asyncio.run(sessions.open(who)) for who in ("admin", "viewer"))
    for _ in range(MAX_SESSIONS):
        newest = asyncio.run(sessions.open("viewer"))
    assert ask(sessions, others).role == "admin"
    assert ask(sessions, newest).role == "viewer"
    assert ask(sessions, first) is None


def test_a_session_that_was_closed_is_of_no_use(sessions):
    cookie = asyncio.run(sessions.open("viewer"))
    sessions.close(cookie)
    assert ask(sessions, cookie) is None


def test_an_open_page_is_over_once_its_key_or_its_session_is(sessions, tmp_path):
    cookie, idle = (asyncio.run(sessions.open(role)) for role in ("viewer", "admin"))
    first, second = (
        Visit(
            Shell(Library(tmp_path), sessions, NoLabels(), NO_JOBS, NoAdmin()),
            ask(sessions, each),
            each,
            {},
        )
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
        (0.0, {"a": 0.5}),
        (1.0, {"a": 0.1, "b": 2.0, "lb": 0.25, "hb": 3.0}),
        (2.0, {"b": None, "lb": 0.5, "hb": None}),
    )
    mean, low, high = table.together(["b", "lb", "hb"])
    chart = lines([Curve("a", table.series("a")), Curve("b", mean, (low, high))])
    assert chart is not None
    assert chart.table == Table(
        ("iteration", "a", "b", "b, low", "b, high"),
        [[1, 0.5, None, None, None], [2, 0.1, 2.0, 0.25, 3.0], [3, None, None, 0.5, None]],
    )
    bars = stacks(Stack([(1, 1), (2, 4)], {"rollout": [0.5, 0.25], "reward": [None, 1.0]}))
    assert bars is not None
    assert bars.table.head == ("iterations", "rollout", "reward")
    assert bars.table.rows == [["1", 0.5, None], ["2-4", 0.25, 1.0]]


def test_what_rollout_and_rewards_do_is_as_they_told_last():
    table = told(
        (0.0, {"rollout__workers": 2.0, "rollout__images_per_s": 30.0}),
        (1.0, {"reward__ocr__workers": 3.0, "reward__ocr__queue_depth": 7.0}),
        (2.0, {"reward__ocr__latency_p50_s": 0.25, "reward__ocr__latency_p95_s": 1.5}),
        (3.0, {"reward__ocr__queue_depth": 9.0, "reward__people__open": 4.0}),
    )
    assert pools_of(table) == [
        ["rollout", "2", "-", "30", "-", "-", "-"],
        ["ocr", "3", "9", "-", "0.25 / 1.5", "-", "-"],
    ]


def test_a_table_as_a_file_is_exact_and_no_text_is_a_formula():
    table = Table(("=1+1", "b"), [["@x", 1 / 3], ["-2", -2.0], ["plain, too", None]])
    rows = list(csv.reader(io.StringIO(table.csv().decode())))
    assert rows == [["'=1+1", "b"], ["'@x", repr(1 / 3)], ["'-2", "-2.0"], ["plain, too", ""]]


def happened(event, time, version=0, **more):
    return GroupEvent(time=time, group_id=1, event=event, policy_version=version, **more)


def test_a_timeline_says_when_by_which_version_and_how_far_behind():
    said = timeline(
        [
            happened("generated", 100.0, 3, by=3),
            happened("judged", 102.5, 4, reward="ocr", states={"ready": 3, "failed": 1}),
            happened("surrogate", 104.0, 5, revision=2, weight=0.5),
        ],
        made_by=3,
    )
    assert [(each.after_s, each.policy_version, each.staleness) for each in said] == [
        (0.0, 3, 0),
        (2.5, 4, 1),
        (4.0, 5, 2),
    ]
    assert [each.text for each in said] == ["generated", "judged by ocr", "drawn by the surrogate"]
    assert [each.detail for each in said[1:]] == [
        "1 failed, 3 ready",
        "rewards' revision 2, weight 0.5",
    ]


def test_a_timeline_has_who_took_the_group_between_asked_and_labelled():
    noon = datetime(2026, 1, 2, 12, tzinfo=UTC)
    ended = noon + timedelta(seconds=8)
    leases = [
        GroupLease(state="submitted", granted_at=noon, finished_at=ended),
        GroupLease(state="live", granted_at=ended, finished_at=None),
    ]
    start = noon.timestamp()
    events = [happened("asked", start - 2, reward="human"), happened("labelled", start + 9)]
    said = timeline(events, made_by=0, leases=leases)
    assert [(each.after_s, each.text, each.detail) for each in said[1:3]] == [
        (2.0, "taken by a person", "submitted after 8.0 s"),
        (10.0, "taken by a person", "and held now"),
    ]
    assert [each.policy_version for each in said] == [0, None, None, 0]


def test_people_are_asked_then_heard_and_their_newest_word_counts():
    asked = [happened("asked", 1.0, reward="human")]
    assert people_of([]).state == "not asked"
    assert people_of(asked).state == "asked"
    parts = [{"n": 2.0, "rho": 0.5, "likes": 2.0}, {"n": 0.0, "rho": 0.0, "likes": 0.0}]
    first = happened(
        "labelled", 2.0, states={"ready": 2}, values=[[0.75], [0.5]], parts=parts, revision=1
    )
    heard = people_of([*asked, first, first.model_copy(update={"revision": 2, "version": "like"})])
    assert (heard.state, heard.revision, heard.question) == ("labelled", 2, "like")
    spreads = (0.75 * 0.25 / 5) ** 0.5, (0.5 * 0.5 / 3) ** 0.5  # k is 2
    assert heard.by_image == [
        (2.0, 2.0, 0.5, 0.75, pytest.approx(spreads[0])),
        (0.0, 0.0, 0.0, 0.5, pytest.approx(spreads[1])),
    ]
    silent = first.model_copy(update={"parts": [{"n": 0.0, "rho": 0.0}] * 2})
    assert [each[-1] for each in people_of([silent]).by_image] == [None, None]  # k is unknown
    late = happened("labelled", 3.0, states={"expired": 2}, reason="no answer", values=[[None]] * 2)
    assert (people_of([*asked, late]).state, people_of([late]).by_image) == ("expired", ())


def test_what_the_surrogate_learned_is_its_newest_draw_and_equal_steps_are_one():
    old = happened("surrogate", 1.0, advantages=[[9.0, 9.0]], rewards={"r": [[9.0, 9.0]]})
    new = happened(
        "surrogate",
        2.0,
        advantages=[[0.5, -0.5], [None, None]],
        rewards={"r": [[1.0, 1.0], [None, None]]},
    )
    lesson = lesson_of([old, new, happened("compared", 3.0, values=[[-0.25], [0.5]])])
    assert lesson is not None
    assert lesson.own == [[-0.25], [0.5]]
    assert lesson.num_draws == 2
    assert lesson.advantages() == [[0.5, -0.5], [None, None]]
    assert lesson.rewards() == {"r": [[1.0], [None]]}
    assert lesson_of([happened("generator", 1.0)]) is None


def test_every_event_has_words_of_its_own():
    names = get_args(GroupEvent.model_fields["event"].annotation)
    said = timeline([happened(name, 1.0, by=0, reward="r") for name in names], made_by=0)
    assert len({station.text for station in said}) == len(names)


def test_a_verdict_of_people_has_their_votes_and_a_missing_one_its_state():
    said = {
        "ocr": {"state": "ready", "value": 0.51234, "parts": {"exact": 1.0}},
        "human": {"state": "ready", "value": 0.6, "parts": {"n": 2.5, "likes": 2.0, "rho": 0.5}},
        "judge": {"state": "failed", "value": None},
    }
    image = Image(0, "a" * 64, [], None, said)
    assert verdicts(image) == "ocr 0.512, human 0.6 (2 of 2.5 like it), judge: failed"
    assert verdicts(replace(image, rewards={})) == "not judged"


def evaluation(number, *values, version=0):
    images = [
        HeldOutImage(i, f"p{i}", f"prompt {i}", "a" * 64, {"r": {"value": value}})
        for i, value in enumerate(values)
    ]
    return Evaluation(f"e{number}", float(number), version, tuple(images))


def test_of_many_evaluations_some_are_shown_the_first_and_the_last_among_them():
    many = [evaluation(number) for number in range(100)]
    assert [each.label for each in spread_out(many, 5)] == ["e0", "e25", "e50", "e74", "e99"]
    assert spread_out(many[:5], 5) == many[:5]


def test_prompts_are_in_the_order_of_their_change_and_those_without_come_last():
    rows = rows_of([evaluation(0, 0.0, 1.0, None, 1.0), evaluation(1, 1.0, 0.0, 1.0, 1.0)], "r")
    assert [row.change for row in rows] == [1.0, -1.0, None, 0.0]
    assert [row.prompt[-1] for row in in_order(rows, "gained")] == ["0", "3", "1", "2"]
    assert [row.prompt[-1] for row in in_order(rows, "lost")] == ["1", "3", "0", "2"]
    assert in_order(rows, "") == rows
    fewer = rows_of([evaluation(0, 0.0), evaluation(1, 0.5, 1.0), evaluation(2, 1.0, 1.0)], "r", 1)
    assert [row.change for row in fewer] == [0.5, 0.0]
    assert fewer[1].images[0] is None


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"days": "nan"}, "expires_in_days: Input should be"),
        ({"days": "inf"}, "expires_in_days: Input should be less than or equal to 3650"),
        ({"days": "soon"}, "days='soon' is no number; leave it empty for ever"),
        ({"name": " "}, "name: String should have at least 1 character"),
        ({"name": "a\x00"}, "name: .*no text"),
        ({"role": "god"}, "role: Input should be 'viewer', 'annotator', 'service' or 'admin'"),
    ],
)
def test_what_can_be_no_key_is_told_apart_before_it_is_made(fields, reason):
    with pytest.raises(ValueError, match=reason):
        read_key({"name": "a", "role": "viewer", "days": "90"} | fields)


def test_a_key_is_read_from_its_form():
    new = read_key({"name": " a ", "role": "annotator", "days": "", "scope labels:push": "on"})
    assert (new.name, new.expires_in_days, new.scopes) == ("a", None, ["labels:push"])
    assert new.annotator_id is None
