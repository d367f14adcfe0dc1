"""The client's patience: what it repeats, with which key, and what it tells."""

import httpx
import pytest

from services.label_client.client import LabelClient
from services.label_client.errors import LabelServiceError, LabelServiceUnreachableError
from services.label_client.models import LabelIn

pytestmark = pytest.mark.unit
LIKE = LabelIn(image_id="01A", value="like", annotator_ref="user-1")


class _Server:
    """Gives the listed answers in turn and remembers what it was asked."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []
        self.pauses = []

    def __call__(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **options):
        return LabelClient(
            "http://labels.test/",
            "tdmr1_a_b",
            http=httpx.MockTransport(self),
            sleep=self.pauses.append,
            **options,
        )


def test_a_lost_answer_is_asked_for_again_with_the_same_idempotency_key():
    server = _Server(
        httpx.ReadError("gone"), httpx.ConnectError("no"), httpx.Response(201, json={})
    )
    with server.client() as client:
        client.push_label(LIKE)
    keys = {request.headers["idempotency-key"] for request in server.requests}
    assert len(server.requests) == 3
    assert len(keys) == 1
    assert len({request.content for request in server.requests}) == 1


def test_two_calls_have_two_idempotency_keys():
    server = _Server(httpx.Response(201, json={}), httpx.Response(200, json={}))
    with server.client() as client:
        client.push_label(LIKE)
        client.push_label(LIKE)
    first, second = (request.headers["idempotency-key"] for request in server.requests)
    assert first != second


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_given_the_time_it_asks_for(status):
    busy = httpx.Response(status, headers={"Retry-After": "7"}, json={"code": "busy"})
    server = _Server(busy, httpx.Response(201, json={"id": "L1"}))
    with server.client() as client:
        assert client.push_label(LIKE) == {"id": "L1"}
    assert server.pauses == [7.0]


def test_retries_end_and_say_so():
    server = _Server(*[httpx.ConnectError("refused") for _ in range(3)])
    with (
        server.client(retries=2) as client,
        pytest.raises(LabelServiceUnreachableError, match="attempt 3 of 3"),
    ):
        client.push_label(LIKE)
    assert server.pauses == [0.25, 0.5]


def test_a_refusal_is_not_repeated_and_tells_the_problem():
    problem = {
        "code": "label-exists",
        "detail": "this person said dislike",
        "request_id": "01R",
        "errors": [{"pointer": "/value", "detail": "use PATCH"}],
    }
    server = _Server(httpx.Response(409, json=problem))
    with server.client() as client, pytest.raises(LabelServiceError) as caught:
        client.push_label(LIKE)
    assert caught.value.status == 409
    assert caught.value.code == "label-exists"
    assert caught.value.request_id == "01R"
    assert "/value: use PATCH" in str(caught.value)
    assert len(server.requests) == 1


def test_a_page_that_is_no_problem_document_is_told_too():
    server = _Server(httpx.Response(404, text="<html>not here</html>"))
    with server.client() as client, pytest.raises(LabelServiceError, match="not-a-problem"):
        client.group("g1")


def test_listings_are_read_page_after_page():
    server = _Server(
        httpx.Response(200, json={"items": [{"id": 1}], "next_cursor": "c"}),
        httpx.Response(200, json={"items": [{"id": 2}], "next_cursor": None}),
    )
    with server.client() as client:
        assert [item["id"] for item in client.pages("/labels", run_id="r")] == [1, 2]
    assert dict(server.requests[1].url.params) == {"run_id": "r", "cursor": "c"}


def test_an_empty_queue_is_no_assignment():
    server = _Server(httpx.Response(204))
    with server.client() as client:
        assert client.claim(wait_s=20) is None
    assert server.requests[0].extensions["timeout"]["read"] == 50.0


def test_a_redirect_is_not_followed_with_the_key():
    server = _Server(httpx.Response(302, headers={"Location": "http://elsewhere.test/"}))
    with server.client() as client, pytest.raises(LabelServiceError):
        client.group("g1")
    assert len(server.requests) == 1
