"""The gallery's index: filters, sorting, pages without gap or repeat, histograms."""

from collections import Counter
from functools import partial

import pytest

from services.runs_api.group_index import GroupIndex, GroupQuery

pytestmark = pytest.mark.unit


def appearance(group_id, sample, value, step=0, state="ready", prompt="two red balls", **more):
    said = {"state": state, "value": value, "reason": ""}
    return {
        "digest": f"{group_id:032x}{sample:032x}",
        "step": step,
        "group_id": group_id,
        "sample": sample,
        "policy_version": step,
        "prompt_id": f"p{group_id % 3}",
        "prompt": prompt,
        "rewards": {"judge": said},
    } | more


@pytest.fixture
def index():
    made = GroupIndex()
    for group_id, rewards in enumerate([(0.0, 1.0), (1.0, 1.0), (None, None), (0.0, 0.0)]):
        made.add(
            appearance(
                group_id,
                sample,
                value,
                step=group_id // 2,
                state="ready" if value is not None else "failed",
                prompt="100% blue_square" if group_id == 1 else "two red balls",
            )
            for sample, value in enumerate(rewards)
        )
    return made


def ids(index, limit=10, after=None, **query):
    return [group.group_id for group in index.page(GroupQuery(**query), limit, after)[0]]


def test_groups_are_sorted_by_number_or_by_score_and_a_missing_score_comes_last(index):
    assert ids(index) == [3, 2, 1, 0]
    assert ids(index, sort="oldest") == [0, 1, 2, 3]
    assert ids(index, sort="best", reward="judge") == [1, 0, 3, 2]
    assert ids(index, sort="worst", reward="judge") == [3, 0, 1, 2]


@pytest.mark.parametrize("sort", ["newest", "oldest", "best", "worst"])
def test_pages_hold_every_group_once_however_they_are_cut(index, sort):
    query = GroupQuery(sort=sort, reward="judge")
    whole = [group.group_id for group in index.page(query, 10)[0]]
    for limit in (1, 2, 3):
        found, place = [], None
        while True:
            groups, place = index.page(query, limit, place)
            found += [group.group_id for group in groups]
            if place is None:
                break
        assert found == whole


def test_a_group_that_arrives_meanwhile_moves_no_edge(index):
    first, place = index.page(GroupQuery(), 2)
    index.add([appearance(9, 0, 0.5)])
    assert [group.group_id for group in first] == [3, 2]
    assert ids(index, after=place) == [1, 0]


