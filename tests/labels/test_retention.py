"""Images go when nobody needs them, or when an admin says so; what is left is a tombstone."""

import hashlib
from typing import Any

import pytest

from services.labels.retention import delete_files, expire_images, find, withdraw
from services.labels.settings import NO_RATES, Settings
from tests.labels.caller import Api, group_body, png, problem

pytestmark = pytest.mark.integration

DAY_S = 86400


@pytest.fixture
def settings(tmp_path: Any, database_url: str) -> Settings:
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        gold_rate=0,
        rates=NO_RATES,
        image_days=30,
        max_images_bytes_per_key=20_000,
    )


def get(api: Api, sha256: str, who: str = "viewer") -> Any:
    return api(who, "GET", f"/images/{sha256}")


def let_a_month_pass(api: Api) -> None:
    api.clock.advance(31 * DAY_S)
    portal = api.client.portal
    assert portal is not None
    portal.call(expire_images, api.app)


def shas(group: dict[str, Any]) -> list[str]:
    return [image["sha256"] for image in group["images"]]


def label(api: Api, group: dict[str, Any], value: str = "like") -> None:
    body = {"image_id": group["images"][0]["image_id"], "value": value, "annotator_ref": "u"}
    assert api("app", "POST", "/labels", body).status_code == 201


def test_what_was_labelled_or_pinned_or_is_open_or_gold_is_kept_and_the_rest_goes(
    api: Api,
) -> None:
    soon = {"deadline_at": "2026-01-01T12:00:10+00:00"}
    unlabelled, pinned = api.group("unlabelled", **soon), api.group("pinned", **soon)
    labelled, waiting = api.group("labelled", **soon), api.group("waiting")
    gold = api.group("gold", **soon)
    alone = api.image(png("alone"))
    label(api, labelled)
    answers = {"answers": [{"index": 0, "answer": "like"}]}
    assert api("admin", "PUT", "/gold/gold", answers).status_code == 201
    for sha256 in shas(pinned):
        assert api("service", "PUT", f"/images/{sha256}/pin").status_code == 204
    api.clock.advance(20)
    api.sweep()
    let_a_month_pass(api)
    for kept in (pinned, labelled, waiting, gold):
        assert {get(api, sha256).status_code for sha256 in shas(kept)} == {200}
    for sha256 in shas(unlabelled):
        assert problem(get(api, sha256)) == (410, "image-removed")
        assert not api.app.state.images.path(sha256, "orig").exists()
    assert problem(get(api, alone)) == (404, "not-found")
    told = api("viewer", "GET", "/groups/unlabelled").json()
    assert [image["removed"] for image in told["images"]] == [True, True]
    assert api("service", "DELETE", f"/images/{shas(pinned)[0]}/pin").status_code == 204
    let_a_month_pass(api)
    assert [get(api, sha256).status_code for sha256 in shas(pinned)] == [410, 200]


def test_an_image_sent_again_is_young_again(api: Api) -> None:
    group = api.group("g", deadline_at="2026-01-01T12:00:10+00:00")
    api.clock.advance(29 * DAY_S)
    api.sweep()
    for n in range(2):
        api.image(png(f"g{n}"))
    api.clock.advance(-29 * DAY_S)
    let_a_month_pass(api)
    assert {get(api, sha256).status_code for sha256 in shas(group)} == {200}
    let_a_month_pass(api)
    assert {get(api, sha256).status_code for sha256 in shas(group)} == {410}
    api.image(png("g0"))
    assert [get(api, sha256).status_code for sha256 in shas(group)] == [200, 410]


def test_an_admin_removes_an_image_that_people_have_labelled(api: Api) -> None:
    group = api.group("g")
    label(api, group)
    first, other = shas(group)
    for who in ("service", "viewer", "annotator"):
        assert problem(api(who, "DELETE", f"/images/{first}"))[0] == 403
    assert api("admin", "DELETE", f"/images/{first}").status_code == 204
    assert api("admin", "DELETE", f"/images/{first}").status_code == 204
    assert problem(api("admin", "DELETE", f"/images/{'0' * 64}")) == (404, "not-found")
    assert problem(get(api, first, "annotator")) == (404, "not-found")
    assert problem(get(api, first)) == (410, "image-removed")
    assert get(api, other).status_code == 200
    assert api.claim().status_code == 204  # nobody is asked of a picture that is gone
    assert len(api("admin", "GET", "/labels").json()["items"]) == 1
    actions = [entry["action"] for entry in api("admin", "GET", "/audit").json()["items"]]
    assert actions.count("image.remove") == 1
    again = api("service", "PUT", "/groups/h", group_body([first]))
    assert problem(again) == (422, "image-unknown")


