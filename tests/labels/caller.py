"""The label service as its callers see it, over `TestClient`."""

import hashlib
import io
from typing import Any

import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image as Pillow

from services.labels.store.database import Database
from services.labels.sweeping import sweep_once
from tests.labels.people import SettableClock, bearer, make_annotator, make_key

API = "/api/v1"


class Api:
    """The service as its callers see it, each with a key of their role."""

    def __init__(
        self,
        client: TestClient,
        keys: dict[str, str],
        database: Database,
        clock: SettableClock,
        app: FastAPI,
    ) -> None:
        self.client, self.keys, self.database, self.clock = client, dict(keys), database, clock
        self.app = app
        self.keys["app"] = make_key(database, "service", clock(), "labels:on_behalf")
        for name in ("bob", "cem"):
            person = make_annotator(database, name, clock())
            self.keys[name] = make_key(database, "annotator", clock(), annotator_id=person)
        question = {"question_id": "like", "text": "Like it?", "guidelines": "Be honest."}
        assert self("admin", "POST", "/questions", question, Idempotency_Key="q").status_code == 201

    def __call__(self, who: str, method: str, path: str, body: Any = None, **headers: str) -> Any:
        content: dict[str, Any] = {}
        if body is not None:
            content = {"content": body} if isinstance(body, bytes) else {"json": body}
        headers = bearer(self.keys[who], **headers)
        return self.client.request(method, API + path, headers=headers, **content)

    def group(self, group_id: str, num_images: int = 2, **changes: Any) -> dict[str, Any]:
        """Put a group of fresh images; the answer."""
        digests = [self.image(png(f"{group_id}{n}")) for n in range(num_images)]
        answer = self("service", "PUT", f"/groups/{group_id}", group_body(digests, **changes))
        assert answer.status_code == 201, answer.text
        return answer.json()

    def image(self, content: bytes) -> str:
        """Put an image; its digest."""
        digest = hashlib.sha256(content).hexdigest()
        assert self("service", "PUT", f"/images/{digest}", content).status_code in (200, 201)
        return digest

    def claim(self, who: str = "annotator", **body: Any) -> Any:
        """Lease something."""
        return self(who, "POST", "/assignments", body)

    def submit(self, lease: dict[str, Any], who: str, *values: str, final: bool = True) -> Any:
        """Submit verdicts in the order shown."""
        labels = [
            {"image_id": image["image_id"], "value": value}
            for image, value in zip(lease["images"], values, strict=False)
        ]
        body = {"lease_token": lease["lease_token"], "labels": labels, "final": final}
        return self(who, "POST", f"/assignments/{lease['assignment_id']}/labels", body)

    def sweep(self) -> None:
        """Let what is due happen."""
        portal = self.client.portal
        assert portal is not None
        portal.call(sweep_once, self.app)


def png(name: str, size: tuple[int, int] = (24, 16)) -> bytes:
    """A picture of its own."""
    rng = np.random.default_rng(int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]))
    buffer = io.BytesIO()
    Pillow.fromarray(rng.integers(0, 256, (*size[::-1], 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def group_body(digests: list[str], **changes: Any) -> dict[str, Any]:
    """What a trainer sends."""
    images = [{"index": index, "sha256": digest} for index, digest in enumerate(digests)]
    prompt = {"id": "p", "text": "a <b>cat</b>"}
    body = {"run_id": "run", "prompt": prompt, "policy_version": 1, "question_id": "like"}
    return body | {"images": images, "overlap": 1} | changes


def problem(answer: Any) -> tuple[int, str]:
    """Status and code, of a proper problem."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]
