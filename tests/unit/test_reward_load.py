"""A reward is built from its section of the config, or an error says what is wrong with it."""

import pytest

from services.config import RewardConfig
from services.reward.custom import load_attribute, load_class
from services.reward.jpeg import JpegCompressibility
from services.reward.load import BUILT_IN, check_packages, load_prepared, load_reward

pytestmark = pytest.mark.unit


def build(kind: str, **options):
    return load_reward(RewardConfig(name="r", kind=kind, options=options))


def test_a_built_in_kind_is_built_with_its_options():
    reward = build("jpeg_compressibility", quality=80)
    assert isinstance(reward, JpegCompressibility)
    assert reward.version == "1:q80"


def test_an_unknown_option_names_the_nearest_and_all():
    message = "'r' .*unknown option 'qualty'; did you mean 'quality'.*allowed: quality"
    with pytest.raises(ValueError, match=message):
        build("jpeg_compressibility", qualty=80)


def test_a_reward_without_options_says_so():
    with pytest.raises(ValueError, match="allowed: none"):
        build("python:reward_fakes:Odd", size=3)


def test_a_missing_option_is_named():
    with pytest.raises(ValueError, match="option 'faults' is missing"):
        build("python:reward_fakes:Flaky")


SCORER = {"url": "https://scorer.example.com/", "allowed_hosts": ["scorer.example.com"]}
JUDGE = {"base_url": "http://127.0.0.1:8000/v1", "model": "m"}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("http", SCORER),
        ("vlm_judge", JUDGE),
        ("ranked", {"kind": "vlm_judge", "options": JUDGE}),
    ],
)
def test_a_batch_s_budget_is_below_the_deadline(kind, options):
    def build(deadline_s: float):
        return load_reward(
            RewardConfig(name="r", kind=kind, options=options, deadline_s=deadline_s)
        )

    for deadline_s in (30, 45):
        with pytest.raises(ValueError, match=rf"'r' .*budget_s=45 .*deadline_s={deadline_s},"):
            build(deadline_s)
    assert build(45.5).budget_s == 45


def test_a_ranked_reward_s_budget_is_held_against_its_own_deadline():
    inner = {"kind": "vlm_judge", "options": {**JUDGE, "budget_s": 90}}
    config = RewardConfig(name="r", kind="ranked", options=inner, deadline_s=120)
    assert load_reward(config).budget_s == 90


@pytest.mark.parametrize("quality", [0, 96, "high", True, 50.0])
def test_an_impossible_quality_is_refused(quality):
    with pytest.raises(ValueError, match="from 1 to 95"):
        build("jpeg_incompressibility", quality=quality)


def test_an_unknown_kind_names_all_kinds():
    config = RewardConfig.model_construct(name="r", kind="clip", options={})
    with pytest.raises(ValueError, match=r"geneval, ocr, .*python:module:Class"):
        load_reward(config)


def test_a_missing_package_names_the_extra_that_brings_it():
    with pytest.raises(ValueError, match=r"no_such_package.*pip install 'tdm-r1\[ocr\]'"):
        check_packages(["json", "no_such_package"], "ocr")


@pytest.mark.parametrize("kind", ["preference", "vlm_judge_local"])
def test_what_asks_a_model_needs_chat_templates_and_says_what_brings_them(kind):
    assert {"transformers", "jinja2"} <= set(BUILT_IN[kind].packages)
    assert BUILT_IN[kind].extra == "preference"


def test_a_package_of_another_version_names_the_range_and_the_extra(tmp_path, monkeypatch):
    folder = tmp_path / "tdm_r1-9.dist-info"
    folder.mkdir()
    wanted = (
        'Requires-Dist: numpy>=90; extra == "ocr"\nRequires-Dist: scipy>=90; extra == "judge"\n'
    )
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: tdm-r1\nVersion: 9\n{wanted}")
    monkeypatch.syspath_prepend(tmp_path)
    check_packages(["numpy"], "geneval")
    with pytest.raises(ValueError, match=r"numpy \S+ is installed and >=90 is needed; .*\[ocr\]"):
        check_packages(["numpy"], "ocr")


def test_a_built_in_kind_that_cannot_import_names_its_extra(tmp_path, monkeypatch):
    (tmp_path / "broken_engine.py").write_text("raise ImportError('libGL.so.1 is not here')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=r"libGL.so.1 is not here; install what it imports"):
        load_prepared(RewardConfig(name="r", kind="python:reward_fakes:NeedsEngine"))


def test_every_built_in_kind_is_a_class_in_its_module():
    for kind, built_in in BUILT_IN.items():
        check_packages(built_in.packages, built_in.extra)
        assert isinstance(load_class(f"python:{built_in.module}:{built_in.class_name}"), type), kind


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("NoVersion", "no version"),
        ("NoEvaluate", "no evaluate"),
        ("UnknownField", "out of prompt, image, metadata, group"),
        ("release", "not a class"),
        ("Brightnes", "has no 'Brightnes'; its classes are .*Brightness"),
    ],
)
def test_code_that_is_no_reward_is_refused_with_the_reason(name, message):
    with pytest.raises(ValueError, match=message):
        build(f"python:reward_fakes:{name}")


def test_a_module_that_is_nowhere_is_named_with_the_folder_searched(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=rf"no module 'nowhere' in {tmp_path}"):
        build("python:nowhere:Reward")


def test_a_missing_import_of_the_users_module_is_not_blamed_on_the_module(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reward_with_missing_import.py").write_text("import no_such_package_at_all\n")
    with pytest.raises(ModuleNotFoundError, match="no_such_package_at_all"):
        build("python:reward_with_missing_import:Reward")


def test_a_name_that_is_not_python_module_name_is_refused():
    for kind in ("python:module", "python::Class", "pithon:a:b", "python:a:b:c"):
        with pytest.raises(ValueError, match="python:my_module:MyReward"):
            load_attribute(kind)
