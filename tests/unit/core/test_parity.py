"""The authors' settings, number by number, and the config's own rules."""

from dataclasses import replace

import pytest

from tdm_core.config import (
    AdvantageConfig,
    AlgorithmConfig,
    GeneratorConfig,
    ReplayConfig,
    SamplerConfig,
    SurrogateConfig,
    parity,
    without_reward,
)

pytestmark = pytest.mark.unit

TASKS = ("ocr", "geneval", "image_reward", "hps")
TABLE = {
    "beta": (10, 1, 1, 10),
    "ratio_clip": (1e-3, 1e-3, 2e-3, 2e-3),
    "query": (0.30, 0.25, 0.40, 0.40),
    "train": (0.30, 0.55, 0.55, 0.55),
    "rl_cfg": (4.5, 2.5, 3.5, 3.5),
    "truncation": (4, 4, 2, 2),
    "groups": (48, 48, 24, 24),
    "per_microbatch": (4, 2, 4, 4),
    "microbatches": (12, 24, 6, 6),
    "images": (1152, 1152, 576, 576),
}


@pytest.mark.parametrize("column", range(4), ids=TASKS)
def test_each_tasks_column_is_the_released_one(column):
    config = parity(TASKS[column])
    found = {
        "beta": config.surrogate.beta,
        "ratio_clip": config.surrogate.ratio_clip,
        "query": config.generator.tau_min,
        "train": config.surrogate.tau_min,
        "rl_cfg": config.generator.reward_guidance,
        "truncation": config.truncation,
        "groups": config.num_groups,
        "per_microbatch": config.groups_per_microbatch,
        "microbatches": config.num_groups // (config.groups_per_microbatch or 1),
        "images": config.num_groups * config.group_size,
    }
    assert found == {name: row[column] for name, row in TABLE.items()}


@pytest.mark.parametrize("task", TASKS)
def test_what_all_tasks_have_in_common(task):
    config = parity(task)
    surrogate, fake, generator = config.surrogate, config.fake_score, config.generator
    assert (config.slots_per_update, config.group_size) == (2, 24)
    assert (config.sampler.num_steps, config.sampler.shift) == (4, 3.0)
    assert (config.max_grad_norm, config.weight_decay, config.adam_eps) == (1.0, 1e-4, 1e-8)
    assert (generator.distillation_weight, generator.teacher_guidance) == (0.3, 4.5)
    assert (surrogate.regulariser, surrogate.gate_threshold) == (1e-3, 0.05)
    assert (surrogate.ema_start, surrogate.ema_slope, surrogate.ema_max) == (1e-3, 1e-3, 0.3)
    assert generator.ema_max == 0.9
    assert surrogate.step_weight
    assert generator.pseudo_huber == 0
    assert fake.teacher_regulariser == 0.02
    assert (fake.lr, fake.betas) == (3e-4, (0.0, 0.999))
    assert (surrogate.lr, surrogate.betas) == (3e-4, (0.9, 0.999))
    assert (generator.lr, generator.betas) == (7.5e-5, (0.0, 0.999))
    assert (config.advantages.clip, config.advantages.std_floor) == (5.0, 1e-4)


@pytest.mark.parametrize("task", TASKS)
def test_parity_takes_the_authors_laws_where_the_default_differs(task):
    config = parity(task)
    assert (config.sampler.solver, config.sampler.grid) == ("dpmpp_2m", "discrete")
    assert (config.update_order, config.tau_sharing) == ("jacobi", "per_slot")
    assert config.fake_score.target == "clean_pred"
    assert (config.surrogate.reference, config.surrogate.threshold_scale) == ("frozen", "absolute")
    assert (config.advantages.normaliser, config.advantages.recentre) == ("batch_std", False)
    assert config.on_policy


def test_the_defaults_are_the_projects_own():
    config = AlgorithmConfig()
    assert (config.sampler.solver, config.sampler.grid) == ("euler", "nominal")
    assert (config.update_order, config.tau_sharing) == ("gauss_seidel", "per_sample")
    assert (config.surrogate.reference, config.surrogate.threshold_scale) == ("frozen", "relative")
    assert 0.97 <= config.generator.ema_max <= 0.99
    assert (config.advantages.normaliser, config.advantages.recentre) == ("rolling_std", True)
    assert not config.on_policy


def test_an_unknown_task_is_refused_by_name():
    with pytest.raises(ValueError, match="allowed are ocr, geneval, image_reward, hps"):
        parity("video")


def test_the_control_run_differs_in_the_reward_alone():
    config = AlgorithmConfig()
    control = without_reward(config)
    assert control.generator.reward_scale == 0
    assert replace(control, generator=config.generator) == config


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: AlgorithmConfig(group_size=1), "group_size=1"),
        (lambda: AlgorithmConfig(num_groups=0), "num_groups=0"),
        (lambda: AlgorithmConfig(groups_per_microbatch=4), "does not divide num_groups=6"),
        (lambda: AlgorithmConfig(slots_per_update=5), "slots_per_update=5"),
        (lambda: AlgorithmConfig(generator=GeneratorConfig(truncation=5)), "truncation=5"),
        (lambda: AlgorithmConfig(replay=ReplayConfig(capacity_groups=5)), "use at least 6"),
        (lambda: ReplayConfig(max_staleness_surrogate=1, max_staleness_generator=4), "younger"),
        (lambda: ReplayConfig(max_staleness_surrogate=0), "younger"),
        (lambda: ReplayConfig(max_staleness_generator=-1), ">= 0"),
        (lambda: ReplayConfig(max_reuse=0), "max_reuse=0"),
        (lambda: ReplayConfig(label_half_life=0), "label_half_life=0"),
        (lambda: ReplayConfig(min_label_weight=1.5), "min_label_weight=1.5"),
        (lambda: ReplayConfig(max_staleness_labelled=7), "older, never younger"),
        (lambda: SamplerConfig(num_steps=0), "num_steps=0"),
        (lambda: SamplerConfig(shift=0.0), "shift=0.0"),
        (lambda: SurrogateConfig(beta=0.0), "beta=0.0"),
        (lambda: SurrogateConfig(ratio_clip=-1.0), "ratio_clip=-1.0"),
        (lambda: SurrogateConfig(gate_threshold=-1.0), "gate_threshold=-1.0"),
        (lambda: GeneratorConfig(distillation_weight=1.5), "distillation_weight=1.5"),
        (lambda: GeneratorConfig(tau_min=1.0), "tau_min=1.0"),
        (lambda: AdvantageConfig(rolling_groups=0), "rolling_groups=0"),
        (lambda: AdvantageConfig(std_floor=0.0), "std_floor=0.0"),
        (lambda: AdvantageConfig(clip=0.0), "clip=0.0"),
    ],
)
def test_impossible_settings_are_refused_by_name(make, named):
    with pytest.raises(ValueError, match=named):
        make()


@pytest.mark.parametrize("truncation", [0, 4])
def test_truncating_everything_or_nothing_is_legal(truncation):
    config = AlgorithmConfig(generator=GeneratorConfig(truncation=truncation))
    assert config.truncation == truncation
