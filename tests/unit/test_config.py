"""The config tree: what loads, what is refused, and what a person is told."""

from pathlib import Path

import pytest
import yaml

from services.config import (
    RunConfig,
    config_from_tree,
    config_hash,
    load_config,
    resolved_yaml,
)
from tdm_core.config import parity

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
YAMLS = sorted((ROOT / "configs").glob("*.yaml"))


def toy_tree(**sections):
    tree = {
        "model": {"family": "toy", "teacher": "toy"},
        "prompts": {"train": "prompts.txt"},
        "rewards": [{"name": "mode", "kind": "python:tdm_core.toy:ModeReward"}],
        "cluster": {"runtime": "local", "engine": "torch"},
    }
    return tree | sections


def config_of(**sections) -> RunConfig:
    return config_from_tree(toy_tree(**sections), "test.yaml", check_files=False)


def fault_of(**sections) -> str:
    with pytest.raises(ValueError, match=r"test\.yaml") as caught:
        config_of(**sections)
    return str(caught.value)


@pytest.fixture
def toy_file(tmp_path):
    (tmp_path / "prompts.txt").write_text("a prompt\n")
    path = tmp_path / "toy.yaml"
    path.write_text(yaml.safe_dump(toy_tree(prompts={"train": str(tmp_path / "prompts.txt")})))
    return path


@pytest.mark.parametrize("path", YAMLS, ids=lambda path: path.name)
def test_every_shipped_yaml_loads_and_reads_back_equal(path, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = load_config(path, check_files=False)
    again = tmp_path / "again.yaml"
    again.write_text(resolved_yaml(config))
    assert load_config(again, check_files=False) == config


def test_overrides_reach_sections_lists_and_the_algorithm(toy_file):
    overrides = [
        "run.seed=3",
        "rewards.0.weight=-2",
        "algorithm.surrogate.lr=1e-3",
        "algorithm.surrogate.betas=[0.5, 0.9]",
        "telemetry={images_every: 0}",
    ]
    config = load_config(toy_file, overrides)
    assert config.run.seed == 3
    assert config.reward_weights == (-2.0,)
    assert config.algorithm.surrogate.lr == 1e-3
    assert config.algorithm.surrogate.betas == (0.5, 0.9)
    assert config.telemetry.images_every == 0


def test_a_preset_lies_beneath_the_files_own_values():
    config = config_of(preset="parity_ocr", algorithm={"surrogate": {"beta": 3.0}})
    assert config.algorithm.surrogate.beta == 3.0
    assert config.algorithm.surrogate.lr == parity("ocr").surrogate.lr
    assert config_of(preset="parity_ocr").algorithm == parity("ocr")


def test_an_unknown_key_names_file_key_and_nearest():
    assert fault_of(run={"iteratons": 3}) == (
        "test.yaml: unknown key 'run.iteratons'; did you mean 'run.iterations'?"
    )
    message = fault_of(algorithm={"surrogate": {"beat": 3}})
    assert message == (
        "test.yaml: unknown key 'algorithm.surrogate.beat'; "
        "did you mean 'algorithm.surrogate.beta'?"
    )


def test_a_key_in_the_wrong_section_is_pointed_home():
    assert "did you mean 'algorithm.group_size'?" in fault_of(group_size=4)


def test_unknown_keys_of_list_items_and_overrides_are_found(toy_file):
    rewards = [{"name": "a", "kind": "ocr", "wieght": 2}]
    assert "'rewards.0.wieght'; did you mean 'rewards.0.weight'?" in fault_of(rewards=rewards)
    with pytest.raises(ValueError, match=r"override 'run\.sed=1': unknown key .* 'run\.seed'"):
        load_config(toy_file, ["run.sed=1"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("run.seed", "write it as key.subkey=value"),
        ("rewards.1.weight=2", "allowed: 0 to 0"),
        ("run.seed.x=2", "run.seed: input should be a valid integer"),
        ("run={", "no YAML"),
    ],
)
def test_a_bad_override_is_explained(toy_file, override, message):
    with pytest.raises(ValueError, match=message):
        load_config(toy_file, [override])


def test_type_errors_are_one_line_each_without_a_pydantic_dump():
    message = fault_of(run={"seed": "many"}, algorithm={"num_groups": "six"})
    assert sorted(line.split(": ")[1] for line in message.splitlines()) == [
        "algorithm.num_groups",
        "run.seed",
    ]
    assert "(got 'many')" in message
    assert "pydantic" not in message


def test_a_missing_section_says_so():
    tree = toy_tree()
    del tree["model"]
    with pytest.raises(ValueError, match="model: is missing and has no default"):
        config_from_tree(tree, "test.yaml")


def test_the_algorithms_own_checks_keep_their_message():
    assert "slots_per_update=9: allowed 1 to" in fault_of(algorithm={"slots_per_update": 9})


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"rewards": []}, "rewards: "),
        ({"rewards": [{"name": "a", "kind": "nice"}]}, "unknown reward kind 'nice'"),
        ({"rewards": [{"name": "a", "kind": "ocr", "weight": 0}]}, "remove the reward"),
        ({"rewards": [{"name": "a", "kind": "ocr"}] * 2}, "name a is used twice"),
        ({"evaluation": {"num_images": 8}}, "needs prompts.heldout"),
        ({"cluster": {"runtime": "local", "generator_ranks": 2}}, "needs cluster.runtime=ray"),
        ({"cluster": {"placement": "colocated", "surrogate_ranks": 2}}, "placement=split"),
        ({"cluster": {"generator_ranks": 97}}, "use at most 96"),
        ({"cluster": {"engine": "torch", "zero_stage": 2}}, "engine=deepspeed"),
        ({"cluster": {"max_groups_in_flight": 5}}, "use at least 6"),
        ({"algorithm": {"replay": {"capacity_groups": 5}}}, "use at least 6"),
        ({"model": {"family": "sd3", "teacher": "a/b", "dtype": "float64"}}, "only family toy"),
        ({"model": {"family": "toy", "teacher": "a/b"}}, "does not go with"),
        (
            {
                "model": {"family": "toy", "teacher": "toy", "device": "cpu"},
                "cluster": {"gpus": {"rollout": 1}},
            },
            "model.device=cpu",
        ),
    ],
)
def test_impossible_settings_are_refused(sections, message):
    assert message in fault_of(**sections)


