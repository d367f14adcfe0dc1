"""The audit log as admins read it: filters, a run's part, the dashboard's two ways to it."""

from datetime import timedelta

import pytest

from services.dashboard.label_admin_database import AdminDatabase
from services.dashboard.label_admin_service import AdminService
from services.label_client.client import LabelClient
from services.labels import gold, leases
from services.labels.audit import AuditFilter, record_audit
from services.labels.gold import GoldAnswer
from services.web.auth import Principal
from services.web.clock import Clock
from tests.labels.labelling_cases import World
from tests.labels.people import bearer, make_key

pytestmark = pytest.mark.integration
ADMIN = Principal("session", "operator", "admin")


def actions(client, key, **params) -> list[str]:
    answer = client.get("/api/v1/audit", headers=bearer(key), params=params)
    assert answer.status_code == 200, answer.text
    return [entry["action"] for entry in answer.json()["items"]]


def test_keys_are_named_and_people_are_not(client, keys, clock, database) -> None:
    made = client.post(
        "/api/v1/api-keys",
        json={"name": "=cmd|' /C calc'!A0", "role": "viewer"},
        headers=bearer(keys["admin"], Idempotency_Key="a"),
    ).json()
    (entry,) = client.get("/api/v1/audit?limit=1", headers=bearer(keys["admin"])).json()["items"]
    assert (entry["action"], entry["object"]) == ("key.create", made["key_id"])
    assert (entry["actor_name"], entry["object_name"]) == ("a admin", "=cmd|' /C calc'!A0")
    assert made["key"] not in str(entry)
    everything = client.get("/api/v1/audit", headers=bearer(keys["admin"])).text
    assert "Ann" not in everything  # whom the annotator's key labels as


def test_since_leaves_out_what_is_older(client, keys, clock, database) -> None:
    clock.advance(60)
    make_key(database, "viewer", clock())
    now = clock().isoformat()
    assert len(actions(client, keys["admin"])) == 5
    assert len(actions(client, keys["admin"], since=now)) == 1
    late = (clock() + timedelta(seconds=1)).isoformat()
    assert actions(client, keys["admin"], since=late) == []
    answer = client.get("/api/v1/audit?since=noon", headers=bearer(keys["admin"]))
    assert answer.status_code == 422


def test_a_run_has_what_was_done_to_its_groups_images_labels_and_leases(
    client, keys, clock, database
) -> None:
    def fill(session) -> None:
        here = World(session)
        for run in ("mine", "other"):
            images = here.group(f"{run}-gold", run_id=run)
            answers = [GoldAnswer(n, "like") for n in range(len(images))]
            gold.mark(session, f"{run}-gold", answers, here.now, here.settings)
            record_audit(session, "cli", "gold.put", f"{run}-gold", None, None, here.now)
        label = here.label("ann", here.group("mine-2", run_id="mine"), "llll")[0]
        record_audit(session, "cli", "label.amend", label.label["id"], None, None, here.now)
        digest = here.image("0")
        record_audit(session, "cli", "image.remove", digest, None, None, here.now)
        here.group("mine-3", run_id="mine")
        lease = here.claim("bob")
        leases.revoke(session, lease.id, here.now, ADMIN)

    database.write_now(fill)
    everything = actions(client, keys["admin"])
    assert everything.count("gold.put") == 2
    found = actions(client, keys["admin"], run_id="mine")
    assert sorted(found) == ["gold.put", "image.remove", "label.amend", "lease.revoke"]
    assert actions(client, keys["admin"], run_id="nobody") == []


def test_the_log_is_the_same_here_and_over_the_service(database, keys, clock, live_server) -> None:
    own = AdminDatabase(database, clock, "")
    there = service(live_server, keys["admin"], own, clock)
    assert list(there.logs) == [live_server, "this dashboard"]
    for wanted in (AuditFilter(), AuditFilter(actor="test"), AuditFilter(object="nothing")):
        first = own.audit(wanted, None, 2)
        assert there.audit(wanted, None, 2) == first
        if first:
            after = first[-1].at, first[-1].seq
            assert there.audit(wanted, after, 9) == own.audit(wanted, after, 9)
    assert there.names(["key:nobody", "cli"]) == {}


@pytest.mark.parametrize("role", ["viewer", "service", "annotator"])
def test_a_service_that_takes_us_for_no_admin_is_told_apart_with_what_helps(
    database, keys, clock, live_server, role
) -> None:
    there = service(live_server, keys[role], AdminDatabase(database, clock, ""), clock)
    with pytest.raises(ValueError, match=r"refuses: 403 .*give the dashboard a key of role admin"):
        there.audit(AuditFilter(), None, 9)


def service(url: str, key: str, own: AdminDatabase, clock: Clock) -> AdminService:
    return AdminService(url, key, LabelClient(url, key, retries=0, timeout_s=30), own, clock)
