"""Likes from your own app: `KEY=tdmr1_... python examples/push_likes.py GROUP_ID`."""

import os
import sys
import uuid

import httpx

key = {"Authorization": f"Bearer {os.environ['KEY']}"}
with httpx.Client(base_url="http://127.0.0.1:8321/api/v1", headers=key) as labels:
    for image in labels.get(f"/groups/{sys.argv[1]}").raise_for_status().json()["images"]:
        like = {"image_id": image["image_id"], "value": "like", "annotator_ref": "user-7"}
        once = {"Idempotency-Key": str(uuid.uuid4())}
        stored = labels.post("/labels", json=like, headers=once).raise_for_status()
        sys.stdout.write(f"{stored.json()['id']}\n")
