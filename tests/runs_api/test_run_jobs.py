"""Exports and samples over HTTP: who may, what is refused, how far a job has come."""

import pytest
from fastapi.testclient import TestClient

from services.runs_api.app import API, create_app
from services.runs_api.jobs import ExportIn, history, planned, record
from tests.runs_api.people import BASE_URL, bearer

pytestmark = pytest.mark.integration


@pytest.fixture
def ask(client, finished):
    """POSTs to a checkpoint, by default the run's own as an admin."""

    def post(what, body, role="admin", name="step_000006", key="k"):
        address = f"{API}/runs/{finished.id}/checkpoints/{name}/{what}"
        return client.post(address, json=body, headers=bearer(role, Idempotency_Key=key))

    return post


def nothing_happened(folder):
    """No process, no file."""
    names = {path.name for path in folder.path.iterdir()}
    return history(folder) == [] and not names & {"jobs", "exports", "samples"}


@pytest.mark.parametrize("role", ["viewer", "service", "annotator"])
def test_only_admins_start_jobs(ask, finished, role):
    assert ask("exports", {}, role).status_code == 403
    assert ask("samples", {"prompt": "a"}, role).status_code == 403
    assert nothing_happened(finished)


@pytest.mark.parametrize("name", ["step_999999", "..", "%2e%2e", "..%2f..%2fetc", "--help", "x"])
def test_no_checkpoint_s_name_is_a_path(ask, finished, name):
    assert ask("exports", {}, name=name).status_code in (404, 405, 422)
    assert nothing_happened(finished)


def test_nobody_chooses_where_a_job_writes_or_draws_without_end(ask, finished):
    assert ask("exports", {"out": "/tmp/x"}).status_code == 422
    for wrong in ({"num_images": 10**6}, {"out": "/tmp/x"}, {"prompt": "a\0b"}, {"prompt": ""}):
        assert ask("samples", {"prompt": "a"} | wrong).status_code == 422
    assert ask("exports", {}, key="").json()["code"] == "idempotency-key-missing"
    assert nothing_happened(finished)


def test_jobs_are_off_beyond_loopback(settings, keys, finished):
    far = settings.model_validate(settings.model_dump(exclude={"jobs"}) | {"host": "10.0.0.1"})
    with TestClient(create_app(far, keys), BASE_URL) as client:
        address = f"{API}/runs/{finished.id}/checkpoints/step_000006/exports"
        answer = client.post(address, json={}, headers=bearer("admin", Idempotency_Key="k"))
    assert (answer.status_code, answer.json()["code"]) == (403, "jobs-off")
    assert nothing_happened(finished)


def test_a_job_tells_how_far_it_has_come(client, finished):
    job = planned(finished, "step_000006", ExportIn(), "key:admin", "k")
    record(finished, job.id).parent.mkdir()
    record(finished, job.id).write_text(job.ended().model_dump_json())
    address = f"{API}/runs/{finished.id}/jobs"
    (listed,) = client.get(address, headers=bearer("viewer")).json()["items"]
    assert (listed["state"], listed["by"]) == ("done", "key:admin")
    assert listed["path"] == f"{finished.path}/exports/step_000006"
    assert client.get(f"{address}/{job.id}", headers=bearer("viewer")).json() == listed
    missing = client.get(f"{address}/{'0' * 20}-{'0' * 8}", headers=bearer("viewer"))
    assert missing.json()["code"] == "job-not-found"
