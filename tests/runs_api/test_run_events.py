"""A run's event stream: everything once, in order, from wherever a client has been before."""

import json

import httpx
import pytest

from services.run_store import commands
from services.run_store.images import ImageStore
from services.runs_api.positions import Position
from services.runs_api.watching import TornError, newest, since
from tests.labels.live import eventually
from tests.runs_api.people import bearer
from tests.serving import served

pytestmark = pytest.mark.integration


@pytest.fixture
def live_server(app):
    with served(app) as url:
        yield url


def read(url, run, num, last_id=None, topics=None):
    """(event, id, data) of the first `num` named events."""
    headers = bearer("viewer") | ({"Last-Event-ID": last_id} if last_id else {})
    params = {"topics": topics} if topics else {}
    found = []
    address = f"{url}/api/v1/runs/{run}/events"
    with httpx.stream("GET", address, headers=headers, params=params, timeout=20) as answer:
        assert answer.status_code == 200
        block = {}
        for line in answer.iter_lines():
            if line:
                name, _, value = line.partition(": ")
                block[name] = value
            else:
                if "event" in block:
                    found.append((block["event"], block["id"], json.loads(block["data"])))
                block = {}
            if len(found) == num:
                return found
    raise AssertionError(f"the stream ended after {found}")


def add_iteration(folder, step):
    about = {"time": step, "step": step, "policy_version": step, "surrogate_version": step}
    with folder.metrics.open("a") as file:
        file.write(json.dumps(about) + "\n")


def test_everything_is_told_from_the_beginning_and_nothing_twice(live_server, finished):
    start = str(Position())
    told = read(live_server, finished.id, 4, start)
    assert [event for event, _, _ in told] == ["metrics", "groups", "log", "status"]
    assert told[0][2] == {"from_step": 1, "to_step": 6, "num_lines": 6}
    assert told[3][2]["state"] == "finished"
    for number in range(3):  # cut anywhere, resumed there
        rest = read(live_server, finished.id, 3 - number, told[number][1])
        assert rest == told[number + 1 :]


def test_a_new_listener_hears_what_happens_from_now_on(live_server, finished):
    place = str(newest(finished))
    add_iteration(finished, 7)
    identity = commands.request(finished.path, "pause")
    told = read(live_server, finished.id, 2, place)
    assert [(event, data) for event, _, data in told] == [
        ("metrics", {"from_step": 7, "to_step": 7, "num_lines": 1}),
        ("commands", {"id": identity, "type": "pause", "state": "requested", "reason": ""}),
    ]


def test_topics_choose_and_an_unknown_one_is_refused(live_server, client, finished):
    told = read(live_server, finished.id, 1, str(Position()), topics="status")
    assert told[0][0] == "status"
    for params, headers in (({"topics": "gossip"}, {}), ({}, {"Last-Event-ID": "seven"})):
        address = f"{live_server}/api/v1/runs/{finished.id}/events"
        answer = httpx.get(address, params=params, headers=bearer("viewer") | headers)
        assert answer.status_code == 422


def test_an_id_of_another_folder_starts_over(live_server, finished):
    told = read(live_server, finished.id, 1, str(Position(metrics=10**9)))
    assert told[0][:2] == ("reset", str(newest(finished)))


def test_a_stream_gives_its_place_back_and_there_are_but_four(live_server, app, finished):
    address = f"{live_server}/api/v1/runs/{finished.id}/events"
    streams = [httpx.stream("GET", address, headers=bearer("viewer")) for _ in range(4)]
    opened = [stream.__enter__() for stream in streams]
    assert [answer.status_code for answer in opened] == [200] * 4
    assert httpx.get(address, headers=bearer("viewer")).status_code == 429
    for stream in streams:
        stream.__exit__(None, None, None)
    eventually(lambda: len(app.state.streams) == 0)


def test_a_key_that_is_revoked_hears_no_more(finished):
    import asyncio

    from services.runs_api.event_stream import stream

    async def listen():
        async def forbidden():
            return False

        topics = frozenset({"status"})
        blocks = stream(finished, topics, None, forbidden, heartbeat_s=0.0, poll_s=0.01)
        return [block async for block in blocks]

    assert len(asyncio.run(listen())) == 1


def test_a_file_that_was_cut_is_torn(finished):
    place = newest(finished)
    finished.metrics.write_text("")
    with pytest.raises(TornError, match=r"metrics\.jsonl"):
        list(since(finished, place))


def test_another_run_of_the_same_name_is_torn_however_long_its_files(finished):
    place = newest(finished)
    assert list(since(finished, place)) == []
    origin = json.loads(finished.origin_path.read_text())
    finished.origin_path.write_text(json.dumps(origin | {"created_at": origin["created_at"] + 1}))
    with finished.metrics.open("a") as file:
        file.write(finished.metrics.read_text())
    with pytest.raises(TornError, match="another run"):
        list(since(finished, place))


def test_positions_are_written_and_read():
    place = Position(1, 2, 3, 4, 5, 6, 7)
    assert Position.parse(str(place)) == place
    assert Position.parse("m1.i2") is None
    assert Position.parse(str(place) + "0" * 30) is None


def test_torn_lines_and_what_is_no_command_hide_nothing_else(finished):
    place = newest(finished)
    for path in (finished.metrics, ImageStore(finished.images).index_path, finished.alerts):
        with path.open("a") as file:
            file.write('{"step": 7, "ti\n')
    add_iteration(finished, 8)
    (finished.path / "commands" / "000.json").write_text('{"id": ')
    identity = commands.request(finished.path, "pause")
    told = [
        (each.topic, each.data.get("num_lines", each.data.get("id")))
        for each in since(finished, place)
    ]
    assert told == [("metrics", 1), ("commands", identity)]
