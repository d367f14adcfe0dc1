"""The main loop. It moves references and awaits small answers; no latent passes through it.

    prompts -> rollout.generate -> RolloutGroup -> replay.add ----------------------.
                     '-> images -> rewards.evaluate -> RewardRecord -> replay.attach_rewards
                            '-> people.offer ... people.collect -----------^ (late)
    replay.draw_rewarded -> surrogate.update -> publish_weights -> generator.load_surrogate
    replay.draw_fresh -> generator.update_fake_score, update_generator -> publish_weights
                                               -> rollout.load_weights, policy_version + 1

On-policy, `step` is one iteration of the paper's Algorithm 1. Otherwise the same calls run in the
four loops of `services/loops.py`.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from services.config import RunConfig
from services.crew import Crew
from services.evaluations import Evaluations
from services.hacking_watch import HackingWatch
from services.loops import Loops
from services.run_control import RunControl
from services.run_store.alerts import AlertLog
from services.run_store.commands import Command
from services.run_store.run_folder import RunFolder
from services.runtime.batches import Lost
from services.runtime.handles import Reference, Runtime, WorkerDiedError
from services.runtime.waiting import Changes, Patience
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


class Controller:
    """One run from its first weights to its summary."""

    def __init__(
        self,
        config: RunConfig,
        crew: Crew,
        prompts: Prompts,
        folder: RunFolder,
        telemetry: Telemetry,
        patience: Patience,
        runtime: Runtime,
    ) -> None:
        self.config, self.algorithm = config, config.algorithm
        self.rollout, self.rewards, self.replay = crew.rollout, crew.rewards, crew.replay
        self.people = crew.people
        self.surrogate, self.generator = crew.surrogate, crew.generator
        self.recorder = crew.recorder
        self.judges = crew.judges
        self.prompts, self.folder, self.telemetry = prompts, folder, telemetry
        self.patience, self.runtime = patience, runtime
        self.changes = Changes()
        self.control = RunControl(folder, self.changes, self._facts, config.run.max_seconds)
        self.hacking = HackingWatch(config, AlertLog(folder.alerts))
        self.evaluations = crew.evaluator and Evaluations(
            config, crew, telemetry, self.hacking, self.control.write_status
        )
        self.iteration = 0
        self.policy_version = 0
        self.surrogate_version = 0
        self.counts: dict[str, float] = {}
        self.num_images = 0
        self.checkpoint = ""
        self.doing = ""
        self._published: Reference | None = None
        self._tasks: asyncio.TaskGroup | None = None

    async def run(self) -> dict[str, Any]:
        """Train to the end; the summary. A fault of any worker or loop is raised."""
        try:
            async with asyncio.TaskGroup() as self._tasks:
                work = [self.control.watch(), self._supervise()]
                work += [pool.serve() for pool in self.judges.values()]
                beside = [self.spawn(each) for each in work]
                await self._begin()
                self.control.enter("running")
                await self._train()
                await self._end()
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as faults:
            raise _first(faults) from None
        return self._summary()

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run beside the main loop; its fault ends the run, and the run waits for its end."""
        assert self._tasks is not None
        return self._tasks.create_task(work)

    async def _supervise(self) -> None:
        await self.runtime.supervise(self._resync)

    async def _resync(self, worker: str) -> None:
        """Bring a restarted worker up to date."""
        for handle in self.rollout.handles:
            if handle.name == worker:
                await handle.load_weights.remote(self._published)
        for people in self.people.values():
            for handle in people.handles:
                if handle.name == worker:
                    await handle.adopt.remote(self.replay.pending.remote())

    async def _begin(self) -> None:
        """Hand out the first weights, and score where the run starts from."""
        self._published = self.generator.publish_weights.remote()
        await self.rollout.tell("load_weights", self._published)
        labels = ["teacher", "before"] if self.config.evaluation.score_teacher else ["before"]
        for label in labels:
            if not self.control.ending:
                await self._evaluate(label)

    async def _train(self) -> None:
        if self.algorithm.on_policy:
            await self._train_on_policy()
            return
        loops = Loops(self)
        beside = [self.spawn(loop) for loop in loops.all_but_generator()]
        await loops.generator_loop()
        for task in (*beside, *loops.judging):
            task.cancel()

    async def _train_on_policy(self) -> None:
        while await self.goes_on():
            if self.algorithm.update_order == "jacobi":
                await self.step_jacobi()
            else:
                await self.step()
            await self.finish_iteration()

    async def step(self) -> None:
        """One iteration of Algorithm 1; the generator sees the nets that were updated before it."""
        await self.collect()  # 0. roll out, reward
        rewarded = self.replay.draw_rewarded.remote(self.policy_version)  # references, which are
        fresh = self.replay.draw_fresh.remote(self.policy_version)  # never awaited here
        surrogate = self.surrogate.update.remote(rewarded)  # 1. learn the reward
        fake_score = self.generator.update_fake_score.remote(fresh)  # 2. follow the generator
        await self.learned("surrogate", surrogate)
        await self.learned("fake_score", fake_score)
        await self.generator.load_surrogate.remote(self.surrogate.publish_weights.remote())
        generator = self.generator.update_generator.remote(fresh)  # 3. improve it
        await self.learned("generator", generator)
        await self.publish()  # 4. hand it to rollout

    async def step_jacobi(self) -> None:
        """The same, where every update sees the nets from before: no step before the last use."""
        await self.collect()
        rewarded = self.replay.draw_rewarded.remote(self.policy_version)
        fresh = self.replay.draw_fresh.remote(self.policy_version)
        fake_score = self.generator.update_fake_score.remote(fresh, False)
        await self.learned("fake_score", fake_score)
        generator = self.generator.update_generator.remote(fresh)
        if self.config.cluster.placement == "colocated":
            await generator.settled()  # there the generator reads the very surrogate that learns
        surrogate = self.surrogate.update.remote(rewarded)
        await self.learned("generator", generator)
        await self.learned("fake_score", self.generator.step_fake_score.remote())
        await self.learned("surrogate", surrogate)
        await self.generator.load_surrogate.remote(self.surrogate.publish_weights.remote())
        await self.publish()

    async def collect(self) -> None:
        """Roll out and reward one iteration's groups; each call's images are judged at once.

        A call's groups share batches with one another only, so that what a batch holds, and with it
        every bit of the rewards, does not depend on which call was quicker.
        """
        requests = self.prompts.take(self.algorithm.num_groups)
        size = self.config.cluster.rollout_groups
        calls = [requests[start : start + size] for start in range(0, len(requests), size)]
        await asyncio.gather(*(self._collect(call) for call in calls))

    async def _collect(self, requests: Sequence[Any]) -> None:
        groups, _ = await self.generate(requests)
        judged = [self._judge_together(name, groups) for name in self.rewards]
        for group, *records in zip(groups, *await asyncio.gather(*judged), strict=True):
            await self.record(group, records)

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

    def _note_costs(self) -> None:
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
            self._published = self.generator.publish_weights.remote()
            self.policy_version += 1
            await self.rollout.tell("load_weights", self._published)

    def publish_beside(self) -> asyncio.Task[Any]:
        """The same without waiting for workers that are still generating."""
        self._published = self.generator.publish_weights.remote()
        self.policy_version += 1
        return self.spawn(self.rollout.tell("load_weights", self._published))

    async def goes_on(self) -> bool:
        """Between iterations: obey commands, wait out a pause; False once the run is to end."""
        while True:
            while self.control.unheeded:
                await self._obey(self.control.unheeded.pop(0))
            if self.control.ending or self.iteration >= self.config.run.iterations:
                return False
            if not self.control.paused:
                self.control.enter("running")
                return True
            self.control.enter("paused")
            news = self.changes.until(lambda: bool(self.control.unheeded or self.control.ending))
            await self.patience.wait(news, "unpause", endless=True)

    async def _obey(self, command: Command) -> None:
        if command.type in ("pause", "unpause"):
            self.control.paused = command.type == "pause"
            self.changes.tell()
        elif command.type == "stop":
            self.control.end("told to stop", hurried=True)
        elif command.type == "checkpoint":
            await self._checkpoint()
        self.control.answer(command, "applied")

    async def finish_iteration(self) -> None:
        """Write the line and the status; evaluate and checkpoint when they are due."""
        self.iteration += 1
        self.see(await self.replay.counts.remote(self.policy_version))
        counts = {f"replay/{name}": value for name, value in self.counts.items()}
        self.telemetry.note({k: v for k, v in counts.items() if k != "replay/change"})
        self._note_costs()
        self.telemetry.write(self.iteration, self.policy_version, self.surrogate_version)
        self.control.write_status()
        evaluation, checkpoint = self.config.evaluation, self.config.checkpoint
        last = self.iteration == self.config.run.iterations
        if self.evaluations and _due(self.iteration, evaluation.every) and not last:
            label = f"step_{self.iteration:06d}"
            if self._evaluates_beside:
                self.evaluations.score_beside(label, self.iteration, self.spawn)
            else:
                await self._evaluate(label)
        if _due(self.iteration, checkpoint.every) and not last:
            await self._checkpoint()

    @property
    def _evaluates_beside(self) -> bool:
        """Whether training goes on meanwhile; where numbers are promised to the bit it does not."""
        return not self.algorithm.on_policy and self.config.cluster.runtime == "ray"

    async def _evaluate(self, label: str) -> None:
        if self.evaluations:
            with self._busy_with("evaluate", label):
                await self.evaluations.score(label, self.iteration)

    async def _checkpoint(self) -> None:
        """Have every worker's state written; it goes from worker to recorder."""
        learned = {
            "generator": self.generator,
            "surrogate": self.surrogate,
            "replay": self.replay,
        }
        facts = {
            "iteration": self.iteration,
            "policy_version": self.policy_version,
            "surrogate_version": self.surrogate_version,
            "prompts": self.prompts.state_dict(),
        }
        with self._busy_with("checkpoint"):
            states = [handle.state_dict.remote() for handle in learned.values()]
            written, _ = await self.recorder.run(
                "checkpoint", self.iteration, facts, list(learned), *states
            )
            self.checkpoint = await written
        log.info("checkpoint %s", self.checkpoint)

    @contextmanager
    def _busy_with(self, phase: str, what: str = "") -> Iterator[None]:
        """A phase that takes its time: the status says so meanwhile."""
        self.doing = f"{phase} {what}".strip()
        self.control.write_status()
        with self.telemetry.phase(phase):
            yield
        self.doing = ""

    async def _end(self) -> None:
        """Score and save where the run ends, unless a person wants it to end now."""
        self.control.enter("ending")
        if self.evaluations and await self.evaluations.settle(self.control.hurried):
            # A line of its own: that of the last evaluation would replace these scores.
            self.telemetry.write(self.iteration, self.policy_version, self.surrogate_version)
        if not self.control.hurried:
            await self._evaluate("after")
        await self._checkpoint()
        if self.evaluations and self.evaluations.scores:
            self.telemetry.write(self.iteration, self.policy_version, self.surrogate_version)

    def _facts(self) -> dict[str, Any]:
        """What the status says."""
        return {
            "iteration": self.iteration,
            "iterations": self.config.run.iterations,
            "policy_version": self.policy_version,
            "surrogate_version": self.surrogate_version,
            "doing": self.doing,
            "alerts": self.hacking.active,
            "workers": self.runtime.processes(),
            "waiting": self.patience.waiting(),
        }

    def _summary(self) -> dict[str, Any]:
        return {
            "run_id": self.folder.id,
            "state": "stopped" if self.control.ending else "finished",
            "reason": self.control.ending,
            "seed": self.config.run.seed,
            "iterations": self.iteration,
            "policy_version": self.policy_version,
            "surrogate_version": self.surrogate_version,
            "rollout_images": self.num_images,
            "seconds": time.monotonic() - self.control.started,
            "checkpoint": self.checkpoint,
            "evaluations": self.evaluations.scores if self.evaluations else {},
        }


def _due(iteration: int, every: int) -> bool:
    return every > 0 and iteration % every == 0


def _first(faults: BaseExceptionGroup[BaseException]) -> BaseException:
    """The fault that tells most: a death, since what raises elsewhere may be its consequence."""
    flat: list[BaseException] = []
    for fault in faults.exceptions:
        flat.append(_first(fault) if isinstance(fault, BaseExceptionGroup) else fault)
    return max(flat, key=lambda fault: isinstance(fault, WorkerDiedError))
