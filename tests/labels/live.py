"""What tests of a live server do through the client: questions, groups, labels."""

import io
import time
import uuid

import numpy as np
from PIL import Image

from services.label_client.client import LabelClient
from services.label_client.models import Group, LabelIn


def png(seed: int, size: int = 8) -> bytes:
    """A small picture of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def ask(admin: LabelClient, question_id: str = "like") -> None:
    """Make the question."""
    body = {"question_id": question_id, "text": "Do you like it?", "guidelines": "Be honest."}
    admin.request("POST", "/questions", json=body)


def put_group(
    service: LabelClient, group_id: str, num_images: int = 2, run_id: str = "run-7"
) -> Group:
    """Offer a group of small pictures."""
    digests = [service.put_image(png(hash((group_id, n)) % 2**32)) for n in range(num_images)]
    body = {
        "run_id": run_id,
        "prompt": {"id": "p", "text": "two red balls"},
        "policy_version": 3,
        "question_id": "like",
        "images": [{"index": n, "sha256": digest} for n, digest in enumerate(digests)],
        "overlap": 1,
    }
    return service.put_group(group_id, body)


def label_all(app: LabelClient, group: Group, ref: str = "user-1", value: str = "like") -> None:
    """Push the same verdict on every image; `app` has the scope labels:on_behalf."""
    labels = [
        LabelIn(image_id=image.image_id, value=value, annotator_ref=ref) for image in group.images
    ]
    assert {result.status for result in app.push_labels(labels)} <= {200, 201}


def eventually(condition, patience_s: float = 10.0):
    """The first true answer of `condition`."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if answer := condition():
            return answer
        time.sleep(0.02)
    raise AssertionError(f"not so within {patience_s} s")


def fresh() -> str:
    """An Idempotency-Key."""
    return uuid.uuid4().hex
