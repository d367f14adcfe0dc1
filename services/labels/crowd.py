"""Simulated people who label over the real HTTP API, each with a key of their own.

A person likes an image with probability sigmoid(logit(taste(pixels)) + leniency). Spammers answer
by coin, quitters leave in the middle of a group and let its lease run out. What a person says of an
image depends on (seed, person, pixels) alone, so who labels when does not change what is said.
"""

import hashlib
import io
import math
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.label_client.client import LabelClient
from services.label_client.errors import LabelServiceError
from services.label_client.models import Assignment, LabelIn, Value

Taste = Callable[[NDArray[np.uint8]], float]
"""Pixels, uint8 (H, W, 3), to the probability that an honest person of no leniency likes them."""

HEARTBEAT_S = 30.0
LONGEST_WAIT_S = 5
"""For work, in one request."""
LOST = ("lease-lost", "assignment-finished", "not-found")
MOST_GROUPS_OF_A_QUITTER = 5


@dataclass(frozen=True)
class CrowdConfig:
    """Who the people are."""

    num_people: int
    """At least 1."""
    seed: int = 0
    """Key of everything that is drawn."""
    leniency_sd: float = 0.0
    """Standard deviation of leniency over people, in logits."""
    spammers: float = 0.0
    """Share of people who toss a coin."""
    quitters: float = 0.0
    """Share of people who leave for good in the middle of one of their first groups."""
    judged: float = 1.0
    """Share of a group's images that a person judges, rounded up; they skip the others."""
    unsure: float = 0.0
    """Share of an honest person's answers that are `unsure`."""
    median_s: float = 0.0
    """Median time an image takes, in seconds; 0 does not wait."""
    spread: float = 0.5
    """Standard deviation of the logarithm of that time."""


@dataclass(frozen=True)
class Person:
    """One of them; pure, so that it can be asked without a server."""

    number: int
    config: CrowdConfig
    taste: Taste = field(repr=False)

    @property
    def name(self) -> str:
        """As the service is told."""
        return f"simulated {self.config.seed}-{self.number}"

    @property
    def leniency(self) -> float:
        """Logits that this person is kinder than others."""
        return self._draw("leniency").gauss(0, self.config.leniency_sd)

    @property
    def is_spammer(self) -> bool:
        """Whether they toss a coin: an exact share of the crowd, drawn by the seed."""
        return _among(self.number, self.config, "spammers", self.config.spammers)

    @property
    def quits_in_group(self) -> int | None:
        """The group, counted from 0, in the middle of which they leave."""
        if not _among(self.number, self.config, "quitters", self.config.quitters):
            return None
        return self._draw("quits").randrange(MOST_GROUPS_OF_A_QUITTER)

    def judge(self, content: bytes) -> Value:
        """What they say of an image file."""
        draw = self._draw("judge", hashlib.sha256(content).hexdigest())
        if self.is_spammer:
            return draw.choice(("like", "dislike"))
        if draw.random() < self.config.unsure:
            return "unsure"
        rate = min(max(self.taste(decode(content)), 1e-6), 1 - 1e-6)
        logit = math.log(rate / (1 - rate)) + self.leniency
        return "like" if draw.random() < 1 / (1 + math.exp(-logit)) else "dislike"

    def seconds(self, num_judged: int) -> float:
        """How long they look at an image, the one after `num_judged` others."""
        if self.config.median_s == 0:
            return 0.0
        draw = self._draw("seconds", num_judged)
        return self.config.median_s * math.exp(draw.gauss(0, self.config.spread))

    def _draw(self, *purpose: object) -> random.Random:
        return random.Random(repr((self.config.seed, self.number, *purpose)))


@dataclass
class CrowdReport:
    """What a crowd did."""

    values: Counter[str] = field(default_factory=Counter)
    """Verdicts sent and taken, by value."""
    num_groups: int = 0
    num_lost: int = 0
    """Groups whose lease was lost before the answers arrived."""
    num_quit: int = 0
    """People who left for good."""
    claim_s: list[float] = field(default_factory=list)
    submit_s: list[float] = field(default_factory=list)
    """Seconds that each request took."""


