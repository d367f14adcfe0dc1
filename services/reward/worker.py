"""Images in, one record for every (sample, slot) out, whatever the reward does.

A reward that raises is tried again with growing pauses; one that does not answer by the deadline is
left behind on its thread and a fresh one is built, for which loading has time of its own. What is
then missing is `failed` or `expired`.
"""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar, cast

from services.config import RewardConfig
from services.reward.contract import (
    MAX_REASON,
    Answer,
    ChecksPrompts,
    GroupwiseReward,
    PointwiseReward,
    Reward,
    RewardInput,
    Verdict,
    is_groupwise,
    record_of,
    together,
    units_of,
)
from services.reward.load import load_prepared, load_reward
from tdm_core.types import ImageGroup, Prompt, RewardRecord, RewardState

MAX_HUNG_THREADS = 4
MAX_BACKOFF_S = 10.0
Unit = list[RewardInput]
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


class RewardError(RuntimeError):
    """A reward failed and the config says that this ends the run."""


@dataclass(frozen=True)
class Missing:
    """A batch without answers, and why."""

    state: RewardState
    reason: str
    kind: str
    """One word for the reason, to be counted by."""
    cause: BaseException | None = None


def check_requirements(reward: RewardConfig, prompts: Sequence[Prompt]) -> None:
    """Raise ValueError naming the first prompt that lacks what the reward reads, before the run."""
    instance = load_reward(reward)
    for prompt in prompts:
        try:
            if "metadata" in instance.requires and not prompt.metadata:
                raise ValueError("it has no metadata; use a .jsonl file that has more than prompts")
            if isinstance(instance, ChecksPrompts):
                instance.check_prompt(prompt)
        except ValueError as error:
            raise ValueError(
                f"reward {reward.name!r} ({reward.kind}) cannot judge the prompt "
                f"{prompt.prompt_id} {prompt.text!r}: {error}"
            ) from error


