"""A label service of a few lines behind httpx, for the tests of those who talk to it."""

import json
import re
import threading
from typing import Any

import httpx

from services.label_client.client import LabelClient

STUCK_S = 5.0


class FakeLabelService:
    """Keeps what it is sent; a test decides what people said, and whether it can be reached."""

    def __init__(self, run_id: str = "run") -> None:
        self.run_id = run_id
        self.images: dict[str, bytes] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.messages: list[dict[str, Any]] = []
        self.acked: list[str] = []
        self.nacked: list[str] = []
        self.away = False
        self.refusal: tuple[int, str] | None = None
        self.aggregates: dict[str, dict[str, Any]] = {}
        self.stuck = ""
        """Requests to paths that start so hang until `released`."""
        self.released = threading.Event()

    def client(self, retries: int = 0, **options: Any) -> LabelClient:
        """A client of it that neither waits nor retries."""
        http = httpx.MockTransport(self._answer)
        return LabelClient("http://labels", "key", retries=retries, http=http, **options)

    def say(
        self, group_id: int | str, *mu: float | None, revision: int = 1, state: str = "ready"
    ) -> dict[str, Any]:
        """Enqueue a reward message; `mu` an entry an image."""
        images = [
            {"image_id": f"i{i}", "index": i, "mu": value, "likes": 0.5, "n": 1.0, "rho": 1 / 3}
            for i, value in enumerate(mu)
        ]
        message = {
            "receipt": f"r{len(self.messages)}",
            "group_id": f"{self.run_id}-{group_id}",
            "run_id": self.run_id,
            "reward_revision": revision,
            "receive_count": 1,
            "policy_version": 0,
            "coverage": 1.0,
            "state": state,
            "images": images,
        }
        self.messages.append(message)
        return message

    def _answer(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("nobody is there", request=request)
        path = request.url.path.removeprefix("/api/v1")
        if self.stuck and path.startswith(self.stuck):
            self.released.wait(STUCK_S)
        if self.refusal is not None:
            status, code = self.refusal
            return httpx.Response(status, json={"code": code, "detail": "so it is"})
        if found := re.fullmatch("/images/(.*)", path):
            self.images[found[1]] = request.content
            return httpx.Response(201)
        if found := re.fullmatch("/groups/(.*)", path):
            return self._put_group(found[1], json.loads(request.content))
        if path == "/reward-queue:receive":
            assert json.loads(request.content)["run_id"] in (self.run_id, "tdm-r1.check")
            waiting = [m for m in self.messages if m["receipt"] not in self.acked]
            return httpx.Response(200, json={"messages": waiting})
        if path in ("/reward-queue:ack", "/reward-queue:nack"):
            receipts = json.loads(request.content)["receipts"]
            (self.acked if path.endswith(":ack") else self.nacked).extend(receipts)
            results = [{"receipt": receipt, "status": 200} for receipt in receipts]
            return httpx.Response(200, json={"results": results})
        if found := re.fullmatch("/aggregates/(.*)", path):
            if found[1] in self.aggregates:
                return httpx.Response(200, json=self.aggregates[found[1]])
            return httpx.Response(404, json={"code": "not-found", "detail": "no such group"})
        if path in ("/questions/like", "/questions/old"):
            state = "active" if path.endswith("like") else "closed"
            return httpx.Response(200, json={"question_id": path[-4:], "state": state})
        return httpx.Response(404, json={"code": "not-found", "detail": path})

    def _put_group(self, name: str, body: dict[str, Any]) -> httpx.Response:
        if name in self.groups:
            return httpx.Response(409, json={"code": "group-exists", "detail": "another body"})
        self.groups[name] = body
        images = [{"image_id": f"i{i['index']}", **i} for i in body["images"]]
        answer = {"group_id": name, "run_id": body["run_id"], "state": "open", "images": images}
        return httpx.Response(201, json=answer)