def people(**options) -> dict:
    options = {"url": "http://127.0.0.1:8321"} | options
    return {"name": "human", "kind": "human", "options": options}


AUTOMATIC = {"name": "a", "kind": "jpeg_compressibility"}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"rewards": [people(url="ftp://x")]}, "options: url"),
        ({"rewards": [people(fractoin=1)]}, "did you mean 'fraction'"),
        ({"rewards": [people(wait="sometimes")]}, "wait"),
        ({"rewards": [people() | {"num_workers": 2}]}, "kind human has 1"),
        ({"rewards": [people() | {"max_workers": 2}]}, "1 for kind human"),
        ({"rewards": [AUTOMATIC | {"name": "rollout"}]}, "name rollout means the rollout workers"),
        (
            {"cluster": {"num_rollout_workers": 3, "max_rollout_workers": 2}},
            "max_rollout_workers=2 is below cluster.num_rollout_workers=3",
        ),
        (
            {"cluster": {"placement": "colocated", "max_rollout_workers": 2}},
            "max_rollout_workers=2 with placement=colocated",
        ),
        ({"rewards": [AUTOMATIC | {"num_workers": 3, "max_workers": 2}]}, "max_workers=2 with"),
        ({"rewards": [AUTOMATIC | {"batch_wait_s": 600}]}, "batch_wait_s=600 is not below"),
        ({"rewards": [people(), people() | {"name": "other"}]}, "one run asks one question"),
        ({"rewards": [people(), AUTOMATIC]}, "combination=per_reward_advantage"),
        ({"rewards": [people(max_open_groups=251)]}, "use at least 257"),
        (
            {
                "rewards": [people()],
                "algorithm": {
                    "replay": {"max_staleness_generator": 0, "max_staleness_surrogate": 0}
                },
            },
            "use an async run",
        ),
        (
            {"rewards": [people()], "algorithm": {"advantages": {"per_step": "gain"}}},
            "people see final images only",
        ),
        (
            {"rewards": [AUTOMATIC], "evaluation": {"rewards": [people()]}},
            "cannot judge held-out images",
        ),
        (
            {"rewards": [AUTOMATIC], "evaluation": {"rewards": [AUTOMATIC]}},
            "name a is used twice",
        ),
        ({"rewards": [people()], "evaluation": {"num_images": 8}}, "give evaluation.rewards"),
    ],
)
def test_impossible_settings_of_people_are_refused(sections, message):
    assert message in fault_of(**sections)


