"""The generator learner: the fake score follows the generator, the generator climbs the surrogate.

Each role has its own engine, over its own parameters. Neither update needs a reward: what judges
and people say reaches the generator through the surrogate's weights alone (`load_surrogate`).
"""

import math
from collections.abc import Iterator
from typing import Any

from torch import Tensor

from services.config import RunConfig, config_hash
from services.generator.engine import RoleEngine, make_engine
from services.models.backbone import Backbone
from services.models.load import load_backbone
from services.passes import PassTotals, passes_on
from services.ranks import join
from services.weights import PublishedWeights, pack, unpack
from tdm_core.config import FakeScoreConfig, GeneratorConfig
from tdm_core.ema import ema_update, generator_retained
from tdm_core.losses.fake_score import fake_score_loss
from tdm_core.losses.generator import generator_loss
from tdm_core.microbatches import Pass
from tdm_core.types import FreshBatch

ROLES = ("teacher", "generator", "fake_score", "surrogate")
AGREEMENT_EVERY = 50
"""Generator updates between checks that all ranks hold equal parameters."""


class GeneratorLearner:
    """One rank of it; every method is called on every rank, with the same arguments."""

    def __init__(
        self,
        config: RunConfig,
        rank: int = 0,
        world_size: int = 1,
        rendezvous: str = "",
        backbone: Backbone | None = None,
    ) -> None:
        """`rendezvous` is rank 0's "host:port"; `backbone` is given where it is shared."""
        self.config = config
        self.backbone = backbone or load_backbone(config.model, ROLES)
        self.ranks = join(rank, world_size, rendezvous, self.backbone.device)
        algorithm = config.algorithm
        self.engines = {
            "fake_score": self._make_engine("fake_score", algorithm.fake_score),
            "generator": self._make_engine("generator", algorithm.generator),
        }
        self.generator_ema = [p.detach().clone() for p in self.backbone.parameters("generator")]
        self.num_fake_score_updates = 0
        self.num_generator_updates = 0
        self.surrogate_version = 0

    def _make_engine(self, role: str, settings: FakeScoreConfig | GeneratorConfig) -> RoleEngine:
        parameters = self.backbone.parameters(role)
        self.ranks.broadcast(parameters)
        cluster, algorithm = self.config.cluster, self.config.algorithm
        return make_engine(
            cluster.engine, parameters, settings, algorithm, self.ranks, cluster.zero_stage
        )

    def reconfigure(self, config: RunConfig) -> None:
        """Learn by other live parameters from the next update on."""
        self.config = config
        self.engines["fake_score"].set_lr(config.algorithm.fake_score.lr)
        self.engines["generator"].set_lr(config.algorithm.generator.lr)

    def update_fake_score(self, batch: FreshBatch | None, step: bool = True) -> dict[str, float]:
        """Follow the generator; `step=False` only accumulates, for `step_fake_score` to finish."""
        if batch is None:
            return {"skipped": 1.0}
        generator, fake_score, teacher = (
            self.backbone.denoiser(role) for role in ("generator", "fake_score", "teacher")
        )
        totals = PassTotals()
        for p in self._passes(batch, self.num_fake_score_updates):
            loss, terms = fake_score_loss(p, generator, fake_score, teacher)
            self.engines["fake_score"].backward(loss)
            totals.add(terms)
        metrics = totals.over(self.ranks)
        return metrics | self.step_fake_score() if step else metrics

    def step_fake_score(self) -> dict[str, float]:
        """Step on what `update_fake_score(batch, step=False)` accumulated (order `jacobi`)."""
        self.num_fake_score_updates += 1
        return self._step("fake_score")

    def update_generator(self, batch: FreshBatch | None) -> dict[str, float]:
        """Climb the surrogate's reward, held to the teacher by the reverse KL; then the EMA."""
        if batch is None:
            return {"skipped": 1.0}
        generator, fake_score, surrogate, teacher = (
            self.backbone.denoiser(role)
            for role in ("generator", "fake_score", "surrogate", "teacher")
        )
        unconditional = self.backbone.unconditional
        totals = PassTotals()
        for p in self._passes(batch, self.num_generator_updates):
            loss, terms = generator_loss(
                p, generator, fake_score, surrogate, teacher, unconditional
            )
            self.engines["generator"].backward(loss)
            totals.add(terms)
        metrics = totals.over(self.ranks) | self._step("generator")
        retained = generator_retained(self.num_generator_updates, self.config.algorithm.generator)
        ema_update(self.generator_ema, self.backbone.parameters("generator"), retained)
        self.num_generator_updates += 1
        if self.num_generator_updates % AGREEMENT_EVERY == 0:
            self.check_ranks_agree()
        return metrics | {"generator/surrogate_version": float(self.surrogate_version)}

    def load_surrogate(self, published: PublishedWeights) -> int:
        """Climb these surrogate weights from now on; returns their version."""
        self.backbone.load("surrogate", unpack(published, "surrogate", config_hash(self.config)))
        self.surrogate_version = published.version
        return self.surrogate_version

    def publish_weights(self) -> PublishedWeights:
        """The generator as it is; its version is the number of its updates."""
        return self._publish(self.backbone.tensors("generator"))

    def publish_ema(self) -> PublishedWeights:
        """The generator's moving average, for evaluation and export."""
        return self._publish(self._named_ema())

    def check_ranks_agree(self) -> None:
        """RuntimeError unless all ranks hold bit-equal parameters of both roles."""
        for role in self.engines:
            self.ranks.check_agreement(role, self.backbone.parameters(role))

    def state_dict(self) -> dict[str, Any]:
        """`tensors` (part -> name -> CPU tensor) and `facts` (JSON-able): all that it will need."""
        tensors = {"generator_ema": self._named_ema()}
        for role, engine in self.engines.items():
            tensors[role] = self.backbone.tensors(role)
            tensors[f"{role}_optimizer"] = engine.state()
        facts = {
            "num_fake_score_updates": self.num_fake_score_updates,
            "num_generator_updates": self.num_generator_updates,
            "surrogate_version": self.surrogate_version,
        }
        return {"tensors": tensors, "facts": facts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave; the surrogate itself comes by `load_surrogate`."""
        tensors, facts = state["tensors"], state["facts"]
        for role, engine in self.engines.items():
            self.backbone.load(role, tensors[role])
            engine.load_state(tensors[f"{role}_optimizer"])
        for name, average in zip(self._named_ema(), self.generator_ema, strict=True):
            average.copy_(tensors["generator_ema"][name])
        self.num_fake_score_updates = facts["num_fake_score_updates"]
        self.num_generator_updates = facts["num_generator_updates"]
        self.surrogate_version = facts["surrogate_version"]

    def close(self) -> None:
        """Leave the other ranks; the learner cannot train on afterwards."""
        self.ranks.leave()

    def _passes(self, batch: FreshBatch, step: int) -> Iterator[Pass]:
        algorithm, seed = self.config.algorithm, self.config.run.seed
        return passes_on(self.backbone.device, batch, algorithm, seed, step, self.ranks)

    def _step(self, role: str) -> dict[str, float]:
        norm = self.engines[role].step()
        return {f"{role}/grad_norm": norm, f"{role}/step_lost": float(not math.isfinite(norm))}

    def _named_ema(self) -> dict[str, Tensor]:
        names = self.backbone.tensors("generator")
        return {
            name: average.to("cpu", copy=True)
            for name, average in zip(names, self.generator_ema, strict=True)
        }

    def _publish(self, tensors: dict[str, Tensor]) -> PublishedWeights:
        return pack("generator", self.num_generator_updates, tensors, config_hash(self.config))
