"""The run's evaluations: held-out images from the evaluator, verdicts from the reward pools.

    generator.publish_ema -> evaluator.generate -> images -> reward pools -> evaluator.score

Trained rewards judge with the workers they train with, those of `evaluation.rewards` with theirs.
One evaluation at a time may run beside training: its weights are a snapshot, and its scores
carry the iteration that it is of.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from services.config import RunConfig
from services.crew import Crew
from services.evaluation.parts import parts_of_groups, parts_of_singles
from services.hacking_watch import HackingWatch
from services.runtime.batches import Lost
from services.runtime.handles import Reference
from services.runtime.pool import Pool
from services.runtime.staff import Staff
from services.telemetry import Telemetry

log = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Evaluations:
    """What has been scored, and what is being scored."""

    def __init__(
        self,
        config: RunConfig,
        crew: Crew,
        telemetry: Telemetry,
        hacking: HackingWatch,
        news: Callable[[], None],
    ) -> None:
        """`news` is called when alerts may have changed."""
        self.scores: dict[str, dict[str, Any]] = {}
        self._config, self._telemetry = config, telemetry
        self._evaluator, self._judges, self._generator = crew.evaluator, crew.judges, crew.generator
        self._hacking, self._news = hacking, news
        self._groupwise: frozenset[str] | None = None
        self._beside: asyncio.Task[None] | None = None
        self._label, self._noted = "", -1

    async def score(self, label: str, iteration: int) -> None:
        """Score the generator's moving average as it is now, or the `teacher`."""
        await self._score(label, iteration, self._snapshot(label))

    def score_beside(self, label: str, iteration: int, spawn: Spawn) -> None:
        """The same while the run goes on; left out if the one before is still under way."""
        if self._beside is not None and not self._beside.done():
            self._telemetry.add("evaluation/skipped", 1)
            log.warning(
                "evaluation %s is left out, since %s is still under way; raise evaluation.every, "
                "lower evaluation.num_images or give the rewards more workers",
                label,
                self._label,
            )
            return
        # Called here, so that it is of this iteration whatever the generator learns meanwhile.
        snapshot = self._snapshot(label)
        self._label = label
        self._beside = spawn(self._score(label, iteration, snapshot))

    async def settle(self, hurried: bool) -> bool:
        """Wait for the one under way, or end it if `hurried`; whether a line has yet to tell it."""
        if self._beside is not None:
            if hurried:
                self._beside.cancel()
            else:
                await self._beside
        return self._noted == self._telemetry.num_lines

    def _snapshot(self, label: str) -> Reference | None:
        return None if label == "teacher" else self._generator.publish_ema.remote()

    async def _score(self, label: str, iteration: int, snapshot: Reference | None) -> None:
        assert self._evaluator is not None
        start = time.monotonic()
        facts, parts = await self._generate(label, snapshot)
        names = list(self._judges)
        judged = await asyncio.gather(*(self._judge(name, *parts) for name in names))
        rewards = [name for name, each in zip(names, judged, strict=True) for _ in each]
        scored, _ = await self._evaluator.run(
            "score", label, rewards, *(part for each in judged for part in each)
        )
        about = {"iteration": iteration, "seconds": time.monotonic() - start}
        self._tell(label, await scored | facts | about)

    async def _generate(
        self, label: str, snapshot: Reference | None
    ) -> tuple[dict[str, Any], tuple[Sequence[Reference], Sequence[Reference]]]:
        """What the evaluator says of its images, and they: single ones, then groups."""
        assert self._evaluator is not None
        if self._groupwise is None:
            sees = [await self._sees_groups(name) for name in self._judges]
            names = zip(self._judges, sees, strict=True)
            self._groupwise = frozenset(name for name, groups in names if groups)
        groups = bool(self._groupwise)
        num_singles = len(parts_of_singles(self._config))
        num_parts = num_singles + groups * len(parts_of_groups(self._config))
        teacher = label == "teacher"
        method = "generate_teacher" if teacher else "generate"
        arguments = () if teacher else (snapshot, label)
        (facts, *parts), _ = await self._evaluator.run(
            method, *arguments, groups, num_returns=1 + num_parts
        )
        return await facts, (parts[:num_singles], parts[num_singles:])

    async def _sees_groups(self, name: str) -> bool:
        answer, _ = await Pool(Staff([self._judges[name].staff.first])).run("sees_groups")
        return await answer

    async def _judge(
        self, name: str, singles: Sequence[Reference], groups: Sequence[Reference]
    ) -> list[Reference | int]:
        """Records of every part; of one that was lost, how many images it had."""
        assert self._groupwise is not None
        parts, sizes = singles, [len(part) for part in parts_of_singles(self._config)]
        if name in self._groupwise:
            size = self._config.algorithm.group_size
            parts, sizes = groups, [size * len(part) for part in parts_of_groups(self._config)]
        answers = await self._judges[name].judge_together(parts, max(sizes))
        pairs = zip(answers, sizes, strict=True)
        return [size if isinstance(answer, Lost) else answer for answer, size in pairs]

    def _tell(self, label: str, found: dict[str, Any]) -> None:
        self.scores[label], self._noted = found, self._telemetry.num_lines
        numbers = {k: float(v) for k, v in found.items() if isinstance(v, (int, float))}
        who = "teacher" if label == "teacher" else "student"
        self._telemetry.note({f"evaluation/{who}/{name}": v for name, v in numbers.items()})
        log.info("evaluation %s: %s", label, numbers)
        if label == "teacher" or not self._hacking.pairs:
            return
        self._hacking.see(found["iteration"], found)
        self._telemetry.note({"alert/reward_hacking": len(self._hacking.active)})
        self._news()
