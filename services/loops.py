"""The async run: Algorithm 1's calls in loops that wait for as little as they can.

Rewards feed the surrogate alone, so a slow judge costs the surrogate freshness and nobody else
anything. What a loop waits for is a count of the buffer or a free slot; `Changes` wakes it.

    loop       waits for                        unblocked by
    rollout    a free worker, a free slot       rollouts that are done, the generator's draws
    judging    a free reward worker             rollout (a task a group; the pools' own loops)
    offer      judged images                    judging
    hear       a while                          the clock
    surrogate  num_groups rewarded groups       judging, hear
    generator  num_groups fresh groups          rollout
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.run_control import RunControl
from services.runtime.batches import Lost
from services.runtime.handles import Reference
from services.stages import Generated, Stages


@dataclass
class _Group:
    """One group on its way through the rewards."""

    made: Generated
    policy_version: int
    records: list[Reference] = field(default_factory=list)


class Loops:
    """The loops over one run's workers."""

    def __init__(
        self,
        stages: Stages,
        control: RunControl,
        goes_on: Callable[[], Awaitable[bool]],
        finish_iteration: Callable[[], Awaitable[None]],
    ) -> None:
        """`goes_on` and `finish_iteration` come before and after each of the generator's steps."""
        self.stages, self.control = stages, control
        self.goes_on, self.finish_iteration = goes_on, finish_iteration
        self.num_groups = stages.algorithm.num_groups
        self.num_generating = 0
        self.training = False
        self.surrogate_waits = False
        self.under_way: set[asyncio.Task[None]] = set()
        """Groups that are generated or judged; a task each call of a worker, then each group."""
        self.to_offer: dict[str, asyncio.Queue[_Group]] = {
            name: asyncio.Queue() for name in stages.people
        }
        self._surrogate_weights: Reference | None = None
        self._publishing: asyncio.Task[Any] | None = None

    def all_but_generator(self) -> Iterator[Coroutine[Any, Any, None]]:
        """The loops that run beside the generator's and the pools' own."""
        yield self.rollout_loop()
        for name in self.stages.people:
            yield self.offer_loop(name)
            yield self.hear_loop(name)
        yield self.surrogate_loop()

    async def rollout_loop(self) -> None:
        """Keep the rollout workers, however many, generating with the newest weights they have.

        Consumes prompts. Produces groups in the buffer, and images for the reward pools. Waits for
        a free worker and a free slot. Unblocked by workers that are done or hired, by the
        generator's draws, and by groups growing too old for it.
        """
        stages, staff = self.stages, self.stages.rollout.staff
        while True:
            await stages.changes.until(lambda: bool(staff.free))  # of a long call the call says so
            await self._until(lambda: self._free_slots() >= 1, "a free rollout slot")
            count = int(min(stages.config.cluster.rollout_groups, self._free_slots()))
            if count < 1 or not staff.free:
                continue  # the slot was taken, or the worker has gone, before this loop woke
            self.num_generating += count
            self._go_on_with(self._roll_out(stages.prompts.take(count)))

    async def _roll_out(self, requests: Sequence[Any]) -> None:
        """One call of a rollout worker, and what comes after it."""
        try:
            groups, version = await self.stages.generate(requests)
        finally:
            self.num_generating -= len(requests)
        for each in groups:
            self._go_on_with(self._judge(_Group(each, version)))
        self.stages.changes.tell()

    def _go_on_with(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.stages.spawn(work)
        self.under_way.add(task)
        task.add_done_callback(self.under_way.discard)

    async def _judge(self, group: _Group) -> None:
        """Have a group judged by every reward, and store and offer it once all have spoken.

        A reward that is behind lets go of a group (`BatchQueue.clear_out`), one too old for the
        surrogate among others; then it has no value from that reward and those of the others. If
        all of them let go, and there are no people to ask, nobody can use it.
        """
        stages = self.stages

        def wanted() -> bool:
            age = stages.policy_version - group.policy_version
            return age <= stages.algorithm.replay.max_staleness_surrogate

        judged = [stages.judge(name, group.made.images, wanted) for name in stages.rewards]
        answers = dict(zip(stages.rewards, await asyncio.gather(*judged), strict=True))
        let_go = [isinstance(each, Lost) and each.state == "expired" for each in answers.values()]
        if all(let_go) and not stages.people:
            return
        group.records = [
            await stages.attach_lost(name, group.made.group_id, each)
            if isinstance(each, Lost)
            else each
            for name, each in answers.items()
        ]
        await self._judged(group)

    async def offer_loop(self, name: str) -> None:
        """Let people be asked about what was generated and judged.

        Consumes images and records. Produces candidates for the hear loop. Waits for judged images,
        never for a person. Unblocked by the reward pools, or by rollout where nothing else judges.
        """
        while True:
            images = self.to_offer[name].get()
            group = await self.stages.patience.wait(images, f"images for {name}", True)
            await self.stages.offer(name, group.made.images, group.records)

    async def hear_loop(self, name: str) -> None:
        """Ask about the best candidates, and fetch what people have said by now.

        Consumes candidates and the label service's reward queue. Produces groups at the service and
        reward records in the buffer, later revisions too. Waits a while between looks. Unblocked by
        the clock: people come and go.
        """
        reward = next(reward for reward in self.stages.config.rewards if reward.name == name)
        assert reward.human is not None
        looked = time.perf_counter()
        while True:
            await asyncio.sleep(reward.human.poll_s)
            since, looked = looked, time.perf_counter()
            if self._lacks_people():
                self.stages.telemetry.add("seconds/human_wait", looked - since)
            await self.stages.hear(name)

    def _lacks_people(self) -> bool:
        """Whether the surrogate waits for a batch that only people's answers would fill."""
        counts = self.stages.counts
        whole = counts.get("rewarded", 0) + counts.get("pending", 0)
        return self.surrogate_waits and not self._has("rewarded") and whole >= self.num_groups

    async def _judged(self, group: _Group) -> None:
        """All automatic rewards have spoken: store the images, and offer them to people.

        The oldest of too many offers is let go, as the buffer has let go of it too.
        """
        for name, queue in self.to_offer.items():
            if queue.qsize() >= self.stages.algorithm.replay.capacity_groups:
                queue.get_nowait()
                self.stages.telemetry.add(f"reward/{name}/expired/overflow", 1)
            queue.put_nowait(group)
        await self.stages.record(group.made, group.records)

    async def surrogate_loop(self) -> None:
        """Learn the reward from groups whose rewards have arrived.

        Consumes rewarded groups, each reward revision once. Produces surrogate weights, which the
        generator takes when it comes by. Waits for num_groups of them, for as long as it takes.
        Unblocked by the reward pools, and by people's answers.
        """
        stages = self.stages
        while True:
            self.surrogate_waits = True
            await self._until(lambda: self._ready("rewarded"), "rewarded groups")
            self.surrogate_waits = False
            rewarded = stages.replay.draw_rewarded.remote(stages.policy_version)
            metrics = await stages.learned("surrogate", stages.surrogate.update.remote(rewarded))
            if "skipped" not in metrics:
                await stages.note_surrogate()
                self._surrogate_weights = stages.surrogate.publish_weights.remote()
            stages.see(await stages.replay.counts.remote(stages.policy_version))

    async def generator_loop(self) -> None:
        """Follow the generator with the fake score, and improve it with the surrogate there is.

        Consumes fresh groups, rewarded or not. Produces generator weights. Waits for num_groups of
        them, never for a reward. Unblocked by the rollout loop. Ends when the run does.
        """
        stages = self.stages
        while await self.goes_on():
            await self._fresh_or_attention()
            if self.control.wants_attention:
                continue
            self.training = True
            fresh = stages.replay.draw_fresh.remote(stages.policy_version)
            if stages.algorithm.update_order == "jacobi":
                await stages.learned(
                    "fake_score", stages.generator.update_fake_score.remote(fresh, False)
                )
                metrics = await stages.learned(
                    "generator", stages.generator.update_generator.remote(fresh)
                )
                await stages.learned("fake_score", stages.generator.step_fake_score.remote())
                await self._take_surrogate()
            else:
                await stages.learned("fake_score", stages.generator.update_fake_score.remote(fresh))
                await self._take_surrogate()
                metrics = await stages.learned(
                    "generator", stages.generator.update_generator.remote(fresh)
                )
            if "skipped" not in metrics:
                await self._publish()
                await self.finish_iteration()

    async def _fresh_or_attention(self) -> None:
        """Wait until a batch is there, or the gate between iterations has something to do."""
        stages, self.training = self.stages, False
        start = time.perf_counter()
        stages.see(await stages.replay.counts.remote(stages.policy_version))
        ready = stages.changes.until(lambda: self._has("fresh") or self.control.wants_attention)
        await stages.patience.wait(ready, "fresh groups")
        stages.telemetry.add("seconds/wait", time.perf_counter() - start)

    async def _take_surrogate(self) -> None:
        """Load the newest surrogate, if there is one that the generator has not seen."""
        weights, self._surrogate_weights = self._surrogate_weights, None
        if weights is not None:
            await self.stages.generator.load_surrogate.remote(weights)

    async def _publish(self) -> None:
        """Publish without waiting for rollouts under way; at most one version is on its way."""
        with self.stages.telemetry.phase("publish"):
            if self._publishing is not None:
                await self._publishing
            self._publishing = self.stages.publish_beside()

    def _has(self, kind: str) -> bool:
        return self.stages.counts.get(kind, 0) >= self.num_groups

    def _ready(self, kind: str) -> bool:
        return self._has(kind) and not self.control.paused

    def _free_slots(self) -> float:
        if self.control.paused:
            return 0
        return self._slots() - self.num_generating - self.stages.counts.get("fresh", 0)

    def _slots(self) -> int:
        """Groups that may be generating or waiting for the generator at once.

        The generator takes num_groups a version, oldest first: a group with n before it is drawn
        n // num_groups draws after the next one. That one comes at this version or, while the
        generator trains, at the version after it. More groups would be too old when drawn.
        """
        config = self.stages.config
        draws = config.algorithm.replay.max_staleness_generator + (not self.training)
        return min(config.cluster.max_groups_in_flight, self.num_groups * draws)

    async def _until(self, condition: Callable[[], bool], what: str) -> None:
        """Wait without a deadline: these loops serve the generator's, which has one."""
        await self.stages.patience.wait(self.stages.changes.until(condition), what, endless=True)
