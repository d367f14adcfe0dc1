"""Keys and invites as the dashboard's admins have them, in the database and over the service."""

import logging
from datetime import timedelta

import pytest

from services.dashboard.label_admin import LabelAdmin, state_of
from services.dashboard.label_admin_database import AdminDatabase
from services.dashboard.label_admin_service import AdminService
from services.label_client.client import LabelClient
from services.labels.audit import AuditFilter
from services.labels.schemas.keys import NewKey
from services.labels.sessions import start_session
from services.labels.store.database import Database
from services.web.auth import Principal
from services.web.keys import parse_key
from tests.labels.people import bearer, make_key

pytestmark = pytest.mark.integration
BY = Principal("session", "key:01BOSS", "admin")
ADDRESS = "http://127.0.0.1:8321"


@pytest.fixture
def database_url(one_database_url) -> str:
    """Where keys lie changes nothing of how they come here."""
    return one_database_url


@pytest.fixture
def own(tmp_path, database, clock, request) -> AdminDatabase:
    """The dashboard's database: the service's, or another."""
    return AdminDatabase(database, clock, ADDRESS)


@pytest.fixture(params=["here", "elsewhere"])
def admin(request, own, keys, clock, live_server) -> LabelAdmin:
    if request.param == "here":
        return own
    key = keys["admin"]
    client = LabelClient(live_server, key, retries=0, timeout_s=30)
    return AdminService(live_server, key, client, own, clock)


def id_of(key: str) -> str:
    parsed = parse_key(key)
    assert parsed is not None
    return parsed[0]


def states(admin: LabelAdmin) -> list[tuple[str, bool]]:
    """Every key, and whether it is revoked."""
    return [(key.key_id, key.revoked_at is None) for key in admin.keys(None, None, 99)[0]]


def test_a_key_opens_the_service_until_it_is_revoked(admin, client) -> None:
    made = admin.create_key(NewKey(name="<img onerror=x>", role="viewer"), BY)
    assert made.key is not None
    assert made.key not in repr(made)
    assert client.get("/api/v1/questions", headers=bearer(made.key)).status_code == 200
    (newest, *_), _ = admin.keys(None, None, 9)
    assert (newest.key_id, newest.name, newest.role) == (made.key_id, "<img onerror=x>", "viewer")
    admin.revoke_key(made.key_id, BY)
    assert client.get("/api/v1/questions", headers=bearer(made.key)).status_code == 401
    (newest, *_), _ = admin.keys("viewer", None, 9)
    assert newest.revoked_at is not None


def test_a_key_that_labels_is_of_a_new_person_unless_one_is_named(admin, database) -> None:
    made = admin.create_key(NewKey(name="Eve", role="annotator", scopes=["labels:push"]), BY)
    assert made.annotator_id is not None
    again = NewKey(name="phone", role="annotator", annotator_id=made.annotator_id)
    assert admin.create_key(again, BY).annotator_id == made.annotator_id
    with pytest.raises(ValueError, match="no annotator 'nobody'; create the annotator first"):
        admin.create_key(NewKey(name="x", role="annotator", annotator_id="nobody"), BY)
    before = states(admin)
    with pytest.raises(ValueError, match=r"'labels:push' is not for role admin; allowed: none"):
        admin.create_key(NewKey(name="x", role="admin", scopes=["labels:push"]), BY)
    new = NewKey(name="nobody at all", role="annotator", scopes=["labels:on_behalf"])
    with pytest.raises(ValueError, match=r"allowed: labels:push"):
        admin.create_key(new, BY)
    assert states(admin) == before


def test_pages_of_keys_follow_one_another(admin, clock, database) -> None:
    for _ in range(5):
        clock.advance(1)
        make_key(database, "viewer", clock())
    first, cursor = admin.keys("viewer", None, 3)
    second, end = admin.keys("viewer", cursor, 3)
    times = [key.created_at for key in (*first, *second)]
    assert len(times) == 6  # one was there
    assert times == sorted(times, reverse=True)
    assert end is None
    with pytest.raises(ValueError, match="next_cursor of the page before"):
        admin.keys(None, "nonsense", 3)


