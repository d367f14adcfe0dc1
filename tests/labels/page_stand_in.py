"""A few in-memory routes in the contract's shapes, to drive the page until the service is whole."""

import io
import itertools
import secrets
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from PIL import Image, ImageDraw

from services.labels.routes import page


def picture(seed: int) -> bytes:
    image = Image.new("RGB", (512, 512), ((seed * 67) % 200 + 40, (seed * 31) % 200 + 40, 120))
    ImageDraw.Draw(image).ellipse((96, 96, 416, 416), fill=((seed * 97) % 255, 200, 90))
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


class Stage:
    """What the tests set up and look at."""

    def __init__(self) -> None:
        self.groups: list[dict[str, Any]] = []
        self.leases: dict[str, dict[str, Any]] = {}
        self.labels: dict[str, dict[str, Any]] = {}
        self.submissions: list[tuple[str, str]] = []
        self.skips: list[tuple[str, str]] = []
        self.sessions = {"first": "csrf-1"}
        self.invites = {"invite-1"}
        self.lease_seconds = 120.0
        self.lock = threading.Lock()
        self.ids = itertools.count(1)
        self.down = False
        self.delay_s = 0.0

    def add_groups(self, count: int, prompt: str = "a red cube on a blue table", **more) -> None:
        for _ in range(count):
            number = next(self.ids)
            self.groups.append(
                {
                    "id": f"g{number}",
                    "prompt": prompt,
                    "images": [f"g{number}i{i}" for i in range(more.get("images", 8))],
                    "state": "open",
                    "warning": more.get("content_warning"),
                }
            )

    guidelines = ""
    guidelines_version = 1

    def expire_leases(self) -> None:
        for lease in self.leases.values():
            lease["ends"] = 0


def problem(status: int, code: str, detail: str) -> JSONResponse:
    return JSONResponse(
        {"type": f"/problems/{code}", "code": code, "status": status, "detail": detail},
        status,
        media_type="application/problem+json",
    )


def create_stand_in(stage: Stage) -> FastAPI:
    app = FastAPI()
    app.include_router(page.router)

    @app.middleware("http")
    async def guard(request: Request, proceed):
        if not request.url.path.startswith("/api/"):
            return await proceed(request)
        time.sleep(stage.delay_s)
        if stage.down:
            return problem(503, "unavailable", "down")
        if request.url.path == "/api/v1/session" and request.method == "POST":
            return await proceed(request)
        token = stage.sessions.get(request.cookies.get("tdmr1_session", ""))
        if token is None:
            return problem(401, "unauthenticated", "no session")
        if request.method != "GET" and request.headers.get("x-csrf-token") != token:
            return problem(403, "csrf", "wrong token")
        return await proceed(request)

    @app.post("/api/v1/session")
    async def sign_in(body: dict) -> Response:
        if body["invite"] not in stage.invites:
            return problem(401, "invite-invalid", "this invite is unknown, used or expired.")
        stage.invites.remove(body["invite"])
        name = secrets.token_hex(4)
        stage.sessions[name] = f"csrf-{name}"
        answer = JSONResponse({"csrf_token": stage.sessions[name]}, 201)
        answer.set_cookie("tdmr1_session", name, httponly=True)
        return answer

    @app.get("/api/v1/session")
    async def session(request: Request):
        token = stage.sessions[request.cookies["tdmr1_session"]]
        return {"annotator_id": "ann", "role": "annotator", "csrf_token": token}

    @app.get("/api/v1/images/{name}")
    async def image(name: str):
        seed = sum(ord(c) * 7**i for i, c in enumerate(name))
        return Response(picture(seed), media_type="image/png")

    def answer_of(lease: dict, status: int):
        group = next(g for g in stage.groups if g["id"] == lease["group"])
        ends = datetime.now(UTC) + timedelta(seconds=lease["ends"] - time.time())
        return JSONResponse(
            {
                "assignment_id": lease["id"],
                "lease_token": lease["token"],
                "lease_expires_at": ends.isoformat(),
                "lease_seconds": lease["ends"] - time.time(),
                "group": {
                    "group_id": group["id"],
                    "prompt": {"text": group["prompt"]},
                    "question": {"question_id": "like", "text": "Do you like this image?"},
                    "content_warning": group["warning"],
                },
                "images": [
                    {"image_id": i, "url": f"/api/v1/images/{i}", "position": p}
                    for p, i in enumerate(group["images"])
                ],
                "guidelines": stage.guidelines,
                "guidelines_version": stage.guidelines_version,
            },
            status,
        )

    @app.post("/api/v1/assignments")
    async def claim(body: dict):
        with stage.lock:
            live = [x for x in stage.leases.values() if x["live"] and x["ends"] > time.time()]
            for lease in live:
                if lease["id"] not in body.get("holding", ()):
                    return answer_of(lease, 200)
            taken = {x["group"] for x in live}
            free = [g for g in stage.groups if g["state"] == "open" and g["id"] not in taken]
            if not free or len(live) >= 2:
                return Response(status_code=204, headers={"retry-after": "1"})
            lease = {
                "id": f"a{next(stage.ids)}",
                "group": free[0]["id"],
                "token": secrets.token_hex(4),
                "ends": time.time() + stage.lease_seconds,
                "live": True,
            }
            stage.leases[lease["id"]] = lease
            return answer_of(lease, 201)

    @app.post("/api/v1/assignments/{id}/heartbeat")
    async def beat(id: str):
        lease = stage.leases[id]
        if not lease["live"] or lease["ends"] <= time.time():
            return problem(409, "lease-lost", "the lease ran out")
        lease["ends"] = time.time() + stage.lease_seconds
        return answer_of(lease, 200)

    @app.post("/api/v1/assignments/{id}/labels")
    async def submit(id: str, body: dict, request: Request):
        with stage.lock:
            lease = stage.leases[id]
            stage.submissions.append((id, request.headers["idempotency-key"]))
            group = next(g for g in stage.groups if g["id"] == lease["group"])
            if group["state"] != "open" and lease["live"]:
                return problem(409, "lease-lost", "somebody else has labelled the group")
            lease["live"] = False
            group["state"] = "ready"
            for label in body["labels"]:
                name = f"l-{label['image_id']}"
                stage.labels.setdefault(name, {"id": name, "revision": 1, "note": None} | label)
            mine = [stage.labels[f"l-{i}"] for i in group["images"]]
            return JSONResponse({"assignment_id": id, "labels": mine}, 201)

    @app.delete("/api/v1/assignments/{id}")
    async def skip(id: str, reason: str = ""):
        lease = stage.leases[id]
        lease["live"] = False
        stage.skips.append((lease["group"], reason))
        next(g for g in stage.groups if g["id"] == lease["group"])["state"] = "retired"
        return Response(status_code=204)

    @app.patch("/api/v1/labels/{id}")
    async def amend(id: str, body: dict, request: Request):
        label = stage.labels[id]
        group = next(g for g in stage.groups if label["image_id"] in g["images"])
        if group["state"] == "consumed":
            return problem(409, "group-consumed", "too late")
        if request.headers["if-match"] != f'"r{label["revision"]}"':
            return problem(412, "precondition-failed", "changed since")
        label.update(body, revision=label["revision"] + 1)
        return label

    @app.get("/api/v1/labels/{id}")
    async def one(id: str):
        return stage.labels[id]

    return app
