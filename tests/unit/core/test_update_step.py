"""A whole update: orders, accumulation and ranks (docs/algorithm.md 5)."""

from dataclasses import replace
from itertools import permutations

import pytest
import torch

from tdm_core.ema import ema_update, surrogate_retained
from tdm_core.losses.fake_score import fake_score_loss
from tdm_core.losses.generator import generator_loss
from tdm_core.losses.surrogate import surrogate_loss
from tdm_core.microbatches import Pass, passes
from tdm_core.optimizer import RoleOptimizer, identity
from tests.core_cases import (
    PLAIN_SURROGATE,
    UNCONDITIONAL,
    algorithm,
    fake_score,
    fresh,
    generator,
    gradient,
    one_pass,
    rewarded,
    run_ranks,
    surrogate,
    surrogate_ema,
    teacher,
)

pytestmark = pytest.mark.unit

CONFIG = algorithm(num_groups=4, slots_per_update=2, groups_per_microbatch=2)
SIZES = (4, 3, 5, 4)
ROLES = ("surrogate", "fake_score", "generator")


class Trainer:
    """The three learned roles, one update at a time, on any rank."""

    def __init__(self, config=CONFIG, rank=0, world_size=1, all_reduce=identity):
        self.config, self.place, self.all_reduce = config, (rank, world_size), all_reduce
        self.nets = {
            "surrogate": surrogate(),
            "fake_score": fake_score(),
            "generator": generator(),
        }
        self.ema, self.teacher = surrogate_ema(), teacher()
        self.optimizers = {
            name: RoleOptimizer(
                list(net.parameters()), lr=1e-2, betas=(0.0, 0.999), all_reduce=all_reduce
            )
            for name, net in self.nets.items()
        }

    def loss(self, role, p, batch):
        nets = self.nets
        if role == "surrogate":
            phi = nets["surrogate"]
            return surrogate_loss(p, batch, phi, self.ema, self.teacher, 0.0, self.all_reduce)[0]
        if role == "fake_score":
            return fake_score_loss(p, nets["generator"], nets["fake_score"], self.teacher)[0]
        return generator_loss(
            p, nets["generator"], nets["fake_score"], nets["surrogate"], self.teacher, UNCONDITIONAL
        )[0]

    def accumulate(self, role, batch, step):
        for p in passes(batch.fresh, self.config, 0, step, *self.place):
            self.optimizers[role].backward(self.loss(role, p, batch))

    def step(self, role, step):
        self.optimizers[role].step()
        if role == "surrogate":
            ema_update(
                self.ema.parameters(),
                self.nets["surrogate"].parameters(),
                surrogate_retained(step, self.config.surrogate),
            )

    def jacobi(self, batch, step, order=ROLES):
        for role in order:
            self.accumulate(role, batch, step)
        for role in order:
            self.step(role, step)

    def gauss_seidel(self, batch, step, order=ROLES):
        for role in order:
            self.accumulate(role, batch, step)
            self.step(role, step)

    def parameters(self):
        nets = [*self.nets.values(), self.ema]
        return torch.cat([net.coefficients.detach().clone() for net in nets])


def after(order, update, steps=3):
    trainer = Trainer()
    batch = rewarded(fresh(SIZES))
    for step in range(steps):
        getattr(trainer, update)(batch, step, order)
    return trainer.parameters()


@pytest.mark.parametrize("order", list(permutations(ROLES)), ids="-".join)
def test_jacobi_does_not_depend_on_the_order_of_roles(order):
    assert torch.equal(after(order, "jacobi"), after(ROLES, "jacobi"))


def test_surrogate_and_fake_score_are_independent_of_one_another():
    swapped = ("fake_score", "surrogate", "generator")
    assert torch.equal(after(swapped, "gauss_seidel"), after(ROLES, "gauss_seidel"))


def test_the_two_orders_differ_only_in_the_nets_that_the_generator_sees():
    """After one step the followers agree and the generator does not."""
    first, second = after(ROLES, "gauss_seidel", 1), after(ROLES, "jacobi", 1)
    same = [torch.equal(a, b) for a, b in zip(first.split(4), second.split(4), strict=True)]
    assert same == [True, True, False, True]


def halves(p: Pass) -> list[Pass]:
    """The pass as two microbatches of one group each, with the same draws."""
    parts = []
    for g in (0, 1):
        rows = p.group_N == g
        parts.append(
            replace(
                p,
                boundaries_NKCHW=p.boundaries_NKCHW[rows],
                conditioning={name: value[rows] for name, value in p.conditioning.items()},
                rows_N=p.rows_N[rows],
                group_N=torch.zeros(int(rows.sum()), dtype=torch.int64),
                member_N=p.member_N[rows],
                group_ids=p.group_ids[g : g + 1],
                group_sizes=p.group_sizes[g : g + 1],
                weight_N=p.weight_N[rows],
                share=p.share / 2,
            )
        )
    return parts


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("sizes", [(4, 4), (5, 2)], ids=["equal", "unequal"])
def test_two_half_microbatches_add_up_to_the_whole(role, sizes):
    """The gate is off, since M is a mean over its microbatch."""
    trainer = Trainer(algorithm(surrogate=PLAIN_SURROGATE | {"regulariser": 0.1}))
    batch = rewarded(fresh(sizes))
    p = one_pass(batch.fresh, trainer.config, 1)
    net = trainer.nets[role]
    whole = trainer.loss(role, p, batch)
    split = sum(trainer.loss(role, half, batch) for half in halves(p))
    assert torch.allclose(split, whole, rtol=1e-13)
    assert torch.allclose(gradient(split, net), gradient(whole, net), rtol=1e-11, atol=1e-15)


@pytest.mark.parametrize("world_size", [2, 4])
def test_all_ranks_hold_what_one_rank_would(world_size):
    batch = rewarded(fresh(SIZES))

    def body(rank, all_reduce):
        trainer = Trainer(rank=rank, world_size=world_size, all_reduce=all_reduce)
        for step in range(3):
            trainer.gauss_seidel(batch, step)
        return trainer.parameters()

    answers = run_ranks(world_size, body)
    assert all(torch.equal(answer, answers[0]) for answer in answers)
    assert torch.allclose(answers[0], after(ROLES, "gauss_seidel"), rtol=1e-10)


def test_the_same_update_twice_is_bitwise_equal():
    assert torch.equal(after(ROLES, "gauss_seidel"), after(ROLES, "gauss_seidel"))
