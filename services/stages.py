"""What passes from stage to stage of a run, and what is counted on the way.

Every call moves references and awaits small answers. Who calls what when is the business of the
controller (on-policy) and of its loops (async).
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from services.config import ROLLOUT, RunConfig
from services.crew import Crew
from services.run_store.arguments import RefusedError
from services.runtime.batches import Lost
from services.runtime.handles import Reference
from services.runtime.staff import Staff
from services.runtime.waiting import Patience
from services.telemetry import Telemetry

log = logging.getLogger(__name__)

TWO_VERSIONS = (
    "its values are of more than one version from now on and do not compare; give all its workers "
    "the same weights and keep its scorer as it is (kind http: scorer_version refuses others)"
)


class Prompts(Protocol):
    """The run's endless, deterministic source of prompts."""

    def take(self, count: int) -> Sequence[Any]:
        """The next `count` pairs of group id and prompt."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where the source is; JSON-able."""
        ...


@dataclass(frozen=True)
class Generated:
    """One group of a rollout; what people and rewards see of it stays where it was made."""

    group_id: int
    iteration: int
    """That it was begun in."""
    images: Reference
    predictions: Reference | None
    """What they were predicted to be on their way; None where images are not stored."""


class Stages:
    """One run's workers, and where it stands."""

    def __init__(
        self,
        config: RunConfig,
        crew: Crew,
        prompts: Prompts,
        telemetry: Telemetry,
        patience: Patience,
    ) -> None:
        self.config, self.algorithm = config, config.algorithm
        self.rollout, self.rewards, self.replay = crew.rollout, crew.rewards, crew.replay
        self.people = crew.people
        self.surrogate, self.generator = crew.surrogate, crew.generator
        self.recorder, self.judges = crew.recorder, crew.judges
        self.prompts, self.telemetry, self.patience = prompts, telemetry, patience
        self.changes = self.rollout.staff.news  # a free worker wakes the loops too
        self.iteration = 0
        self.policy_version = 0
        self.surrogate_version = 0
        self.counts: dict[str, float] = {}
        self.num_images = 0
        self.tasks: asyncio.TaskGroup | None = None
        self._recording: list[asyncio.Task[Any]] = []
        self._noting: asyncio.Task[Any] | None = None

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run beside the main loop; its fault ends the run, and the run waits for its end."""
        assert self.tasks is not None
        return self.tasks.create_task(work)

    async def resync(self, worker: str) -> None:
        """Bring a restarted worker up to date."""
        await self.rollout.staff.brief(worker)
        for people in self.people.values():
            if (door := people.staff.first).name == worker:
                await door.adopt.remote(self.replay.pending.remote())

    async def publish_first(self) -> None:
        """Hand out the weights that the run starts from."""
        await self._hand_out()

    def _hand_out(self) -> Coroutine[Any, Any, Any]:
        """Have every rollout worker load the generator's newest weights, and who comes later."""
        published = self.generator.publish_weights.remote()
        return self.rollout.staff.tell("load_weights", published)

    async def collect(self) -> None:
        """Roll out and reward one iteration's groups; each call's images are judged at once.

        A call's groups share batches with one another only, so that what a batch holds, and with it
        every bit of the rewards, does not depend on which call was quicker.
        """
        await asyncio.gather(*self._recording)  # images are written while the learners learn
        self._recording = []
        requests = self.prompts.take(self.algorithm.num_groups)
        size = self.config.cluster.rollout_groups
        calls = [requests[start : start + size] for start in range(0, len(requests), size)]
        await asyncio.gather(*(self._collect(call) for call in calls))

    async def _collect(self, requests: Sequence[Any]) -> None:
        groups, _ = await self.generate(requests)
        judged = [self._judge_together(name, groups) for name in self.rewards]
        for group, *records in zip(groups, *await asyncio.gather(*judged), strict=True):
            self._recording.append(self.spawn(self.record(group, records)))

    async def _judge_together(self, name: str, groups: Sequence[Generated]) -> list[Reference]:
        images = [group.images for group in groups]
        answers = await self.rewards[name].judge_together(images, self.images_per_group)
        return [
            await self.attach_lost(name, group.group_id, answer)
            if isinstance(answer, Lost)
            else await self.attach(answer)
            for group, answer in zip(groups, answers, strict=True)
        ]

    async def generate(self, requests: Sequence[Any]) -> tuple[list[Generated], int]:
        """Put groups of these prompts into the buffer; what was made, and by which version."""
        ids, iteration = [group_id for group_id, _ in requests], self.iteration
        stored = [group_id for group_id in ids if self.config.is_stored(group_id)]
        (groups, *made), seconds = await self.rollout.run(
            "generate_apart", requests, num_returns=1 + len(ids) + len(stored)
        )
        counts = await self.replay.add.remote(groups)
        self.see(counts)
        count = len(requests) * self.algorithm.group_size
        self.num_images += count
        self.telemetry.add("rollout/images", count)
        self.telemetry.add("seconds/rollout", seconds)
        predictions = dict(zip(stored, made[len(ids) :], strict=True))
        found = [
            Generated(group_id, iteration, images, predictions.get(group_id))
            for group_id, images in zip(ids, made, strict=False)
        ]
        return found, int(counts["added_version"])

    async def judge(
        self, name: str, images: Reference, wanted: Callable[[], bool]
    ) -> Reference | Lost:
        """Let one reward judge a group, and give the buffer its records; the reference to them."""
        answer = await self.rewards[name].judge(images, self.images_per_group, wanted)
        return answer if isinstance(answer, Lost) else await self.attach(answer)

    async def attach(self, records: Reference) -> Reference:
        """Give the buffer records; the reference to them."""
        self.see(await self.replay.attach_rewards.remote(records))
        return records

    async def attach_lost(self, name: str, group_id: int, lost: Lost) -> Reference:
        """The same of a group that a reward has lost."""
        records, counts = self.replay.attach_missing.remote(
            group_id, name, lost.state, lost.reason, num_returns=2
        )
        self.see(await counts)
        return records

    @property
    def images_per_group(self) -> int:
        """Images that a reward sees of a group."""
        gain = self.algorithm.advantages.per_step == "gain"
        return self.algorithm.group_size * (self.algorithm.sampler.num_steps if gain else 1)

    async def offer(self, name: str, images: Reference, judged: Sequence[Reference]) -> None:
        """Let people be asked about a group, of which the automatic rewards have spoken."""
        await self.people[name].run("offer", images, *judged)

    async def hear(self, name: str) -> None:
        """Ask people, and give the buffer what they said; only then may the service forget it."""
        people = self.people[name]
        (records, numbers, receipts), seconds = await people.run(
            "collect", self.policy_version, num_returns=3
        )
        self.see(await self.replay.attach_rewards.remote(records))
        await people.run("acknowledge", await receipts)
        self.note_history()
        self.telemetry.add(f"seconds/reward/{name}", seconds)
        self._note_people(name, await numbers)

    def _note_people(self, name: str, numbers: dict[str, float]) -> None:
        """Counts add up until the next line; what is waiting now, and means, stand as they are."""
        ready = numbers.get("ready", 0.0)
        for key, value in numbers.items():
            if key in ("open", "candidates"):
                self.telemetry.note({f"reward/{name}/{key}": value})
            elif key in ("latency_s", "staleness"):
                self.telemetry.note({f"reward/{name}/{key}": value / ready})
            else:
                self.telemetry.add(f"reward/{name}/{key}", value)

    def note_costs(self) -> None:
        """What every reward has cost since the last line."""
        for name, pool in self.judges.items():
            costs = pool.costs.drain()
            seconds = costs.pop("seconds", 0.0)
            self.telemetry.add("seconds/reward", seconds)
            self.telemetry.add(f"seconds/reward/{name}", seconds)
            costs |= {"queue_depth": pool.depth, "workers": pool.staff.num_workers}
            self.telemetry.note({f"reward/{name}/{key}": value for key, value in costs.items()})

    def see(self, counts: dict[str, float]) -> None:
        """Take the buffer's counts, unless newer ones have overtaken them on the way."""
        if counts["change"] >= self.counts.get("change", 0):
            for name in counts.keys() - self.counts.keys():
                if name.startswith("versions/"):
                    log.warning("reward %s: %s", name.removeprefix("versions/"), TWO_VERSIONS)
            self.counts = counts
            self.changes.tell()

    async def record(self, group: Generated, records: Sequence[Reference]) -> None:
        """Have the images of a group stored, if they are to be."""
        if group.predictions is not None:
            await self.recorder.run(
                "record", group.iteration, group.images, group.predictions, *records
            )

    async def note_surrogate(self) -> None:
        """Tell the buffer what the surrogate itself made of its last batch: it writes that beside
        what people say."""
        if self.people:
            await self.replay.note_surrogate.remote(self.surrogate.implicit_rewards.remote())

    def note_history(self) -> None:
        """Have it written beside what the buffer has seen of groups that are stored or labelled.
        What it sees until that is done is written the next time."""
        if self._noting is None or self._noting.done():
            self._noting = self.spawn(self._note_history())

    async def settle_history(self) -> None:
        """The same, and wait until everything is written."""
        if self._noting is not None:
            await self._noting
        await self._note_history()

    async def _note_history(self) -> None:
        if self.config.telemetry.images_every or self.people:
            await self.recorder.run("note", self.replay.drain_history.remote())

    async def learned(self, phase: str, update: Reference) -> dict[str, float]:
        """An update's metrics, once it is done; they and its seconds go into the next line."""
        self.telemetry.add(f"seconds/{phase}", await update.settled())
        metrics = await update
        if "skipped" in metrics:
            if self.algorithm.on_policy:
                raise RuntimeError(
                    f"{phase}: the batch of {self.algorithm.num_groups} groups is not whole; "
                    f"the buffer has {self.counts}"
                )
            return metrics
        self.telemetry.note(metrics)
        self.surrogate_version += phase == "surrogate"
        return metrics

    async def publish(self) -> None:
        """Hand the updated generator to every rollout worker."""
        with self.telemetry.phase("publish"):
            self.policy_version += 1
            await self._hand_out()

    def publish_beside(self) -> asyncio.Task[Any]:
        """The same without waiting for workers that are still generating."""
        self.policy_version += 1
        return self.spawn(self._hand_out())

    async def note_counts(self) -> None:
        """What the buffer holds now goes into the next line."""
        self.see(await self.replay.counts.remote(self.policy_version))
        counts = {f"replay/{name}": value for name, value in self.counts.items()}
        self.telemetry.note({k: v for k, v in counts.items() if k != "replay/change"})

    async def reconfigure(self, config: RunConfig) -> None:
        """Go on under a config whose live parameters are others; all who read them know it then."""
        self.config, self.algorithm = config, config.algorithm
        workers = (self.replay, self.surrogate, self.generator)
        for told in [worker.reconfigure.remote(config) for worker in workers]:
            await told

    @property
    def staffs(self) -> dict[str, Staff]:
        """The workers of every pool whose size people may change, by its name for them."""
        return {ROLLOUT: self.rollout.staff} | {n: pool.staff for n, pool in self.judges.items()}

    def scale(self, pool: str, workers: int | Literal["auto"]) -> None:
        """Have so many workers in a pool; RefusedError where there cannot be as many."""
        if pool not in self.staffs:
            known = ", ".join(self.staffs)
            raise RefusedError(f"no pool {pool!r} here; allowed: {known} (people are not scaled)")
        try:
            self.staffs[pool].hold(None if workers == "auto" else workers)
        except ValueError as refusal:
            key = "cluster.max_rollout_workers" if pool == ROLLOUT else "the reward's max_workers"
            remedy = f"a run with cluster.runtime=ray may have up to {key} of them"
            raise RefusedError(f"{pool}: {refusal}; {remedy}") from None

    def pool_sizes(self) -> dict[str, dict[str, int | None]]:
        """By pool how many workers there are, may be, and are held; JSON-able."""
        return {name: staff.sizes() for name, staff in self.staffs.items()}

    def resting_workers(self) -> dict[str, str]:
        """Workers that get nothing to do for now, and why; JSON-able."""
        return {
            name: why for pool in self.judges.values() for name, why in pool.staff.resting.items()
        }

    @property
    def place(self) -> dict[str, int]:
        """Where the run stands; JSON-able."""
        return {
            "iteration": self.iteration,
            "policy_version": self.policy_version,
            "surrogate_version": self.surrogate_version,
        }

    def write_line(self) -> None:
        """Write what was noted since the last one, and the rates it was learned at."""
        algorithm = self.algorithm
        rates = {
            "generator/lr": algorithm.generator.lr,
            "fake_score/lr": algorithm.fake_score.lr,
            "surrogate/lr": algorithm.surrogate.lr,
        }
        self.telemetry.note(rates)
        self.telemetry.note({"rollout/workers": self.rollout.staff.num_workers})
        self.telemetry.write(self.iteration, self.policy_version, self.surrogate_version)
