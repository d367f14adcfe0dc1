"""The whole way over HTTP: image, group, lease, labels, aggregate; and what is refused."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fastapi import FastAPI
from sqlalchemy.orm import Session

from services.labels.store.tables import Group
from services.web.limits import Rate, RateLimiter
from tests.labels.caller import API, Api, group_body, png, problem
from tests.labels.people import bearer

pytestmark = pytest.mark.integration


def test_a_group_goes_the_whole_way_from_its_images_to_its_reward(api: Api) -> None:
    made = api.group("g")
    lease = api.claim()
    assert lease.status_code == 201
    lease = lease.json()
    assert lease["group"]["prompt"] == {"text": "a <b>cat</b>"}
    assert lease["guidelines"] == "Be honest."
    assert lease["lease_seconds"] == 120
    assert not {"seed", "policy_version", "auto_rewards"} & set(str(lease).split("'"))
    assert api.client.get(lease["images"][0]["url"], headers=bearer(api.keys["annotator"])).content
    sent = api.submit(lease, "annotator", "like", "dislike")
    assert sent.status_code == 201, sent.text
    assert [label["revision"] for label in sent.json()["labels"]] == [1, 1]
    aggregate = api("viewer", "GET", "/aggregates/g").json()
    assert (aggregate["state"], aggregate["coverage"]) == ("ready", 1.0)
    liked = lease["images"][0]["image_id"]
    mu = {image["image_id"]: image["mu"] for image in aggregate["images"]}
    assert mu[liked] == max(mu.values())
    assert {image["image_id"] for image in made["images"]} == set(mu)


def test_putting_a_group_again_changes_nothing_and_another_body_is_refused(api: Api) -> None:
    digest = api.image(png("one"))
    body = group_body([digest])
    answers = [api("service", "PUT", "/groups/g", body) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [201, 200]
    assert answers[0].json() == answers[1].json()
    again = api("service", "PUT", "/groups/g", body | {"policy_version": 2})
    assert problem(again) == (409, "group-exists")


def test_unknown_images_and_questions_are_named(api: Api) -> None:
    body = group_body(["ab" * 32])
    answer = api("service", "PUT", "/groups/g", body)
    assert problem(answer) == (422, "image-unknown")
    assert answer.json()["errors"][0]["pointer"] == "#/images/0/sha256"
    answer = api("service", "PUT", "/groups/g", body | {"question_id": "nope"})
    assert problem(answer) == (422, "question-unknown")


def test_the_backlog_is_bounded_and_the_oldest_policy_goes_first(api: Api, app: FastAPI) -> None:
    app.state.settings = app.state.settings.model_copy(update={"max_open_groups": 2})
    for version, name in ((5, "a"), (3, "b"), (7, "c")):
        api.group(name, 1, policy_version=version)
    open_groups = api("viewer", "GET", "/groups?state=open").json()["items"]
    assert {group["group_id"] for group in open_groups} == {"a", "c"}


def test_groups_are_listed_by_filters_that_are_allowed(api: Api) -> None:
    for n in range(3):
        api.group(f"g{n}", 1, policy_version=n, run_id=f"run-{n % 2}")
    listed = api("viewer", "GET", "/groups?run_id=run-0&limit=1").json()
    assert [group["group_id"] for group in listed["items"]] == ["g2"]
    more = api("viewer", "GET", f"/groups?run_id=run-0&limit=1&cursor={listed['next_cursor']}")
    assert [group["group_id"] for group in more.json()["items"]] == ["g0"]
    newer = api("viewer", "GET", "/groups?policy_from=1&policy_to=1&has_labels=false").json()
    assert [group["group_id"] for group in newer["items"]] == ["g1"]
    api("app", "POST", "/labels", pushed(api, "g1", "like"))
    liked = api("viewer", "GET", "/groups?mu_from=0.55&include=labels,aggregate").json()["items"]
    assert [group["group_id"] for group in liked] == ["g1"]
    assert liked[0]["labels"][0]["annotator_id"] == ""
    named = api("admin", "GET", "/groups/g1?include=labels").json()
    assert named["labels"][0]["annotator_id"]


def pushed(api: Api, group_id: str, value: str, user: str = "u", place: int = 0) -> dict[str, Any]:
    images = api("viewer", "GET", f"/groups/{group_id}").json()["images"]
    return {"image_id": images[place]["image_id"], "value": value, "annotator_ref": user}


def test_a_label_is_new_then_there_then_in_the_way(api: Api) -> None:
    api.group("g")
    body = pushed(api, "g", "like")
    first, again = (api("app", "POST", "/labels", body) for _ in range(2))
    assert (first.status_code, again.status_code) == (201, 200)
    assert first.json() == again.json()
    assert first.headers["location"] == f"{API}/labels/{first.json()['id']}"
    other = api("app", "POST", "/labels", body | {"value": "dislike"})
    assert problem(other) == (409, "label-exists")
    elsewhere = api("app", "POST", "/labels", body | {"annotator_ref": "another"})
    assert elsewhere.status_code == 201


def test_only_who_may_speaks_for_others(api: Api) -> None:
    api.group("g")
    body = pushed(api, "g", "like")
    assert problem(api("service", "POST", "/labels", body)) == (403, "forbidden")
    del body["annotator_ref"]
    assert problem(api("service", "POST", "/labels", body)) == (422, "annotator-missing")
    assert problem(api("annotator", "POST", "/labels", body)) == (403, "forbidden")


def test_a_batch_tells_each_item_or_is_all_or_nothing(api: Api) -> None:
    api.group("g")
    good, other = pushed(api, "g", "like"), pushed(api, "g", "dislike", place=1)
    bad = other | {"image_id": "nowhere"}
    clash = good | {"value": "dislike"}
    labels = {"labels": [good, bad, clash, good, other]}
    refused = api("app", "POST", "/labels:batch?atomic=true", labels)
    assert problem(refused) == (404, "image-unknown")
    assert refused.json()["errors"][0]["pointer"] == "#/labels/1"
    assert api("app", "GET", "/labels").json()["items"] == []
    results = api("app", "POST", "/labels:batch", labels).json()["results"]
    assert [result["status"] for result in results] == [201, 404, 409, 200, 201]
    assert results[2]["problem"]["code"] == "label-exists"
    assert api("viewer", "GET", "/groups/g").json()["state"] == "ready"
    again = api("app", "POST", "/labels:batch?atomic=true", {"labels": [good, other]})
    assert [result["status"] for result in again.json()["results"]] == [200, 200]


def test_a_label_is_amended_by_its_author_until_its_group_is_consumed(api: Api) -> None:
    api.group("g")
    label = api("app", "POST", "/labels", pushed(api, "g", "like"))
    path = f"/labels/{label.json()['id']}"
    change = {"value": "dislike"}
    assert problem(api("app", "PATCH", path, change)) == (428, "if-match-missing")
    amended = api("app", "PATCH", path, change, If_Match=label.headers["etag"])
    assert (amended.status_code, amended.json()["revision"]) == (200, 2)
    stale = api("app", "PATCH", path, change, If_Match=label.headers["etag"])
    assert problem(stale) == (412, "etag-mismatch")
    tag = amended.headers["etag"]
    assert api("app", "GET", path, If_None_Match=tag).status_code == 304
    assert api("app", "DELETE", path, If_Match=tag).status_code == 204
    assert api("app", "GET", path).json()["retracted_at"]
    api.database.write_now(lambda session: _consume(session, "g"))
    late = api("app", "PATCH", path, change, If_Match='"r3"')
    assert problem(late) == (409, "group-consumed")
    assert api("admin", "PATCH", path, change, If_Match='"r3"').status_code == 200


def _consume(session: Session, group_id: str) -> None:
    session.get_one(Group, group_id).state = "consumed"


def test_nobody_sees_anothers_labels_leases_or_images(api: Api) -> None:
    api.group("g")
    api.group("h")
    lease = api.claim("bob").json()
    label = api.submit(lease, "bob", "like", "like").json()["labels"][0]
    for who in ("annotator", "app"):
        assert problem(api(who, "GET", f"/labels/{label['id']}")) == (404, "not-found")
        assert api(who, "GET", "/labels").json()["items"] == []
    change = api("annotator", "PATCH", f"/labels/{label['id']}", {"value": "like"}, If_Match="*")
    assert problem(change) == (404, "not-found")
    assert len(api("bob", "GET", "/labels").json()["items"]) == 2
    path = f"/assignments/{lease['assignment_id']}"
    token = {"lease_token": lease["lease_token"]}
    assert problem(api("annotator", "POST", f"{path}/heartbeat", token)) == (404, "not-found")
    assert problem(api("annotator", "DELETE", path)) == (404, "not-found")
    url = lease["images"][0]["url"].removeprefix(API)
    assert api("bob", "GET", url).status_code == 200
    assert problem(api("annotator", "GET", url)) == (404, "not-found")
    assert api("admin", "GET", "/labels").json()["items"]


def test_labels_can_be_tailed(api: Api) -> None:
    api.group("g", 3)
    for place in range(3):
        api("app", "POST", "/labels", pushed(api, "g", "like", place=place))
    first = api("admin", "GET", "/labels?since_seq=0&limit=2").json()["items"]
    rest = api("admin", "GET", f"/labels?since_seq={first[-1]['seq']}").json()["items"]
    assert len(first + rest) == 3
    assert [label["seq"] for label in first + rest] == sorted(
        label["seq"] for label in first + rest
    )


def test_without_work_the_answer_is_204_and_when_to_ask_again(api: Api) -> None:
    answer = api.claim()
    assert answer.status_code == 204
    assert int(answer.headers["retry-after"]) > 0


def test_a_waiting_claim_is_woken_by_the_group_that_it_waits_for(api: Api) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.claim, "bob", wait_seconds=20)
        while not api.app.state.bell.num_waiting:
            time.sleep(0.01)
        started = time.monotonic()
        api.group("g", 1)
        assert waiting.result().status_code == 201
    assert time.monotonic() - started < 10
    assert problem(api.claim("cem", wait_seconds=21)) == (422, "invalid-request")


def test_a_lost_lease_gives_the_work_back(api: Api) -> None:
    api.group("g")
    lease = api.claim("bob").json()
    api.clock.advance(121)
    api.sweep()
    token = {"lease_token": lease["lease_token"]}
    beat = api("bob", "POST", f"/assignments/{lease['assignment_id']}/heartbeat", token)
    assert problem(beat) == (409, "lease-lost")
    assert api.claim("cem").status_code == 201
    lost = api.submit(lease, "bob", "like", "dislike")
    assert problem(lost) == (409, "lease-lost")
    assert [label["value"] for label in lost.json()["labels"]] == ["like", "dislike"]


def test_an_admin_takes_a_lease_back_and_nobody_else_does(api: Api) -> None:
    api.group("g")
    lease = api.claim("bob").json()
    path = f"/assignments/{lease['assignment_id']}"
    for who in ("viewer", "service", "app", "annotator", "bob"):
        assert problem(api(who, "POST", f"{path}:revoke")) == (403, "forbidden")
    token = {"lease_token": lease["lease_token"]}
    assert api("bob", "POST", f"{path}/heartbeat", token).status_code == 200
    unknown = api("admin", "POST", f"/assignments/{'0' * 26}:revoke")
    assert problem(unknown) == (404, "not-found")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(api.claim, "cem", wait_seconds=20)
        while not api.app.state.bell.num_waiting:
            time.sleep(0.01)
        revoked, again = (api("admin", "POST", f"{path}:revoke") for _ in range(2))
        assert waiting.result().status_code == 201
    assert revoked.json() == again.json()
    assert revoked.json() == {"assignment_id": lease["assignment_id"], "state": "revoked"}
    assert problem(api("bob", "POST", f"{path}/heartbeat", token)) == (409, "lease-lost")
    assert api.claim("bob").status_code == 204
    lost = api.submit(lease, "bob", "like", "dislike")
    assert problem(lost) == (409, "lease-lost")
    assert [label["value"] for label in lost.json()["labels"]] == ["like", "dislike"]
    audit = api("admin", "GET", "/audit").json()["items"]
    assert [entry["action"] for entry in audit].count("lease.revoke") == 1


def test_a_heartbeat_and_a_partial_submit_keep_the_lease(api: Api) -> None:
    api.group("g")
    lease = api.claim("bob").json()
    api.clock.advance(100)
    token = {"lease_token": lease["lease_token"]}
    beat = api("bob", "POST", f"/assignments/{lease['assignment_id']}/heartbeat", token)
    assert beat.json()["lease_seconds"] == 120
    assert api.submit(lease, "bob", "like", final=False).json()["state"] == "live"
    again = api.claim("bob")
    assert again.status_code == 200
    assert [image["value"] for image in again.json()["images"]] == ["like", None]
    assert problem(api.submit(lease, "bob", "like")) == (422, "labels-incomplete")
    assert api.submit(lease, "bob", "like", "skip").json()["state"] == "submitted"


def test_submitted_labels_count_against_the_rate_of_labels(api: Api, app: FastAPI) -> None:
    rates = {"label": Rate(num=3, per_s=3)}
    app.state.limiter = RateLimiter(rates, api.clock)
    api.group("g", 3)
    lease = api.claim("bob").json()
    assert api.submit(lease, "bob", "like", "like", final=False).status_code == 201
    refused = api.submit(lease, "bob", "like", "like", "like")
    assert problem(refused) == (429, "too-many-requests")
    assert refused.headers["retry-after"] == "2"
    assert len(api("bob", "GET", "/labels").json()["items"]) == 2
    api.clock.advance(2)
    assert api.submit(lease, "bob", "like", "like", "like").status_code == 201


def test_a_skip_is_final_and_three_retire_the_group(api: Api) -> None:
    api.group("g")
    for who in ("annotator", "bob", "cem"):
        lease = api.claim(who).json()
        path = f"/assignments/{lease['assignment_id']}?reason=cannot+see+it"
        assert api(who, "DELETE", path).status_code == 204
        assert api.claim(who).status_code == 204
    assert api("viewer", "GET", "/groups/g").json()["state"] == "retired"


def test_questions_change_by_etag_and_guidelines_get_a_version(api: Api) -> None:
    asked = api("viewer", "GET", "/questions/like")
    change = {"guidelines": "Look twice."}
    changed = api("admin", "PATCH", "/questions/like", change, If_Match=asked.headers["etag"])
    assert changed.json()["guidelines_version"] == 2
    assert problem(api("service", "PATCH", "/questions/like", change)) == (403, "forbidden")
    closed = api("admin", "DELETE", "/questions/like", If_Match=changed.headers["etag"])
    assert closed.status_code == 204
    refused = api("service", "PUT", "/groups/g", group_body([api.image(png("x"))]))
    assert problem(refused) == (422, "question-unknown")
    body = {"question_id": "like", "text": "Another?"}
    assert problem(api("admin", "POST", "/questions", body)) == (400, "idempotency-key-missing")
    clash = api("admin", "POST", "/questions", body, Idempotency_Key="other")
    assert problem(clash) == (409, "question-exists")


def test_gold_shuts_and_opens_the_gate_for_past_labels_too(api: Api, app: FastAPI) -> None:
    api.group("g", 1)
    lease = api.claim("bob").json()
    api.submit(lease, "bob", "like")
    assert api("viewer", "GET", "/aggregates/g").json()["images"][0]["n"] == 1
    api.group("test", 12)
    answers = {"answers": [{"index": n, "answer": "dislike", "reason": "see"} for n in range(12)]}
    gold = api("admin", "PUT", "/gold/test", answers)
    assert gold.status_code == 201, gold.text
    assert problem(api("admin", "PUT", "/gold/g", answers)) == (409, "group-started")
    app.state.settings = app.state.settings.model_copy(update={"gold_rate": 1})
    lease = api.claim("bob").json()
    assert "is_gold" not in str(lease)
    labels = api.submit(lease, "bob", *["like"] * 12).json()["labels"]
    api.sweep()
    assert api("viewer", "GET", "/aggregates/g").json()["images"][0]["n"] == 0
    assert api("viewer", "GET", "/aggregates/test").json()["state"] == "open"
    for label in labels[:11]:
        path = f"/labels/{label['id']}"
        assert api("bob", "PATCH", path, {"value": "dislike"}, If_Match='"r1"').status_code == 200
    api.sweep()
    assert api("viewer", "GET", "/aggregates/g").json()["images"][0]["n"] == 1
    audit = api("admin", "GET", "/audit").json()["items"]
    assert {"annotator.gate-shut", "annotator.gate-opened"} <= {entry["action"] for entry in audit}
    stale = api("admin", "PUT", "/gold/test", answers, If_Match='"r9"')
    assert problem(stale) == (412, "etag-mismatch")
    again = api("admin", "PUT", "/gold/test", answers, If_Match=api_etag(api, "/gold/test"))
    assert again.status_code == 200
    retired = api("admin", "DELETE", "/gold/test", If_Match=api_etag(api, "/gold/test"))
    assert retired.status_code == 204
    assert api.claim("cem").status_code == 204


def api_etag(api: Api, path: str) -> str:
    return api("admin", "GET", path).headers["etag"]


def test_an_excluded_persons_votes_are_taken_out(api: Api) -> None:
    api.group("g", 1)
    label = api("app", "POST", "/labels", pushed(api, "g", "like")).json()
    person = f"/annotators/{label['annotator_id']}"
    assert api("admin", "POST", f"{person}:exclude").status_code == 200
    api.sweep()
    assert api("viewer", "GET", "/aggregates/g").json()["images"][0]["n"] == 0
    refused = api("app", "POST", "/labels", pushed(api, "g", "like"))
    assert problem(refused) == (403, "annotator-inactive")
