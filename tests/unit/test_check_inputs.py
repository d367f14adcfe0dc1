"""Every reward is held against the prompts whose images it will judge, before a run starts."""

import json
from typing import Any

import pytest

from services.commands.train import check_inputs
from services.config import RunConfig
from tests.train_cases import reward, toy_run

pytestmark = pytest.mark.unit

COLOURS = {"kind": "python:reward_fakes:NeedsMetadata"}
PLAIN = {"prompt": "label 0"}
COLOURED = {"prompt": "label 1", "colour": "red"}


@pytest.fixture
def run(tmp_path):
    """Makes a run from the lines of its two prompt files."""

    def made(train: dict[str, str], heldout: dict[str, str] | None, **more: Any) -> RunConfig:
        prompts = {}
        for name, line in {"train": train, "heldout": heldout}.items():
            if line is not None:
                prompts[name] = str(tmp_path / f"{name}.jsonl")
                (tmp_path / f"{name}.jsonl").write_text(json.dumps(line) + "\n")
        return toy_run(tmp_path, prompts=prompts, **more)

    return made


def judged_by_colour() -> dict[str, Any]:
    return {"num_images": 4, "rewards": [{"name": "colour", **COLOURS}]}


def test_a_held_out_judge_may_need_what_training_prompts_lack(run):
    check_inputs(run(PLAIN, COLOURED, evaluation=judged_by_colour()))


def test_a_held_out_judge_that_cannot_judge_a_held_out_prompt_is_refused(run):
    with pytest.raises(ValueError, match=r"'colour' .*cannot judge .* heldout\.jsonl:1 "):
        check_inputs(run(COLOURED, PLAIN, evaluation=judged_by_colour()))


@pytest.mark.parametrize(("train", "heldout"), [(PLAIN, COLOURED), (COLOURED, PLAIN)])
def test_a_trained_reward_judges_the_prompts_of_both_files(run, train, heldout):
    trained = [reward(**COLOURS)]
    with pytest.raises(ValueError, match=r"'upper_half' .*cannot judge the prompt"):
        check_inputs(run(train, heldout, rewards=trained))
    check_inputs(run(COLOURED, COLOURED, rewards=trained))


def test_a_held_out_judge_is_built_though_no_prompt_is_held_out(run):
    wrong = {"rewards": [{"name": "size", "kind": "jpeg_compressibility", "options": {"q": 1}}]}
    with pytest.raises(ValueError, match="unknown option 'q'"):
        check_inputs(run(PLAIN, None, evaluation=wrong))