def test_the_admins_who_are_left_are_counted_by_keys_that_open_something(
    admin, keys, clock, database
) -> None:
    first = id_of(keys["admin"])
    assert admin.live_admins() == {first}
    second = admin.create_key(NewKey(name="b", role="admin", expires_in_days=1), BY)
    third = admin.create_key(NewKey(name="c", role="admin"), BY)
    assert admin.live_admins() == {first, second.key_id, third.key_id}
    assert [state_of(key, clock()) for key in (second, third)] == ["active", "active"]
    admin.revoke_key(third.key_id, BY)
    clock.advance(timedelta(days=1).total_seconds())
    assert admin.live_admins() == {first}
    assert state_of(second, clock()) == "expired"


def test_an_invite_makes_a_browser_somebodys_once(admin, database, clock, live_server) -> None:
    made = admin.invite("Bob", "annotator", BY)
    address, _, secret = str(made.url).partition("/login#invite=")
    assert address == (live_server if admin.elsewhere else ADDRESS)
    assert secret not in repr(made)
    row, _ = database.write_now(lambda session: start_session(session, secret, "", clock()))
    assert (row.role, made.expires_at) == ("annotator", clock() + timedelta(days=7))


def test_every_change_is_in_the_audit_log_of_who_asked_for_it(admin, own) -> None:
    made = admin.create_key(NewKey(name="a", role="viewer"), BY)
    admin.revoke_key(made.key_id, BY)
    admin.invite("Bob", "viewer", BY)
    found = own.audit(AuditFilter(actor=BY.actor), None, 9)
    assert [each.action for each in found][::-1] == [
        "key.create",
        "key.revoke",
        "annotator.create",
        "invite.create",
    ]
    where = f"{admin.elsewhere}/api-keys/" if admin.elsewhere else ""
    assert {each.object for each in found[2:]} == {f"{where}{made.key_id}"}


def test_no_secret_is_logged_or_stored(admin, database, caplog, tmp_path) -> None:
    caplog.set_level(logging.DEBUG)
    key = str(admin.create_key(NewKey(name="a", role="viewer"), BY).key)
    invite = str(admin.invite("Bob", "viewer", BY).url).partition("=")[2]
    texts = [record.getMessage() for record in caplog.records]
    parts = [key.split("_", 2)[2], invite]  # a secret may have underscores of its own
    assert min(map(len, parts)) > 20
    assert not [text for text in texts for part in parts if part in text]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert not [part for part in parts for content in files if part.encode() in content]


@pytest.mark.parametrize("role", ["viewer", "service", "annotator"])
def test_a_key_that_is_no_admins_sees_and_changes_nothing(
    own, keys, clock, live_server, role
) -> None:
    client = LabelClient(live_server, keys[role], retries=0, timeout_s=30)
    there = AdminService(live_server, keys[role], client, own, clock)
    assert there.own_key_id == id_of(keys[role])
    before = states(own)
    refused = pytest.raises(ValueError, match=r"refuses: 403 .*a key of role admin there")
    with refused:
        there.keys(None, None, 9)
    with refused:
        there.create_key(NewKey(name="a", role="admin"), BY)
    with refused:
        there.create_key(NewKey(name="a", role="annotator"), BY)
    with refused:
        there.revoke_key(id_of(keys["viewer"]), BY)
    with refused:
        there.invite("Eve", "admin", BY)
    with refused:
        there.live_admins()
    assert states(own) == before
    assert own.audit(AuditFilter(actor=BY.actor), None, 9) == []


def test_a_key_that_is_made_is_shown_even_where_it_cannot_be_noted(
    own, keys, clock, live_server, tmp_path, caplog
) -> None:
    elsewhere = Database.open(f"sqlite:///{tmp_path / 'own.db'}")
    client = LabelClient(live_server, keys["admin"], retries=0, timeout_s=30)
    mine = AdminDatabase(elsewhere, clock, ADDRESS)
    there = AdminService(live_server, keys["admin"], client, mine, clock)
    elsewhere.close()
    made = there.create_key(NewKey(name="a", role="viewer"), BY)
    assert made.key is not None
    (warning,) = [each.getMessage() for each in caplog.records if "is not noted" in each.message]
    assert warning.startswith(f"key.create of api-keys/{made.key_id} by {BY.actor} ")
