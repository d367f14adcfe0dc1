"""Simulated people at work, as cheap clients: claim a group, look at each image, submit, again."""

import json
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from benchmarks.load import Client, expect, play, request

SPREAD = 0.5
"""Standard deviation of the logarithm of the time that an image takes."""
NOTHING_S = 1.0
"""How long who found nothing waits before they ask again."""
ASSIGNMENTS = "/api/v1/assignments"

Over = Callable[[], bool]
"""Whether a shift is over."""


@dataclass
class Shift:
    """What a crowd did; times in seconds."""

    first_claims_s: list[float] = field(default_factory=list)
    """Each person's first claim: they all come at once."""
    claims_s: list[float] = field(default_factory=list)
    images_s: list[float] = field(default_factory=list)
    submits_s: list[float] = field(default_factory=list)
    num_labels: int = 0
    num_idle: int = 0
    """Claims that found nothing."""


def work(
    port: int,
    keys: Sequence[str],
    seconds: float,
    median_s: float = 1.0,
    beside: Callable[[Shift, Over], Iterable[Client]] = lambda shift, over: (),
) -> Shift:
    """Let the owners of these keys label for so long, who look at an image for `median_s`, and
    other clients beside them."""
    shift = Shift()
    until = time.perf_counter() + seconds

    def over() -> bool:
        return time.perf_counter() >= until

    people = [_person(key, median_s, over, shift) for key in keys]
    play(port, [*people, *beside(shift, over)])
    return shift


def _person(key: str, median_s: float, over: Over, shift: Shift) -> Client:
    draw = random.Random(key)
    claims = shift.first_claims_s
    while not over():
        answer = expect((yield request("POST", ASSIGNMENTS, key, b"{}")), 200, 201, 204)
        if answer.status == 204:
            shift.num_idle += 1
            yield NOTHING_S
            continue
        claims.append(answer.seconds)
        claims = shift.claims_s
        assignment = json.loads(answer.body)
        labels = []
        for image in assignment["images"]:
            address = f"{image['url']}?size=512"
            shift.images_s.append(expect((yield request("GET", address, key)), 200).seconds)
            looked_s = median_s * draw.lognormvariate(0, SPREAD)
            yield looked_s
            value = draw.choice(("like", "dislike"))
            latency_ms = round(1000 * looked_s)
            labels.append({"image_id": image["image_id"], "value": value, "latency_ms": latency_ms})
        body = {"lease_token": assignment["lease_token"], "labels": labels, "final": True}
        address = f"{ASSIGNMENTS}/{assignment['assignment_id']}/labels"
        submit = request("POST", address, key, json.dumps(body).encode())
        shift.submits_s.append(expect((yield submit), 201).seconds)
        shift.num_labels += len(labels)
