"""The surrogate learner: group preference makes a reward that the generator can be pulled by.

Only here do rewards enter the training. A group may be spread over ranks: its sum is reduced before
the loss weighs its members.
"""

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

from torch import Tensor

from services.config import RunConfig, config_hash
from services.models.backbone import Backbone
from services.models.load import load_backbone
from services.passes import PassTotals, RowMeans, passes_on
from services.ranks import join
from services.weights import PublishedWeights, pack
from tdm_core.ema import ema_update, surrogate_retained
from tdm_core.losses.surrogate import surrogate_loss, update_velocity_power
from tdm_core.microbatches import Pass
from tdm_core.optimizer import RoleOptimizer
from tdm_core.surrogate_agreement import surrogate_agreement
from tdm_core.types import FreshBatch, RewardedBatch

ROLES = ("teacher", "surrogate", "surrogate_ema")
AGREEMENT_EVERY = 50
"""Updates between checks that all ranks hold equal parameters."""


class SurrogateLearner:
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
        algorithm, parameters = config.algorithm, self.backbone.parameters("surrogate")
        self.ranks.broadcast(parameters)
        self.ranks.broadcast(self.backbone.parameters("surrogate_ema"))
        self.optimizer = RoleOptimizer(
            parameters,
            lr=algorithm.surrogate.lr,
            betas=algorithm.surrogate.betas,
            weight_decay=algorithm.weight_decay,
            eps=algorithm.adam_eps,
            max_grad_norm=algorithm.max_grad_norm,
            all_reduce=self.ranks.all_reduce_sum,
        )
        self.num_updates = 0
        self.velocity_power = 0.0
        self._implicit: dict[int, list[float]] = {}

    def reconfigure(self, config: RunConfig) -> None:
        """Learn by other live parameters from the next update on."""
        self.config = config
        self.optimizer.set_lr(config.algorithm.surrogate.lr)

    def update(self, batch: RewardedBatch | None) -> dict[str, float]:
        """One step on rewarded groups, then the EMA; an empty batch is skipped."""
        if batch is None:
            return {"skipped": 1.0}
        surrogate, surrogate_ema, teacher = (
            self.backbone.denoiser(role) for role in ("surrogate", "surrogate_ema", "teacher")
        )
        totals, seen = PassTotals(), RowMeans(batch.fresh, self.backbone.device)
        for p in self._passes(batch.fresh):
            loss, terms = surrogate_loss(
                p,
                batch,
                surrogate,
                surrogate_ema,
                teacher,
                self.velocity_power,
                self.ranks.all_reduce_sum,
                partial(seen.add, p.rows_N, p.surrogate_slot),
            )
            self.optimizer.backward(loss)
            totals.add(terms)
        metrics = totals.over(self.ranks) | self._step()
        self._follow(metrics["surrogate/velocity_power"])
        return metrics | self._compare(seen.over(self.ranks), batch) | dict(batch.statistics)

    def _compare(self, own_NK: Tensor, batch: RewardedBatch) -> dict[str, float]:
        """Its own rewards of the batch, from before it learned, beside those that it is taught."""
        sizes = list(batch.fresh.group_sizes)
        groups = zip(batch.fresh.group_ids, own_NK.nanmean(1).split(sizes), strict=True)
        self._implicit = {group_id: own.tolist() for group_id, own in groups}
        return surrogate_agreement(own_NK, batch.advantages_NK, batch.valid_NK, sizes)

    def _step(self) -> dict[str, float]:
        norm = self.optimizer.step()
        return {"surrogate/grad_norm": norm, "surrogate/step_lost": float(not math.isfinite(norm))}

    def _follow(self, velocity_power: float) -> None:
        """The averages that trail the surrogate: phibar, and the unit of its thresholds."""
        if math.isfinite(velocity_power):
            self.velocity_power = update_velocity_power(self.velocity_power, velocity_power)
        ema_update(
            self.backbone.parameters("surrogate_ema"),
            self.backbone.parameters("surrogate"),
            surrogate_retained(self.num_updates, self.config.algorithm.surrogate),
        )
        self.num_updates += 1
        if self.num_updates % AGREEMENT_EVERY == 0:
            self.check_ranks_agree()

    def implicit_rewards(self) -> dict[int, list[float]]:
        """Group id to the rewards that the surrogate itself gave the group's samples in the last
        update, before it learned from them, a mean over the denoising steps that it was asked at;
        they compare within a group."""
        return self._implicit

    def publish_weights(self) -> PublishedWeights:
        """The surrogate as it is; its version is the number of its updates."""
        tensors = self.backbone.tensors("surrogate")
        return pack("surrogate", self.num_updates, tensors, config_hash(self.config))

    def check_ranks_agree(self) -> None:
        """RuntimeError unless all ranks hold bit-equal parameters of both roles."""
        for role in ("surrogate", "surrogate_ema"):
            self.ranks.check_agreement(role, self.backbone.parameters(role))

    def state_dict(self) -> dict[str, Any]:
        """`tensors` (part -> name -> CPU tensor) and `facts` (JSON-able): all that it will need."""
        tensors = {
            "surrogate": self.backbone.tensors("surrogate"),
            "surrogate_ema": self.backbone.tensors("surrogate_ema"),
            "surrogate_optimizer": self.optimizer.state(),
        }
        facts = {"num_updates": self.num_updates, "velocity_power": self.velocity_power}
        return {"tensors": tensors, "facts": facts}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        tensors, facts = state["tensors"], state["facts"]
        for role in ("surrogate", "surrogate_ema"):
            self.backbone.load(role, tensors[role])
        self.optimizer.load_state(tensors["surrogate_optimizer"])
        self.num_updates = facts["num_updates"]
        self.velocity_power = facts["velocity_power"]

    def close(self) -> None:
        """Leave the other ranks; the learner cannot train on afterwards."""
        self.ranks.leave()

    def _passes(self, batch: FreshBatch) -> Iterator[Pass]:
        algorithm, seed = self.config.algorithm, self.config.run.seed
        return passes_on(self.backbone.device, batch, algorithm, seed, self.num_updates, self.ranks)
