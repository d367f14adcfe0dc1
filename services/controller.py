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
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from services.config import RunConfig
from services.crew import Crew
from services.evaluations import Evaluations
from services.hacking_watch import HackingWatch
from services.loops import Loops
from services.run_control import RunControl
from services.run_store.alerts import AlertLog
from services.run_store.arguments import RefusedError, changed, now
from services.run_store.commands import Command
from services.run_store.run_folder import RunFolder
from services.runtime.handles import Runtime, WorkerDiedError
from services.runtime.waiting import Patience
from services.stages import Prompts, Stages
from services.telemetry import Telemetry
from tdm_core.config import AlgorithmConfig

log = logging.getLogger(__name__)


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
        self.stages = Stages(config, crew, prompts, telemetry, patience)
        self.folder, self.runtime = folder, runtime
        changes, most_s = self.stages.changes, config.run.max_seconds
        self.control = RunControl(folder, changes, self._facts, most_s)
        self.hacking = HackingWatch(config, AlertLog(folder.alerts))
        self.evaluations = crew.evaluator and Evaluations(
            config, crew, telemetry, self.hacking, self.control.write_status
        )
        self.checkpoint = ""
        self.doing = ""
        self.changes: list[dict[str, Any]] = []

    @property
    def config(self) -> RunConfig:
        """As it is now: live parameters may have changed."""
        return self.stages.config

    @property
    def algorithm(self) -> AlgorithmConfig:
        """Of it."""
        return self.config.algorithm

    async def run(self) -> dict[str, Any]:
        """Train to the end; the summary. A fault of any worker or loop is raised."""
        try:
            async with asyncio.TaskGroup() as self.stages.tasks:
                work = [self.control.watch(), self.runtime.supervise(self.stages.resync)]
                pools = (self.stages.rollout, *self.stages.judges.values())
                work += [pool.serve() for pool in pools]
                beside = [self.stages.spawn(each) for each in work]
                await self._begin()
                self.control.enter("running")
                await self._train()
                await self._end()
                for task in beside:
                    task.cancel()
        except BaseExceptionGroup as faults:
            raise _first(faults) from None
        return self._summary()

    async def _begin(self) -> None:
        """Hand out the first weights, and score where the run starts from."""
        await self.stages.publish_first()
        labels = ["teacher", "before"] if self.config.evaluation.score_teacher else ["before"]
        for label in labels:
            if not self.control.ending:
                await self._evaluate(label)

    async def _train(self) -> None:
        if self.algorithm.on_policy:
            await self._train_on_policy()
            return
        loops = Loops(self.stages, self.control, self.goes_on, self.finish_iteration)
        beside = [self.stages.spawn(loop) for loop in loops.all_but_generator()]
        await loops.generator_loop()
        for task in (*beside, *loops.under_way):
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
        stages = self.stages
        await stages.collect()  # 0. roll out, reward
        version = stages.policy_version
        rewarded = stages.replay.draw_rewarded.remote(version)  # references, which are
        fresh = stages.replay.draw_fresh.remote(version)  # never awaited here
        surrogate = stages.surrogate.update.remote(rewarded)  # 1. learn the reward
        fake_score = stages.generator.update_fake_score.remote(fresh)  # 2. follow the generator
        await stages.learned("surrogate", surrogate)
        await stages.learned("fake_score", fake_score)
        await stages.generator.load_surrogate.remote(stages.surrogate.publish_weights.remote())
        generator = stages.generator.update_generator.remote(fresh)  # 3. improve it
        await stages.learned("generator", generator)
        await stages.publish()  # 4. hand it to rollout

    async def step_jacobi(self) -> None:
        """The same, where every update sees the nets from before: no step before the last use."""
        stages = self.stages
        await stages.collect()
        rewarded = stages.replay.draw_rewarded.remote(stages.policy_version)
        fresh = stages.replay.draw_fresh.remote(stages.policy_version)
        fake_score = stages.generator.update_fake_score.remote(fresh, False)
        await stages.learned("fake_score", fake_score)
        generator = stages.generator.update_generator.remote(fresh)
        if self.config.cluster.placement == "colocated":
            await generator.settled()  # there the generator reads the very surrogate that learns
        surrogate = stages.surrogate.update.remote(rewarded)
        await stages.learned("generator", generator)
        await stages.learned("fake_score", stages.generator.step_fake_score.remote())
        await stages.learned("surrogate", surrogate)
        await stages.generator.load_surrogate.remote(stages.surrogate.publish_weights.remote())
        await stages.publish()

    async def goes_on(self) -> bool:
        """Between iterations: obey commands, wait out a pause; False once the run is to end."""
        while True:
            while self.control.unheeded:
                await self._obey(self.control.unheeded.pop(0))
            if self.control.ending or self.stages.iteration >= self.config.run.iterations:
                return False
            if not self.control.paused:
                self.control.enter("running")
                return True
            self.control.enter("paused")
            news = self.stages.changes.until(
                lambda: bool(self.control.unheeded or self.control.ending)
            )
            await self.stages.patience.wait(news, "unpause", endless=True)

    async def _obey(self, command: Command) -> None:
        try:
            await self._do(command)
        except RefusedError as refusal:
            self.control.answer(command, "rejected", str(refusal))
        else:
            self.control.answer(command, "applied")

    async def _do(self, command: Command) -> None:
        if command.type in ("pause", "unpause"):
            self.control.paused = command.type == "pause"
            self.stages.changes.tell()
        elif command.type == "stop":
            self.control.end("told to stop", hurried=True)
        elif command.type == "checkpoint":
            await self._checkpoint()
        elif command.type == "set":
            await self._set(command)
        elif command.type == "scale":
            self.stages.scale(**command.arguments)
            self.control.write_status()

    async def _set(self, command: Command) -> None:
        """Change live parameters, and write down that this is not the run that it began as."""
        before, after = self.config, changed(self.config, command.arguments)
        values = {key: [now(before, key), now(after, key)] for key in command.arguments}
        await self.stages.reconfigure(after)
        self.stages.telemetry.note({f"set/{key}": new for key, (_, new) in values.items()})
        self.changes.append(
            {
                "time": time.time(),
                "iteration": self.stages.iteration,
                "command": command.id,
                "by": command.by,
                "values": values,
            }
        )
        self.control.write_status()

    async def finish_iteration(self) -> None:
        """Write the line and the status; evaluate and checkpoint when they are due."""
        stages = self.stages
        stages.iteration += 1
        await stages.note_counts()
        stages.note_costs()
        stages.note_history()
        stages.write_line()
        self.control.write_status()
        evaluation, checkpoint = self.config.evaluation, self.config.checkpoint
        last = stages.iteration == self.config.run.iterations
        if self.evaluations and _due(stages.iteration, evaluation.every) and not last:
            label = f"step_{stages.iteration:06d}"
            if self._evaluates_beside:
                self.evaluations.score_beside(label, stages.iteration, stages.spawn)
            else:
                await self._evaluate(label)
        if _due(stages.iteration, checkpoint.every) and not last:
            await self._checkpoint()

    @property
    def _evaluates_beside(self) -> bool:
        """Whether training goes on meanwhile; where numbers are promised to the bit it does not."""
        return not self.algorithm.on_policy and self.config.cluster.runtime == "ray"

    async def _evaluate(self, label: str) -> None:
        if self.evaluations:
            with self._busy_with("evaluate", label):
                await self.evaluations.score(label, self.stages.iteration)

    async def _checkpoint(self) -> None:
        """Have every worker's state written; it goes from worker to recorder."""
        stages = self.stages
        learned = {
            "generator": stages.generator,
            "surrogate": stages.surrogate,
            "replay": stages.replay,
        }
        facts = {
            **stages.place,
            "prompts": stages.prompts.state_dict(),
            "changes": self.changes,
        }
        with self._busy_with("checkpoint"):
            states = [handle.state_dict.remote() for handle in learned.values()]
            written, _ = await stages.recorder.run(
                "checkpoint", stages.iteration, facts, list(learned), *states
            )
            self.checkpoint = await written
        log.info("checkpoint %s", self.checkpoint)

    @contextmanager
    def _busy_with(self, phase: str, what: str = "") -> Iterator[None]:
        """A phase that takes its time: the status says so meanwhile."""
        self.doing = f"{phase} {what}".strip()
        self.control.write_status()
        with self.stages.telemetry.phase(phase):
            yield
        self.doing = ""

    async def _end(self) -> None:
        """Score and save where the run ends, unless a person wants it to end now."""
        self.control.enter("ending")
        if self.evaluations and await self.evaluations.settle(self.control.hurried):
            # A line of its own: that of the last evaluation would replace these scores.
            self.stages.write_line()
        if not self.control.hurried:
            await self._evaluate("after")
        await self.stages.settle_history()
        await self._checkpoint()
        if self.evaluations and self.evaluations.scores:
            self.stages.write_line()

    def _facts(self) -> dict[str, Any]:
        """What the status says."""
        return {
            **self.stages.place,
            "iterations": self.config.run.iterations,
            "doing": self.doing,
            "changes": self.changes,
            "pools": self.stages.pool_sizes(),
            "alerts": self.hacking.active,
            "workers": self.runtime.processes(),
            "resting": self.stages.resting_workers(),
            "waiting": self.stages.patience.waiting(),
        }

    def _summary(self) -> dict[str, Any]:
        return {
            "run_id": self.folder.id,
            "state": "stopped" if self.control.ending else "finished",
            "reason": self.control.ending,
            "seed": self.config.run.seed,
            "iterations": self.stages.iteration,
            "changes": self.changes,
            "policy_version": self.stages.policy_version,
            "surrogate_version": self.stages.surrogate_version,
            "rollout_images": self.stages.num_images,
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
