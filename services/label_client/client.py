"""`LabelClient`: one method an operation of the label service, with bounded, harmless retries."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import httpx

from services.label_client.models import (
    Assignment,
    AuditRecord,
    BatchResult,
    CreatedKey,
    Group,
    Invite,
    Key,
    LabelIn,
    QueueStats,
    ReceiptResult,
    RewardMessage,
)
from services.label_client.transport import Transport


class LabelClient:
    """The label service at `url` (http://host:port), asked with an API key.

    Every method raises LabelServiceError with the service's problem when it refuses, and
    LabelServiceUnreachableError when no attempt got an answer. Threads may share a client.
    """

    def __init__(
        self,
        url: str,
        key: str,
        *,
        timeout_s: float = 30.0,
        retries: int = 5,
        backoff_s: float = 0.25,
        http: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._transport = Transport(url, key, timeout_s, retries, backoff_s, http, sleep)

    def __enter__(self) -> "LabelClient":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._transport.close()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Any operation by its path below /api/v1, for what has no method here."""
        return self._transport.send(method, path, **options)

    # Images and groups

    def put_image(self, content: bytes, media_type: str = "image/png") -> str:
        """Upload a PNG, JPEG or WebP file's bytes; its SHA-256, by which groups name it."""
        sha256 = hashlib.sha256(content).hexdigest()
        headers = {"Content-Type": media_type}
        self._transport.send("PUT", f"/images/{sha256}", content=content, headers=headers)
        return sha256

    def image(self, url_or_sha256: str, size: str | None = None) -> bytes:
        """An image's bytes, by digest or by the `url` of an assignment; size orig, 512 or 256."""
        path = url_or_sha256.removeprefix("/api/v1")
        path = path if path.startswith("/") else f"/images/{path}"
        return self._transport.send("GET", path, params={"size": size}).content

    def put_group(self, group_id: str, body: Mapping[str, Any]) -> Group:
        """Offer a group for labelling; the same body again changes nothing."""
        answer = self._transport.send("PUT", f"/groups/{group_id}", json=dict(body))
        return Group.model_validate(answer.json())

    def group(self, group_id: str, include: str | None = None) -> Group:
        """A group as it stands; `include` may be `labels,aggregate`."""
        answer = self._transport.send("GET", f"/groups/{group_id}", params={"include": include})
        return Group.model_validate(answer.json())

    def pages(self, path: str, **filters: Any) -> Iterator[dict[str, Any]]:
        """Every item of a listing, such as `/labels`, page after page."""
        cursor: str | None = None
        while True:
            page = self._transport.send("GET", path, params={**filters, "cursor": cursor}).json()
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    # Labels

    def push_label(self, label: LabelIn) -> dict[str, Any]:
        """Store one verdict of a person; 409 `label-exists` if they said otherwise before."""
        return self._transport.send("POST", "/labels", json=label.wire()).json()

    def push_labels(
        self, labels: Sequence[LabelIn], atomic: bool = False, source: str = "api"
    ) -> list[BatchResult]:
        """Store up to 1,000 verdicts; each has its own result, or none is stored with `atomic`.
        `source` is api, or import for those out of a file."""
        body = {"labels": [label.wire() for label in labels]}
        params = {"atomic": "true" if atomic else None, "source": source}
        answer = self._transport.send("POST", "/labels:batch", json=body, params=params).json()
        return [BatchResult.model_validate(result) for result in answer["results"]]

    # Assignments

    def claim(self, question_id: str | None = None, wait_s: int = 0) -> Assignment | None:
        """Lease a group to label, waiting up to 20 s for one; None if there is none."""
        body: dict[str, Any] = {"wait_seconds": wait_s}
        if question_id is not None:
            body["question_id"] = question_id
        answer = self._transport.send("POST", "/assignments", json=body, wait_s=wait_s)
        return None if answer.status_code == 204 else Assignment.model_validate(answer.json())

    def heartbeat(self, assignment: Assignment) -> dict[str, Any]:
        """Keep the lease; 409 `lease-lost` if it is gone."""
        path = f"/assignments/{assignment.assignment_id}/heartbeat"
        body = {"lease_token": assignment.lease_token}
        return self._transport.send("POST", path, json=body).json()

    def submit(
        self, assignment: Assignment, labels: Sequence[LabelIn], final: bool = True
    ) -> dict[str, Any]:
        """Send verdicts on a leased group; `final=False` keeps the lease for the rest."""
        body = {
            "lease_token": assignment.lease_token,
            "labels": [label.wire() for label in labels],
            "final": final,
        }
        path = f"/assignments/{assignment.assignment_id}/labels"
        return self._transport.send("POST", path, json=body).json()

    def release(self, assignment: Assignment, reason: str | None = None) -> None:
        """Give a leased group back; with a `reason` it counts as a skip."""
        path = f"/assignments/{assignment.assignment_id}"
        self._transport.send("DELETE", path, params={"reason": reason})

    def revoke(self, assignment_id: str) -> str:
        """Take a lease back from whoever holds it (admin); the state it is in: `revoked`, or
        `released`, `skipped` or `expired` where it was over before. 409 if it was submitted."""
        answer = self._transport.send("POST", f"/assignments/{assignment_id}:revoke")
        return str(answer.json()["state"])

    # Reward queue

    def receive(
        self,
        max_groups: int = 16,
        visibility_s: int = 60,
        wait_s: int = 0,
        run_id: str | None = None,
    ) -> list[RewardMessage]:
        """Take reward messages; each comes again after `visibility_s` seconds unless acked.

        Delivery is at least once: tell repeats by (group_id, reward_revision).
        """
        body: dict[str, Any] = {
            "max_groups": max_groups,
            "visibility_seconds": visibility_s,
            "wait_seconds": wait_s,
        }
        if run_id is not None:
            body["run_id"] = run_id
        answer = self._transport.send("POST", "/reward-queue:receive", json=body, wait_s=wait_s)
        return [RewardMessage.model_validate(message) for message in answer.json()["messages"]]

    def ack(self, receipts: Sequence[str]) -> list[ReceiptResult]:
        """Say that messages are safe with this consumer and need not come again."""
        return self._settle("ack", {"receipts": list(receipts)})

    def nack(self, receipts: Sequence[str], reason: str | None = None) -> list[ReceiptResult]:
        """Give messages back at once; `reason` is kept for their dead letter."""
        body: dict[str, Any] = {"receipts": list(receipts)}
        return self._settle("nack", body if reason is None else {**body, "reason": reason})

    def extend(self, receipts: Sequence[str], visibility_s: int) -> list[ReceiptResult]:
        """Keep messages hidden for `visibility_s` more seconds from now."""
        body = {"receipts": list(receipts), "visibility_seconds": visibility_s}
        return self._settle("extend", body)

    def queue_stats(self) -> QueueStats:
        """How full the reward queue is (admin)."""
        return QueueStats.model_validate(self._transport.send("GET", "/reward-queue").json())

    def redrive(self) -> int:
        """Put every dead letter back into the queue (admin); how many there were."""
        answer = self._transport.send("POST", "/reward-queue/dead-letters:redrive", json={})
        return int(answer.json()["redriven"])

    # For admins

    def audit(
        self, limit: int = 50, cursor: str | None = None, **filters: Any
    ) -> tuple[list[AuditRecord], str | None]:
        """A page of the audit log, newest first, and the cursor of the next one; `filters` are
        actor, action, object and since (an aware time)."""
        if filters.get("since") is not None:
            filters["since"] = filters["since"].isoformat()
        asked = {**filters, "limit": limit, "cursor": cursor}
        page = self._transport.send("GET", "/audit", params=asked).json()
        records = [AuditRecord.model_validate(record) for record in page["items"]]
        return records, page["next_cursor"]

    def keys(
        self, limit: int = 50, cursor: str | None = None, role: str | None = None
    ) -> tuple[list[Key], str | None]:
        """A page of API keys of all states, newest first, and the cursor of the next one."""
        asked = {"limit": limit, "cursor": cursor, "role": role}
        page = self._transport.send("GET", "/api-keys", params=asked).json()
        return [Key.model_validate(key) for key in page["items"]], page["next_cursor"]

    def create_key(self, name: str, role: str, **more: Any) -> CreatedKey:
        """Make a key, whose text is in this answer and nowhere else; `more` may be scopes,
        annotator_id (of a key of role annotator) and expires_in_days (None: never)."""
        body = {"name": name, "role": role, **more}
        answer = self._transport.send("POST", "/api-keys", json=body)
        return CreatedKey.model_validate(answer.json())

    def revoke_key(self, key_id: str) -> None:
        """End a key at once; revoking twice keeps the first time."""
        path = f"/api-keys/{key_id}"
        etag = self._transport.send("GET", path).headers["etag"]
        self._transport.send("DELETE", path, headers={"If-Match": etag})

    def create_annotator(self, name: str) -> str:
        """Make a person, who can then get keys and invites; their id."""
        answer = self._transport.send("POST", "/annotators", json={"name": name})
        return str(answer.json()["annotator_id"])

    def invite(self, annotator_id: str, role: str = "annotator") -> Invite:
        """A link that makes one browser theirs, once; its `url` is a path of the service."""
        path = f"/annotators/{annotator_id}/invites"
        answer = self._transport.send("POST", path, json={"role": role})
        return Invite.model_validate(answer.json())

    def _settle(self, verb: str, body: dict[str, Any]) -> list[ReceiptResult]:
        answer = self._transport.send("POST", f"/reward-queue:{verb}", json=body).json()
        return [ReceiptResult.model_validate(result) for result in answer["results"]]