def work(num_groups):
    """Steps of the database's machine for each of the gallery's questions."""
    index = GroupIndex()
    index.add(
        appearance(group, sample, group % 7) for group in range(num_groups) for sample in (0, 1)
    )
    asked = {
        "newest": partial(index.page, GroupQuery(), 12),
        "next": partial(index.page, GroupQuery(), 12, (None, num_groups // 2)),
        "same prompt": partial(index.page, GroupQuery("oldest", prompt_id="p1"), 12),
        "one": partial(index.group, num_groups // 2),
        "contrast": partial(index.page, GroupQuery(reward="judge", contrast=False), 12),
    }
    steps = Counter()
    for name, ask in asked.items():
        index._database.set_progress_handler(partial(steps.update, [name]), 1)
        ask()
    return steps


def test_a_page_of_a_large_run_is_as_much_work_as_one_of_a_small_run():
    small, large = work(100), work(4000)
    assert small.keys() == large.keys()
    assert {name: large[name] for name in large if large[name] > 1.2 * small[name]} == {}


def test_filters_speak_of_images_scores_prompts_and_versions(index):
    assert ids(index, reward="judge", min_reward=1.0) == [1, 0]
    assert ids(index, reward="judge", max_reward=0.0) == [3, 0]
    assert ids(index, reward="judge", contrast=False) == [3, 1]
    assert ids(index, reward="judge", contrast=True) == [0]
    assert ids(index, state="failed") == [2]
    assert ids(index, prompt="RED") == [3, 2, 0]
    assert ids(index, from_step=1) == [3, 2]
    assert ids(index, max_version=0) == [1, 0]
    assert ids(index, prompt_id="p0") == [3, 0]


def test_the_iterations_beside_are_those_that_are_stored(index):
    index.add([appearance(9, 0, 1.0, step=40)])
    assert index.steps_beside(None, None) == (40, None)
    assert index.steps_beside(40, 40) == (1, None)
    assert index.steps_beside(1, 1) == (0, 40)
    assert index.steps_beside(0, 39) == (None, 40)
    assert GroupIndex().steps_beside(None, None) == (None, None)


def test_a_prompt_is_text_and_no_pattern(index):
    assert ids(index, prompt="100%") == [1]
    assert ids(index, prompt="e_s") == [1]
    assert ids(index, prompt="' OR 1=1 --") == []


def test_missing_values_are_in_no_mean_and_in_no_bin(index):
    assert index.group(2).scores["judge"].mean is None
    edges, counts = index.histogram("judge", None, None, 2)
    assert edges == [0.0, 0.5, 1.0]
    assert counts == [3, 3]
    assert index.histogram("judge", 1, 1, 2)[1] == [2, 0]
    assert index.histogram("nobody", None, None, 2) == ([], [])


def test_a_group_recorded_again_is_replaced(index):
    index.add([appearance(0, 0, 1.0, step=5), appearance(0, 1, 1.0, step=5)])
    group = index.group(0)
    assert (group.step, group.scores["judge"].mean, len(group.images)) == (5, 1.0, 2)
    assert index.count() == 4


def test_an_image_is_known_by_its_digest(index):
    digest = index.group(0).images[0].digest
    assert index.has_image(digest)
    assert not index.has_image("0" * 63 + "x")


def event(group_id, name, time, **more):
    return {"time": time, "group_id": group_id, "event": name, "policy_version": 0} | more


def labelled(group_id, time, *values, **more):
    said = {"reward": "people", "states": {"ready": len(values)}, "values": [[v] for v in values]}
    return event(group_id, "labelled", time, **said, **more)


def test_what_people_said_of_an_image_is_a_verdict_whichever_line_comes_first():
    made = GroupIndex()
    told = labelled(7, 3.0, 0.75, 0.25, 0.5, parts=[{"n": 2.0, "rho": 1.5}] * 3, version="like")
    made.add_events([told])
    for sample in range(2):
        made.add([appearance(7, sample, 1.0, step=4)])
    (first, second) = made.group(7).images
    people = {"value": 0.75, "parts": {"n": 2.0, "rho": 1.5}, "version": "like"}
    assert first.rewards["people"] == people | {"state": "ready", "reason": ""}
    assert second.rewards["people"]["value"] == 0.25
    assert first.rewards["judge"]["value"] == 1.0
    assert made.group(7).scores["people"].mean == 0.5
    assert sum(made.histogram("people", 4, 4, 2)[1]) == 2
    made.add_events([labelled(7, 4.0, None, 0.5, None, reason="amended")])
    assert made.group(7).images[0].rewards["people"]["state"] == "failed"
    assert made.group(7).scores["people"].mean == 0.5


def test_an_event_told_twice_is_one_and_a_group_made_again_begins_anew():
    made = GroupIndex()
    life = [event(1, "generated", 1.0, by=0), event(1, "generator", 2.0), event(1, "left", 3.0)]
    made.add_events(life)
    made.add_events(life)
    assert [each.event for each in made.history(1)] == ["generated", "generator", "left"]
    made.add_events([event(1, "generated", 9.0, by=0)])
    assert [each.time for each in made.history(1)] == [9.0]
    assert made.history(2) == []


def votes(group_id, time, *likes, by=0, revision=1):
    """People's votes on a group: 1 liked, 0 disliked, None nobody said."""
    parts = [
        {"n": 0.0 if like is None else 1.0, "likes": like or 0.0, "rho": 0.5} for like in likes
    ]
    told = labelled(group_id, time, *([0.5] * len(likes)), parts=parts)
    return told | {"by": by, "revision": revision}


def compared(group_id, time, *values, **finals):
    return event(group_id, "compared", time, values=[[v] for v in values], finals=finals)


def test_people_are_compared_with_the_surrogate_and_every_automatic_reward():
    made = GroupIndex()
    made.add_events([compared(n, 2.0 * n + 1, 0.1, 0.3, ocr=[0.9, 0.2]) for n in range(12)])
    made.add_events([votes(n, 2.0 * n, 0.0, 1.0, by=n // 6) for n in range(12)])
    made.add_events([votes(50, 99.0, 1.0, None, by=1), votes(51, 99.0, 1.0, 1.0, by=None)])
    found = made.labelled.agreement()
    assert (found.num_groups, found.num_votes, found.num_compared) == (14, 27, 12)
    assert [(each.low, each.high, each.like_rate.num) for each in found.like_rates] == [
        (0, 0, 12),
        (1, 1, 13),
    ]
    surrogate, ocr = found.judges
    assert (surrogate.name, surrogate.is_ranked) == ("the surrogate", True)
    assert surrogate.agreement.auc.value == 1.0
    assert [(each.low, each.like_rate.value) for each in surrogate.agreement.bins] == [
        (0, 0),
        (1, 1),
    ]
    assert (ocr.name, ocr.is_ranked, ocr.agreement.auc.value) == ("ocr", False, 0.0)


def test_a_newer_revision_of_the_votes_stands_and_the_first_comparison():
    made = GroupIndex()
    for n in range(12):
        lines = [
            votes(n, 1.0, 1.0, 0.0),
            compared(n, 2.0, 0.3, 0.1),
            votes(n, 3.0, 0.0, 1.0, by=None, revision=2),
            compared(n, 4.0, 0.1, 0.3),  # it has learned from the labels since
            votes(n, 5.0, 1.0, 0.0),  # an old message comes late
        ]
        made.add_events([*lines, lines[0]])
    (surrogate,) = made.labelled.agreement().judges
    assert surrogate.agreement.auc.value == 0.0
    assert made.labelled.agreement().like_rates[0].low == 0


def test_what_cannot_be_compared_is_left_out_and_is_no_number():
    made = GroupIndex()
    without_likes = labelled(1, 1.0, 0.5, 0.5, parts=[{"n": 1.0, "rho": 0.5}] * 2)
    impossible = labelled(2, 1.0, 0.5, parts=[{"n": 1.0, "likes": 2.0}])
    made.add_events([without_likes, impossible, votes(3, 1.0, 1.0, 0.0)])
    made.add_events([compared(1, 2.0, 0.1, 0.2), compared(3, 2.0, 0.1, None, 0.3, ocr=[None])])
    found = made.labelled.agreement()
    assert (found.num_groups, found.num_compared, found.like_rates) == (1, 1, [])
    assert [(each.agreement.auc, each.agreement.bins) for each in found.judges] == [(None, [])] * 2
    empty = GroupIndex().labelled.agreement()
    assert (empty.num_groups, empty.num_votes, empty.like_rates) == (0, 0, [])
