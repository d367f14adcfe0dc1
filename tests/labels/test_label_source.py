"""Where the dashboard has its numbers about labels from: the database here, a service elsewhere."""

import httpx
import pytest
from sqlalchemy import select

from services.dashboard.label_source import (
    FRESH_S,
    REST_S,
    LabelDatabase,
    LabelService,
    LabelSource,
    SharedSource,
)
from services.label_client.client import LabelClient
from services.labels.schemas.groups import GroupLease
from services.labels.statistics import Statistics, statistics
from services.labels.store.tables import AuditEntry
from services.web.auth import Principal
from tests.labels.labelling_cases import World, world
from tests.labels.people import make_key

pytestmark = pytest.mark.integration


@pytest.fixture
def database_url(one_database_url) -> str:
    """Where the numbers lie changes nothing of how they come here."""
    return one_database_url


def service(url: str, key: str) -> LabelService:
    return LabelService(url, LabelClient(url, key, retries=0, timeout_s=30))


def test_a_database_that_holds_keys_alone_is_no_label_service(database, keys, clock) -> None:
    source = LabelDatabase(database, clock)
    assert source.look(None, True) is None
    database.write_now(lambda session: World(session) and None)
    found = source.look("run", True)
    assert found is not None
    assert (found.at, found.run_id, found.num_labels) == (clock(), "run", 0)


def test_a_service_elsewhere_tells_what_its_database_would(
    database, keys, clock, live_server
) -> None:
    def fill(session) -> None:
        here = World(session)
        here.label("ann", here.group("g"), "lldd")
        here.group("h")
        here.claim("bob")

    database.write_now(fill)
    direct = LabelDatabase(database, clock)
    asked = service(live_server, keys["admin"])
    for run_id in (None, "run", "another"):
        assert asked.look(run_id, True) == direct.look(run_id, True)
    assert asked.look("run", False) == direct.look("run", False)
    assert service(live_server, keys["viewer"]).look("run", True) == direct.look("run", False)


def test_what_is_wrong_with_a_service_is_said_with_what_helps(database, clock, live_server) -> None:
    with pytest.raises(ValueError, match=r"refuses: 401 .*labels_key"):
        service(live_server, "tdmr1_wrong").look(None, False)
    annotator = make_key(database, "annotator", clock())
    with pytest.raises(ValueError, match=r"refuses: 403 .*role viewer or admin"):
        service(live_server, annotator).look(None, False)
    with pytest.raises(ValueError, match="does not answer"):
        service("http://127.0.0.1:1", annotator).look(None, False)
    other = httpx.MockTransport(lambda request: httpx.Response(200, json={"at": "noon"}))
    with pytest.raises(ValueError, match="same version of both"):
        LabelService("http://x", LabelClient("http://x", "k", http=other)).look(None, False)


def test_a_lease_is_taken_back_here_and_there(database, keys, clock, live_server) -> None:
    def fill(session) -> list[str]:
        here = World(session)
        held = []
        for n in range(2):
            here.group(f"g{n}")
            held.append(here.claim(f"person {n}").id)
        return held

    first, second = database.write_now(fill)
    direct = LabelDatabase(database, clock)
    admin = Principal("session", "key:abc", "admin")
    assert direct.revoke(first, admin) == "revoked"
    assert service(live_server, keys["admin"]).revoke(second, admin) == "revoked"
    found = direct.look(None, True)
    assert found is not None
    assert found.for_admins is not None
    assert found.for_admins.leases == []
    audit = select(AuditEntry.object, AuditEntry.actor).order_by(AuditEntry.seq.desc()).limit(2)
    actors = dict(database.read_now(lambda session: map(tuple, session.execute(audit))))
    assert actors[first] == "key:abc"
    assert actors[second].startswith("key:")
    with pytest.raises(ValueError, match="there is no assignment nothing"):
        direct.revoke("nothing", admin)
    with pytest.raises(ValueError, match=r"404 .*no assignment nothing"):
        service(live_server, keys["admin"]).revoke("nothing", admin)
    with pytest.raises(ValueError, match="403"):
        service(live_server, keys["viewer"]).revoke(second, admin)


def test_who_had_a_group_is_told_without_names_here_and_there(
    database, keys, clock, live_server
) -> None:
    def fill(session) -> str:
        here = World(session)
        here.group("g")
        here.claim("ann")
        here.wait(400)  # her lease runs out
        held = here.claim("bob")
        here.submit(held, "lldd")
        return held.id

    database.write_now(fill)
    direct = LabelDatabase(database, clock)
    for source in (direct, service(live_server, keys["viewer"])):
        first, second = source.leases("g")
        assert (first.state, second.state) == ("expired", "submitted")
        assert first.granted_at < second.granted_at <= second.finished_at
        assert source.leases("nothing") == source.leases("../labels") == []
        assert "ann" not in first.model_dump_json()


class Counting:
    """A source that counts how often it is asked, and fails when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, bool]] = []
        self.fails = False

    def look(self, run_id: str | None, with_names: bool) -> Statistics | None:
        """An empty label service."""
        self.asked.append((run_id, with_names))
        if self.fails:
            raise ValueError("away")
        with world() as here:
            return statistics(here.session, here.now, run_id, with_names)

    def leases(self, group_id: str) -> list[GroupLease]:
        """Nobody asks."""
        raise NotImplementedError

    def revoke(self, assignment_id: str, by: Principal) -> str:
        """Fails when told to."""
        if self.fails:
            raise ValueError("away")
        return "revoked"


def test_pages_share_an_answer_and_no_names(clock) -> None:
    now = [0.0]
    counting = Counting()
    source: LabelSource = SharedSource(counting, lambda: now[0])
    for _ in range(3):
        found = source.look("run", False)
        assert found is not None
        assert found.for_admins is None
    with_names = source.look("run", True)
    assert with_names is not None
    assert with_names.for_admins is not None
    assert counting.asked == [("run", False), ("run", True)]
    now[0] += FRESH_S
    source.look("run", False)
    assert len(counting.asked) == 3
    assert source.revoke("a lease", Principal("session", "operator", "admin")) == "revoked"
    source.look("run", False)
    assert len(counting.asked) == 4


def test_a_service_that_failed_is_left_alone_for_a_while() -> None:
    now = [0.0]
    counting = Counting()
    counting.fails = True
    source = SharedSource(counting, lambda: now[0])
    for _ in range(3):
        with pytest.raises(ValueError, match="away"):
            source.look("run", False)
    assert len(counting.asked) == 1
    counting.fails = False
    now[0] += REST_S
    assert source.look("run", False) is not None