def test_people_judge_in_training_and_automatic_rewards_what_is_held_out():
    config = config_of(
        rewards=[AUTOMATIC, people(wait="block")],
        algorithm={"advantages": {"combination": "per_reward_advantage"}},
        evaluation={"rewards": [AUTOMATIC | {"name": "b"}]},
    )
    assert config.human_reward == config.rewards[1]
    assert config.rewards[1].human.wait == "block"
    assert [reward.name for reward in config.automatic_rewards] == ["a"]
    assert [reward.name for reward in config.judges] == ["a", "b"]


def test_missing_files_are_named_with_their_key(toy_file):
    with pytest.raises(ValueError, match=r"prompts\.train: no file .*nowhere\.txt"):
        load_config(toy_file, ["prompts.train=nowhere.txt"])
    with pytest.raises(ValueError, match="no config file"):
        load_config(toy_file.parent / "other.yaml")


def test_a_missing_teacher_is_an_error_and_a_hub_name_is_not(toy_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    sd3 = ["model.family=sd3"]
    with pytest.raises(ValueError, match=r"model\.teacher: no folder .*models/teacher"):
        load_config(toy_file, [*sd3, "model.teacher=models/teacher"])
    config = load_config(toy_file, [*sd3, "model.teacher=owner/model-5"])
    assert config.model.teacher == "owner/model-5"


def test_relative_paths_start_at_the_current_directory(toy_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(toy_file, ["prompts.train=prompts.txt", "run.dir=out"])
    assert config.prompts.train == tmp_path / "prompts.txt"
    assert config.run.dir == tmp_path / "out"


def test_bundled_names_point_into_the_package(toy_file):
    names = ["model.teacher=bundled:teacher", "model.generator=bundled:words/student"]
    overrides = ["model.family=sd3", *names, "prompts.train=bundled:words/prompts/train.jsonl"]
    config = load_config(toy_file, overrides, check_files=False)
    assert config.model.teacher == str(ROOT / "services/demo/models/teacher")
    assert config.model.generator == str(ROOT / "services/demo/words/models/student")
    assert config.prompts.train == ROOT / "services/demo/words/prompts/train.jsonl"


def test_a_resolution_is_a_side_or_height_and_width():
    sizes = {None: None, 64: (64, 64), (32, 64): (32, 64)}
    for asked, size in sizes.items():
        model = {"family": "sd3", "teacher": "a/b", "resolution": asked}
        assert config_of(model=model).model.image_size == size
    for wrong in (12, [32], [32, 64, 64], [32, 60]):
        with pytest.raises(ValueError, match=r"model\.resolution"):
            config_of(model={"family": "sd3", "teacher": "a/b", "resolution": wrong})


def test_the_hash_follows_the_network_and_not_the_rates(tmp_path):
    base = config_of(model={"family": "sd3", "teacher": "a/b"})
    faster = config_of(
        model={"family": "sd3", "teacher": "a/b"}, algorithm={"generator": {"lr": 1.0}}
    )
    wider = config_of(model={"family": "sd3", "teacher": "a/b", "lora_rank": 8})
    assert config_hash(base) == config_hash(faster)
    assert config_hash(base) != config_hash(wider)
