"""People label blind: nothing that they are told tells a gold question from an ordinary one."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from ulid import ULID

from tests.labels.caller import Api, problem
from tests.labels.people import make_key

pytestmark = pytest.mark.integration

NAMES = {"id", "assignment_id", "lease_token", "image_id", "url", "seq"}
"""What two leases of any two groups differ in."""
OF_A_REQUEST = {"x-request-id", "content-length", "location", "date"}
HIDDEN = ("group_id", "run_id", "policy_version")
SENT = {
    "test": {"run_id": "exam", "policy_version": 0, "checkpoint_id": "exam-1"},
    "plain": {"run_id": "run-7", "policy_version": 12, "auto_rewards": {"clip": [0.5, 0.25]}},
}


@pytest.fixture
def database_url(one_database_url: str) -> str:
    """What is told is the same on every database."""
    return one_database_url


def told(api: Api, app: FastAPI, gold: bool) -> list[Any]:
    """All that Bob is told from claiming a group to taking a label back."""
    app.state.settings = app.state.settings.model_copy(update={"gold_rate": int(gold)})
    claimed = api.claim("bob")
    lease = claimed.json()
    path = f"/assignments/{lease['assignment_id']}"
    token = {"lease_token": lease["lease_token"]}
    answers = [claimed, api.claim("bob"), api("bob", "POST", f"{path}/heartbeat", token)]
    answers.append(api("bob", "GET", lease["images"][0]["url"].removeprefix("/api/v1")))
    answers.append(api.submit(lease, "bob", "like", final=False))
    answers.append(api.submit(lease, "bob", "like", "dislike"))
    label = f"/labels/{answers[-1].json()['labels'][0]['id']}"
    answers.append(api("bob", "GET", label))
    answers.append(api("bob", "PATCH", label, {"value": "unsure"}, If_Match='"r1"'))
    answers.append(api("bob", "GET", f"/labels?image_id={lease['images'][0]['image_id']}"))
    answers.append(api("bob", "DELETE", label, If_Match='"r2"'))
    answers.append(api("bob", "GET", label))
    assert {answer.status_code // 100 for answer in answers} == {2}
    return answers


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every field with its path; those that name something, without what they say."""
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves("a name" if name in NAMES else part, f"{path}.{name}")
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from leaves(part, f"{path}.{place}")
    else:
        yield path, value


def test_gold_is_told_from_an_ordinary_group_by_no_field(api: Api, app: FastAPI) -> None:
    put_at = api.clock()
    api.group("test", **SENT["test"])
    gold = {"answers": [{"index": 0, "answer": "like"}, {"index": 1, "answer": "dislike"}]}
    assert api("admin", "PUT", "/gold/test", gold).status_code == 201
    api.clock.advance(40 * 86400)  # gold is old, what is to be trained on is new
    api.group("plain", **SENT["plain"])
    of_gold, of_plain = (told(api, app, is_gold) for is_gold in (True, False))
    for one, other in zip(of_gold, of_plain, strict=True):
        assert one.headers.keys() == other.headers.keys(), one.request.url
        if one.headers.get("content-type") == "application/json":
            assert dict(leaves(one.json())) == dict(leaves(other.json())), one.request.url
            for name in one.headers.keys() - OF_A_REQUEST:
                assert one.headers[name] == other.headers[name], (one.request.url, name)
    made_at = str(ULID.from_datetime(put_at))[:8]
    names = [image["image_id"] for image in of_gold[0].json()["images"]]
    assert not [name for name in names if name.startswith(made_at)]


def test_nobody_asks_of_which_run_or_group_their_labels_are(api: Api) -> None:
    api.group("g")
    api.submit(api.claim("bob").json(), "bob", "like", "like")
    for asked in ("run_id=run", "group_id=g"):
        assert problem(api("bob", "GET", f"/labels?{asked}")) == (403, "labels-blind")
        assert len(api("admin", "GET", f"/labels?{asked}").json()["items"]) == 2


def test_who_pushes_labels_of_their_own_is_as_blind(api: Api) -> None:
    images = api.group("g")["images"]
    api.keys["pusher"] = make_key(api.database, "annotator", api.clock(), "labels:push")
    pushed = api("pusher", "POST", "/labels", {"image_id": images[0]["image_id"], "value": "like"})
    assert [pushed.json()[name] for name in HIDDEN] == [None] * 3


def test_only_admins_see_what_a_label_was_called_by_its_sender(api: Api) -> None:
    images = api.group("g")["images"]
    said = {"image_id": images[0]["image_id"], "value": "like", "client_ref": "mail-of-ann"}
    api("app", "POST", "/labels", said | {"annotator_ref": "ann", "note": "hm"})
    for who, seen in (("viewer", None), ("service", None), ("admin", "mail-of-ann")):
        (label,) = api(who, "GET", "/groups/g?include=labels").json()["labels"]
        assert label["client_ref"] == seen, who