def make_crowd(config: CrowdConfig, taste: Taste) -> list[Person]:
    """The people of a config."""
    if config.num_people < 1:
        raise ValueError(f"num_people={config.num_people}; a crowd has at least 1")
    return [Person(number, config, taste) for number in range(config.num_people)]


def run_crowd(
    people: Sequence[tuple[Person, LabelClient]],
    question_id: str | None = None,
    stop: threading.Event | None = None,
    idle_s: float = 2.0,
) -> CrowdReport:
    """Let everybody label, a thread each, until `stop` or until each found nothing for `idle_s`."""
    report, lock = CrowdReport(), threading.Lock()
    shift = _Shift(question_id, stop or threading.Event(), idle_s, report, lock)
    with ThreadPoolExecutor(len(people), thread_name_prefix="simulated") as pool:
        for done in [pool.submit(shift.work, person, client) for person, client in people]:
            done.result()
    return report


@dataclass(frozen=True)
class _Shift:
    """What the people of one run share."""

    question_id: str | None
    stop: threading.Event
    idle_s: float
    report: CrowdReport
    lock: threading.Lock

    def work(self, person: Person, client: LabelClient) -> None:
        """One person's day."""
        num_groups, num_judged, idle_since = 0, 0, time.monotonic()
        while not self.stop.is_set():
            since = time.monotonic()
            wait_s = int(min(self.idle_s, LONGEST_WAIT_S))
            assignment = client.claim(self.question_id, wait_s=wait_s)
            if assignment is None:
                if time.monotonic() - idle_since > self.idle_s or self.stop.wait(0.1):
                    return
                continue
            with self.lock:
                self.report.claim_s.append(time.monotonic() - since)
            quits = num_groups == person.quits_in_group
            self._label(person, client, assignment, num_judged, quits)
            if quits:
                return
            num_groups += 1
            num_judged += len(assignment.images)
            idle_since = time.monotonic()

    def _label(
        self,
        person: Person,
        client: LabelClient,
        assignment: Assignment,
        num_judged: int,
        quits: bool,
    ) -> None:
        images = sorted(assignment.images, key=lambda image: image.position)
        num_judging = math.ceil(person.config.judged * len(images))
        skipped = [] if quits else images[num_judging:]
        images = images[: len(images) // 2 if quits else num_judging]
        labels = [LabelIn(image_id=image.image_id, value="skip") for image in skipped]
        try:
            for image in images:
                value = person.judge(client.image(image.url))
                seconds = person.seconds(num_judged + len(labels))
                self._look(client, assignment, seconds)
                latency_ms = round(1000 * seconds)
                labels.append(LabelIn(image_id=image.image_id, value=value, latency_ms=latency_ms))
            if labels:
                self._submit(client, assignment, labels, final=not quits)
        except LabelServiceError as error:
            if error.code not in LOST:
                raise
            with self.lock:
                self.report.num_lost += 1
        if quits:
            with self.lock:
                self.report.num_quit += 1

    def _look(self, client: LabelClient, assignment: Assignment, seconds: float) -> None:
        while seconds > HEARTBEAT_S:
            self.stop.wait(HEARTBEAT_S)
            client.heartbeat(assignment)
            seconds -= HEARTBEAT_S
        if seconds > 0:
            self.stop.wait(seconds)

    def _submit(
        self, client: LabelClient, assignment: Assignment, labels: list[LabelIn], final: bool
    ) -> None:
        since = time.monotonic()
        client.submit(assignment, labels, final)
        took_s = time.monotonic() - since
        with self.lock:
            self.report.submit_s.append(took_s)
            self.report.num_groups += final
            self.report.values.update(label.value for label in labels)


def decode(content: bytes) -> NDArray[np.uint8]:
    """An image file as uint8 (H, W, 3)."""
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def _among(number: int, config: CrowdConfig, purpose: str, share: float) -> bool:
    order = list(range(config.num_people))
    random.Random(repr((config.seed, purpose))).shuffle(order)
    return order.index(number) < round(share * config.num_people)
