"""TDM is the generator's update without a reward and with guidance in full."""

from dataclasses import replace

import pytest
import torch

from tdm_core.distillation import Distiller, distillation_config
from tdm_core.losses.generator import generator_loss
from tdm_core.noise_schedule import renoise
from tdm_core.optimizer import RoleOptimizer
from tests.core_cases import (
    UNCONDITIONAL,
    Recorder,
    RowDenoiser,
    algorithm,
    fake_score,
    fresh,
    generator,
    gradient,
    one_pass,
    teacher,
)

pytestmark = pytest.mark.unit

CONFIG = distillation_config(algorithm(tau_sharing="per_slot"), guidance=3.0)


def distiller(teacher_net=None) -> Distiller:
    theta, f = generator(), fake_score()
    optimizers = [
        RoleOptimizer(list(net.parameters()), lr=1e-2, betas=(0.0, 0.999)) for net in (theta, f)
    ]
    return Distiller(CONFIG, teacher_net or teacher(), theta, f, *optimizers, UNCONDITIONAL)


def test_the_direction_is_the_guided_teacher_minus_the_fake_score():
    p = one_pass(fresh(), CONFIG, 1)
    v = torch.randn(
        p.boundaries_NKCHW[:, 0].shape, generator=torch.Generator().manual_seed(0)
    ).double()
    theta = RowDenoiser(v)
    s, n = p.sigmas[1], p.sigmas[2]
    x = p.boundaries_NKCHW[:, 1]
    clean, x_n = x - s * v, x - (s - n) * v
    tau = p.draw_tau("kl_tau", 1, 0.0, shared=True)
    x_tau = renoise(x_n, p.draw_noise("kl_noise", shared=False), n, tau)
    empty = {"label": torch.zeros_like(p.conditioning["label"])}
    with_prompt, without = (teacher()(x_tau, tau, c) for c in (p.conditioning, empty))
    guided = without + 3.0 * (with_prompt - without)
    t = tau.reshape(-1, 1, 1, 1)
    difference = -t * (guided - fake_score()(x_tau, tau, p.conditioning).detach())
    wf = (clean - (x_tau - t * guided)).abs().flatten(1).mean(1).reshape(-1, 1, 1, 1)
    loss, _ = generator_loss(p, theta, fake_score(), teacher(), teacher(), UNCONDITIONAL)
    expected = -2 / 4 * p.weight_N.reshape(-1, 1, 1, 1) * difference / wf
    found = gradient(loss, theta).reshape(v.shape) / -s
    assert torch.allclose(found, expected, rtol=1e-10, atol=1e-14)


def test_an_update_steps_both_roles_and_reports():
    trainer = distiller()
    before = [net.coefficients.detach().clone() for net in (trainer.generator, trainer.fake_score)]
    metrics = trainer.update([fresh()], seed=0, step=0)
    assert not torch.equal(trainer.generator.coefficients, before[0])
    assert not torch.equal(trainer.fake_score.coefficients, before[1])
    assert {"generator/kl", "generator/guidance", "generator/grad_norm"} <= set(metrics)
    assert "generator/reward" not in metrics


@pytest.mark.parametrize("count", [1, 2, 3])
def test_the_students_step_shares_slot_and_tau_with_the_last_fake_score_step(count):
    """The teacher sees one level a pass: `count` fake-score passes, then the student's."""
    recorder = Recorder(teacher())
    distiller(recorder).update([fresh(seed=i) for i in range(count)], seed=0, step=4)
    levels = [float(sigma[0]) for _, sigma in recorder.calls]
    assert len(levels) == count + 1
    assert levels[-1] == levels[-2]
    assert len(set(levels)) == count


def test_the_config_leaves_everything_else_alone():
    plain = algorithm(tau_sharing="per_slot")
    assert replace(CONFIG, generator=plain.generator) == plain
    assert CONFIG.generator.teacher_guidance == 3.0
    assert (CONFIG.generator.distillation_weight, CONFIG.generator.reward_scale) == (1.0, 0.0)