class RewardWorker:
    """Evaluates one reward, batch by batch; a plain class that holds one instance of it."""

    def __init__(self, reward: RewardConfig, index: int = 0) -> None:
        """`index` tells workers of one pool apart; ValueError where the reward cannot work here."""
        self._settings = reward
        self._index = index
        self._reward: Reward | None = load_prepared(reward)
        self._version = self._reward.version
        self.groupwise = is_groupwise(self._reward)
        self._hung: list[threading.Thread] = []
        self._counts: Counter[str] = Counter()
        self._faults: list[str] = []

    def sees_groups(self) -> bool:
        """Whether it compares the images of a group."""
        return self.groupwise

    def judge(self, *parts: list[ImageGroup]) -> tuple[Any, ...]:
        """A batch of parts: what it took, then the records of each part by itself.

        What it took: `images`, `evaluations` (calls that the reward answered or failed for good),
        `retried`, and images without a value as `failed/WHY` and `expired/WHY`; and `unfit`, why
        the worker can judge nothing more, if it cannot; and `raised`, the last fault, if every call
        of the reward raised.
        """
        self._counts, self._faults = Counter(), []
        records = self.evaluate([group for part in parts for group in part])
        of_group: dict[int, list[RewardRecord]] = {}
        for record in records:
            of_group.setdefault(record.group_id, []).append(record)
        each = [[r for group in part for r in of_group[group.group_id]] for part in parts]
        unfit = {"unfit": self._hang} if self._hang else {}
        all_raised = self._faults and len(self._faults) == self._counts["evaluations"]
        raised = {"raised": self._faults[-1]} if all_raised else {}
        return {**self._counts, **unfit, **raised}, *each

    def evaluate(self, groups: list[ImageGroup]) -> list[RewardRecord]:
        """Records of every sample and slot: in the groups' order, then by sample, then by slot."""
        records: list[RewardRecord] = []
        for batch in self._batches([unit for group in groups for unit in units_of(group)]):
            records.extend(self._judge(batch))
        order = {group.group_id: place for place, group in enumerate(groups)}
        records.sort(key=lambda record: (order[record.group_id], record.sample, record.slot))
        if self._settings.on_failure == "drop_group":
            kept = _drop_broken_groups(records)
            dropped = _num_ready(records) - _num_ready(kept)
            self._counts.update({"failed/group": dropped} if dropped else {})
            return kept
        return records

    def _batches(self, units: list[Unit]) -> Iterator[list[Unit]]:
        """Units cut or gathered to `batch_size` images; a groupwise reward's unit stays whole."""
        size = self._settings.batch_size
        if self.groupwise:
            return together(units, size)
        images = [image for unit in units for image in unit]
        return ([images[start : start + size]] for start in range(0, len(images), size))

    def _judge(self, batch: list[Unit]) -> list[RewardRecord]:
        images = [image for unit in batch for image in unit]
        started = time.monotonic()
        answers = self._answers(batch, started + self._settings.deadline_s)
        name, latency_s = self._settings.name, time.monotonic() - started
        self._counts.update({"images": len(images), "evaluations": 1})
        if isinstance(answers, Missing):
            self._counts[f"{answers.state}/{answers.kind}"] += len(images)
            self._faults += [answers.reason] if answers.state == "failed" else []
            self._stop_if_told(answers.reason, answers.cause)
            nothing = Verdict(None, reason=answers.reason)
            records = [
                record_of(image, nothing, name, self._version, latency_s) for image in images
            ]
            return [replace(record, state=answers.state) for record in records]
        records = [
            record_of(image, answer, name, self._version, latency_s)
            for image, answer in zip(images, answers, strict=True)
        ]
        for record in records:
            if record.state != "ready":
                self._counts[f"{record.state}/no_value"] += 1
                self._stop_if_told(record.reason, None)
        return records

    def _answers(self, batch: list[Unit], deadline: float) -> list[Answer] | Missing:
        """Answers in image order, from as many attempts as the retries and the deadline allow."""
        for attempt in range(self._settings.retries + 1):
            began = time.monotonic()
            reward = self._loaded()
            deadline += time.monotonic() - began
            missing = isinstance(reward, Missing)
            outcome = reward if missing else self._attempt(reward, batch, deadline)
            if not isinstance(outcome, Missing) or outcome.state == "expired":
                return outcome
            logger.warning("%s: %s", self._who, outcome.reason, exc_info=outcome.cause)
            pause_s = min(self._settings.backoff_s * 2**attempt, MAX_BACKOFF_S)
            if attempt == self._settings.retries or time.monotonic() + pause_s >= deadline:
                return outcome
            self._counts["retried"] += 1
            time.sleep(pause_s)
        raise AssertionError("the last attempt returns")

    def _loaded(self) -> Reward | Missing:
        """The instance, built anew where the last one was left behind."""
        if self._reward is not None:
            return self._reward
        limit_s = self._settings.load_deadline_s
        late = Missing("expired", f"not loaded again within load_deadline_s={limit_s:g}", "loading")
        loaded = self._bounded(partial(load_prepared, self._settings), limit_s, late)
        self._reward = None if isinstance(loaded, Missing) else loaded
        return loaded

    def _attempt(
        self, reward: Reward, batch: list[Unit], deadline: float
    ) -> list[Answer] | Missing:
        """One call of the reward."""
        reason = f"no answer within deadline_s={self._settings.deadline_s:g}"
        late = Missing("expired", reason, "deadline")
        call = partial(self._evaluate, reward, batch)
        outcome = self._bounded(call, max(deadline - time.monotonic(), 0.0), late)
        if outcome is late:
            # The hung thread keeps its instance; sharing that with the next batch would race.
            self._reward = None
        return outcome

    def _bounded(
        self, call: Callable[[], Result], seconds: float, late: Missing
    ) -> Result | Missing:
        """What a call gives, on a thread of its own so that a hung one can be left behind."""
        if hang := self._hang:
            return Missing("expired", hang, "hung")
        future: Future[Result] = Future()
        thread = threading.Thread(target=_run, args=(call, future), daemon=True)
        thread.start()
        try:
            error = future.exception(timeout=seconds)
        except TimeoutError:
            self._hung.append(thread)
            logger.warning("%s: %s", self._who, late.reason)
            return late
        if error is not None:
            kind = type(error).__name__
            return Missing("failed", f"{kind}: {error}", kind, error)
        return future.result()

    def _evaluate(self, reward: Reward, batch: list[Unit]) -> list[Answer]:
        if self.groupwise:
            return _flat(cast(GroupwiseReward, reward).evaluate(batch), batch)
        return _flat([cast(PointwiseReward, reward).evaluate(batch[0])], batch)

    @property
    def _hang(self) -> str:
        """Why no further call is begun; empty where it may be."""
        self._hung = [thread for thread in self._hung if thread.is_alive()]
        if len(self._hung) < MAX_HUNG_THREADS:
            return ""
        limits = (
            f"{self._settings.deadline_s:g}, load_deadline_s={self._settings.load_deadline_s:g}"
        )
        return (
            f"{len(self._hung)} calls of the reward still hang, past deadline_s={limits}; have it "
            "end its calls by itself (a timeout of its own, budget_s), or raise deadline_s if it "
            "is only slow"
        )

    def _stop_if_told(self, reason: str, cause: BaseException | None) -> None:
        if self._settings.on_failure == "stop_run":
            raise RewardError(
                f"{self._who} failed and its on_failure is stop_run: {reason}; "
                "mend the reward, or set on_failure to drop_sample or drop_group"
            ) from cause

    @property
    def _who(self) -> str:
        return f"reward {self._settings.name!r} ({self._settings.kind}), worker {self._index}"


def _run(call: Callable[[], Result], future: "Future[Result]") -> None:
    try:
        future.set_result(call())
    except BaseException as error:  # even a reward's SystemExit must reach the waiting worker
        future.set_exception(error)


def _flat(answers: Sequence[Sequence[Answer]], batch: list[Unit]) -> list[Answer]:
    """Answers in image order; ValueError where their number is not that of the images."""
    got, expected = [len(part) for part in answers], [len(unit) for unit in batch]
    if got != expected:
        raise ValueError(
            f"the reward gave {got} answers for {expected} images; "
            "evaluate returns one answer an image, in the same order"
        )
    return [answer for part in answers for answer in part]


def _drop_broken_groups(records: list[RewardRecord]) -> list[RewardRecord]:
    """All records of a group `failed` where one of them is failed or expired."""
    broken: dict[int, RewardRecord] = {}
    for record in records:
        if record.state in ("failed", "expired"):
            broken.setdefault(record.group_id, record)
    return [
        record
        if record.group_id not in broken or record.state != "ready"
        else replace(record, state="failed", value=None, reason=_dropped(broken[record.group_id]))
        for record in records
    ]


def _num_ready(records: Sequence[RewardRecord]) -> int:
    return sum(record.state == "ready" for record in records)


def _dropped(first: RewardRecord) -> str:
    return f"group dropped: sample {first.sample} {first.state}: {first.reason}"[:MAX_REASON]
