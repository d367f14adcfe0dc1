"""Commands reach a live run through its inbox, once each, and their outcome comes back."""

import time

import pytest

from services.run_store import commands
from tests.labels.live import eventually, fresh
from tests.runs_api.people import bearer
from tests.train_cases import Running, toy_run

pytestmark = pytest.mark.integration
API = "/api/v1"


@pytest.fixture
def live(settings):
    """A run that goes on until it is told to stop."""
    running = Running(toy_run(settings.runs, run={"iterations": 10**6}))
    running.until(lambda status: status.get("iteration", 0) >= 1)
    yield running
    commands.request(running.folder.path, "stop")
    running.join()


@pytest.fixture
def ask(client):
    def ask_(run, type, key=None, role="admin", **more):
        headers = bearer(role, **{"Idempotency_Key": key or fresh()})
        address = f"{API}/runs/{run}/commands"
        return client.post(address, json={"type": type, **more}, headers=headers)

    return ask_


def test_a_run_pauses_saves_goes_on_and_stops_when_it_is_told(client, live, ask):
    run = live.folder.id
    for type in ("pause", "checkpoint", "unpause", "stop"):
        asked = ask(run, type)
        assert asked.status_code == 202
        assert asked.json()["by"] == "key:admin"
        where = asked.headers["location"]

        def outcome(where=where):
            told = client.get(where, headers=bearer("viewer")).json()
            return told if told["state"] not in ("requested", "acknowledged") else None

        told = eventually(outcome)
        assert told["state"] == "applied"
        assert list(told["times"])[:3] == ["requested", "expires", "acknowledged"]
    live.join()
    assert live.summary["state"] == "stopped"
    assert len(list(live.folder.checkpoints.iterdir())) >= 1
    listed = client.get(f"{API}/runs/{run}/commands", headers=bearer("viewer")).json()["items"]
    assert [each["type"] for each in listed] == ["stop", "unpause", "checkpoint", "pause"]


def test_the_same_key_is_the_same_command(live, ask):
    first = ask(live.folder.id, "pause", key="k").json()
    again = ask(live.folder.id, "pause", key="k")
    assert (again.status_code, again.json()["id"]) == (202, first["id"])
    for other in ({"type": "stop"}, {"type": "pause", "timeout_s": 61}):
        refused = ask(live.folder.id, **other, key="k")
        assert (refused.status_code, refused.json()["code"]) == (422, "idempotency-key-reused")
    assert "type pause and timeout_s 60 before" in refused.json()["detail"]
    assert ask(live.folder.id, "pause", key="k", timeout_s=60).json()["id"] == first["id"]
    assert len(commands.history(live.folder.path)) == 1


def test_live_parameters_are_set_with_their_outcome_and_others_are_refused(client, live, ask):
    run = live.folder.id
    for values, said in (
        ({"algorithm.group_size": 4}, "allowed: algorithm.generator.lr"),
        ({"algorithm.generator.lr": 1}, "allowed 1e-09 to 0.01"),
    ):
        refused = ask(run, "set", arguments=values)
        assert (refused.status_code, refused.json()["code"]) == (422, "not-allowed")
        assert said in refused.json()["detail"]
    assert ask(run, "set", arguments={"checkpoint.every": 3}, role="viewer").status_code == 403
    assert commands.history(live.folder.path) == []
    asked = ask(run, "set", key="k", arguments={"checkpoint.every": 3})
    assert asked.json()["arguments"] == {"checkpoint.every": 3}
    other = ask(run, "set", key="k", arguments={"checkpoint.every": 4})
    assert other.json()["code"] == "idempotency-key-reused"
    where, viewer = asked.headers["location"], bearer("viewer")
    assert eventually(lambda: client.get(where, headers=viewer).json()["state"] == "applied")
    (change,) = client.get(f"{API}/runs/{run}", headers=viewer).json()["changes"]
    assert (change["by"], change["values"]) == ("key:admin", {"checkpoint.every": [0, 3]})


def test_a_finished_run_is_told_nothing(finished, ask):
    answer = ask(finished.id, "pause")
    assert (answer.status_code, answer.json()["code"]) == (409, "run-ended")
    assert commands.history(finished.path) == []


def test_a_command_that_no_run_sees_in_time_is_timed_out_and_never_done(client, finished, ask):
    finished.write_status({**finished.status(), "state": "running"})  # a run that does not answer
    asked = ask(finished.id, "stop", timeout_s=0.05)
    time.sleep(0.1)
    told = client.get(asked.headers["location"], headers=bearer("viewer")).json()
    assert told["state"] == "timed_out"
    assert commands.unanswered(finished.path) == []
    assert commands.read(finished.path, told["id"]).state == "timed_out"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"type": "explode"}, 422),
        ({"type": "pause", "timeout_s": 0}, 422),
        ({"type": "pause", "shell": "rm"}, 422),
        ({}, 422),
    ],
)
def test_a_command_that_is_none_is_refused(client, finished, body, status):
    address = f"{API}/runs/{finished.id}/commands"
    headers = bearer("admin", **{"Idempotency_Key": fresh()})
    assert client.post(address, json=body, headers=headers).status_code == status


def test_a_command_without_a_key_of_its_own_is_refused(client, finished):
    address = f"{API}/runs/{finished.id}/commands"
    answer = client.post(address, json={"type": "pause"}, headers=bearer("admin"))
    assert answer.json()["code"] == "idempotency-key-missing"