def test_what_an_admin_removed_comes_back_by_an_admin_alone(api: Api) -> None:
    old = {"deadline_at": "2026-01-01T12:00:10+00:00"}
    removed, grown_old = shas(api.group("g", **old))
    path = f"/images/{removed}"
    assert api("admin", "DELETE", path).status_code == 204
    let_a_month_pass(api)
    for who in ("service", "app"):
        refused = api(who, "PUT", path, png("g0"))
        assert problem(refused) == (410, "image-removed")
        assert "by an admin" in refused.json()["detail"]
        assert not api.app.state.images.has(removed)
    assert api.image(png("g1")) == grown_old
    let_a_month_pass(api)
    assert api("admin", "DELETE", f"/images/{grown_old}").status_code == 204
    assert problem(api("service", "PUT", f"/images/{grown_old}", png("g1")))[0] == 410
    back = api("admin", "PUT", path, png("g0"))
    assert (back.status_code, get(api, removed).status_code) == (201, 200)
    assert api("service", "PUT", path, png("g0")).status_code == 200
    actions = [entry["action"] for entry in api("admin", "GET", "/audit").json()["items"]]
    assert [actions.count(f"image.{did}") for did in ("remove", "restore")] == [2, 1]


def test_who_says_what_picture_they_saw_changes_no_other(api: Api) -> None:
    path = f"/images/{shas(api.group('g', 1))[0]}"
    tag = api("viewer", "GET", f"{path}?size=256").headers["etag"]
    changes = (("service", "PUT", "/pin"), ("service", "DELETE", "/pin"), ("admin", "DELETE", ""))
    for who, method, more in changes:
        refused = api(who, method, path + more, If_Match='"another"')
        assert problem(refused) == (412, "etag-mismatch"), method
        assert api(who, method, path + more, If_Match=f'"another", {tag}').status_code == 204
    for who, method, more in changes:
        assert problem(api(who, method, path + more, If_Match="*")) == (412, "etag-mismatch")
        assert api(who, method, path + more).status_code == 204


def test_an_image_that_is_removed_while_it_is_sent_stays_away(api: Api) -> None:
    (sha256,) = shas(api.group("g", 1))
    folder = api.app.state.images
    folder.remove(sha256)  # or there would be nothing to write
    take = folder.take

    async def take_and_be_late(*upload: Any) -> Any:
        picture = await take(*upload)
        write = api.app.state.database.write
        settings, now = api.app.state.settings, api.clock()
        await write(lambda s: withdraw(s, find(s, sha256), now, settings))
        return picture

    folder.take = take_and_be_late
    assert problem(api("service", "PUT", f"/images/{sha256}", png("g0")))[0] == 410
    assert not folder.has(sha256)


def test_files_of_an_image_that_was_sent_again_meanwhile_stay(api: Api) -> None:
    sha256 = shas(api.group("g", deadline_at="2026-01-01T12:00:10+00:00"))[0]
    folder = api.app.state.images
    api.clock.advance(20)
    api.sweep()
    let_a_month_pass(api)
    assert not folder.has(sha256)
    assert api.image(png("g0")) == sha256
    api.database.write_now(lambda session: delete_files(session, folder, [sha256]))
    assert folder.has(sha256)
    folder.remove(sha256)  # lost by other hands: who sends it again heals it
    assert problem(get(api, sha256)) == (410, "image-removed")
    api.image(png("g0"))
    assert get(api, sha256).status_code == 200


def test_a_key_stores_no_more_than_its_quota(api: Api) -> None:
    large = [png(f"large {n}", (60, 50)) for n in range(3)]
    assert 6_667 < len(large[0]) < 10_000
    for content in large[:2]:
        api.image(content)
    api.image(large[0])  # is here
    path = f"/images/{hashlib.sha256(large[2]).hexdigest()}"
    assert problem(api("service", "PUT", path, large[2])) == (413, "image-quota")
    assert api("app", "PUT", path, large[2]).status_code == 201  # another key's
    small = png("small")
    api.image(small)
    gone = hashlib.sha256(large[0]).hexdigest()
    assert api("admin", "DELETE", f"/images/{gone}").status_code == 204
    api.image(png("large 3", (60, 50)))
