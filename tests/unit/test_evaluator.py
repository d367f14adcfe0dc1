"""The evaluator on the toy: fixed prompts and noise, the right weights, nothing left moved."""

from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from PIL import Image

from services.config import RewardConfig, RunConfig, config_hash
from services.evaluation.evaluator import Evaluator
from services.models.load import load_backbone
from services.run_store.forms import is_evaluation
from services.run_store.images import ImageStore
from services.scored_evaluator import ScoredEvaluator
from services.weights import pack
from tdm_core.types import ImageGroup, RewardRecord

pytestmark = pytest.mark.unit


def config_for(folder: Path, **evaluation) -> RunConfig:
    heldout = folder / "heldout.txt"
    heldout.write_text("label 0\nlabel 1\n")
    return RunConfig.model_validate(
        {
            "model": {"family": "toy", "teacher": "toy", "dtype": "float64", "roles": "full"},
            "prompts": {"train": heldout, "heldout": heldout},
            "rewards": [{"name": "upper_half", "kind": "python:services.reward.toy:UpperHalf"}],
            "evaluation": {"num_images": 40, "batch_size": 16, **evaluation},
        }
    )


def shown(config: RunConfig, folder: Path, groups: bool = False) -> list[list[ImageGroup]]:
    """The parts of an evaluation of the generator as it is."""
    _, *parts = Evaluator(config, folder).generate(None, "before", groups)
    return parts


def single(parts: list[list[ImageGroup]]) -> list[ImageGroup]:
    return [group for part in parts for group in part]


def test_the_same_images_whatever_the_batch_size_and_their_number(tmp_path):
    parts = shown(config_for(tmp_path), tmp_path)
    fewer = single(shown(config_for(tmp_path, num_images=10, batch_size=3), tmp_path))
    assert [len(part) for part in parts] == [16, 16, 8]
    seen = single(parts)
    assert [group.prompt for group in fewer] == [group.prompt for group in seen[:10]]
    for one, other in zip(fewer, seen, strict=False):
        assert torch.equal(one.images_GS3HW, other.images_GS3HW)
    texts = [group.prompt.text for group in seen]
    assert texts.count("label 0") == texts.count("label 1") == 20


def test_a_groupwise_reward_sees_groups_that_begin_with_what_the_others_see(tmp_path):
    config = config_for(tmp_path)
    config = config.model_copy(update={"algorithm": replace(config.algorithm, group_size=6)})
    parts = shown(config, tmp_path, groups=True)
    assert [len(part) for part in parts] == [16, 16, 8, 2, 2, 2]
    alone, grouped = single(parts[:3]), single(parts[3:])
    assert [len(group.images_GS3HW) for group in grouped] == [6] * 6  # of 40 images
    assert [group.prompt for group in grouped] == [group.prompt for group in alone[:6]]
    for one, group in zip(alone, grouped, strict=False):
        assert torch.equal(group.images_GS3HW[:1], one.images_GS3HW)
        assert len({image.numpy().tobytes() for image in group.images_GS3HW}) > 1


def test_a_ranked_reward_that_may_miss_nothing_is_evaluated(tmp_path):
    options = {"kind": "python:services.reward.toy:UpperHalf"}
    ranked = RewardConfig(name="order", kind="ranked", options=options, on_failure="stop_run")
    config = config_for(tmp_path).model_copy(update={"rewards": [ranked]})
    report = ScoredEvaluator(config, tmp_path).evaluate(None, "before")
    assert (report["order"], report["order/missing"]) == (0.5, 0)
    assert 0 < report["order/value"] < 1


def test_a_table_is_of_all_parts_and_what_was_lost_is_missing(tmp_path):
    evaluator = Evaluator(config_for(tmp_path), tmp_path)
    parts = [[RewardRecord(n, 0, 0, "r", "ready", float(n))] for n in range(2)]
    table = evaluator.score("before", ["r", "s", "r", "r"], parts[0], 5, 16, parts[1])
    assert table == {"r": 0.5, "r/missing": 16, "r/std_error": 0.5, "s/missing": 5}


def test_what_is_stored_is_the_first_images_and_what_was_said_of_them(tmp_path):
    config = config_for(tmp_path, num_stored=3)
    ScoredEvaluator(config, tmp_path).evaluate(None, "before")
    store = ImageStore(tmp_path / "evaluations")
    shown_, judged = store.index()
    assert (shown_["evaluation"], shown_["policy_version"]) == ("before", 0)
    assert [image["number"] for image in shown_["images"]] == [0, 1, 2]
    first = single(shown(config, tmp_path))[:3]
    for stored, group, verdict in zip(shown_["images"], first, judged["verdicts"], strict=True):
        pixels = numpy.asarray(Image.open(store.path(stored["digest"])))
        assert (pixels == group.images_GS3HW[0, 0].permute(1, 2, 0).numpy()).all()
        is_upper = float(pixels[0, 1, 0] > 128)
        assert (stored["number"], is_upper) == (
            verdict["number"],
            verdict["rewards"]["upper_half"]["value"],
        )
    assert all(is_evaluation(line) for line in store.index())


def test_published_weights_are_used_and_a_shared_generator_is_put_back(tmp_path):
    config = config_for(tmp_path)
    backbone = load_backbone(config.model, ["teacher", "generator"])
    start = backbone.tensors("generator")
    # A velocity that is 2 too low in the second coordinate ends 2 too high.
    up = start | {"outer.bias": torch.tensor([0.0, -2.0]).double()}
    published = pack("generator", 9, up, config_hash(config))
    evaluator = ScoredEvaluator(config, tmp_path, backbone)
    before, after = evaluator.evaluate(None, "before"), evaluator.evaluate(published, "after")
    assert before["upper_half"] < 0.8
    assert after["upper_half"] > 0.9
    assert after["policy_version"] == 9
    assert all(torch.equal(start[n], t) for n, t in backbone.tensors("generator").items())


def test_weights_of_another_config_are_refused(tmp_path):
    config = config_for(tmp_path)
    tensors = load_backbone(config.model, ["generator"]).tensors("generator")
    with pytest.raises(ValueError, match="this worker runs"):
        Evaluator(config, tmp_path).generate(pack("generator", 1, tensors, "0" * 64), "a", False)


def test_the_teacher_is_scored_from_the_same_noise(tmp_path):
    config = config_for(tmp_path, teacher_guidance=1.0)
    report = ScoredEvaluator(config, tmp_path).evaluate_teacher()
    assert (report["label"], report["num_images"]) == ("teacher", 40)
    assert 0.3 < report["upper_half"] < 0.7


def test_a_grid_with_captions_is_left_in_the_run_folder(tmp_path):
    report, *_ = Evaluator(config_for(tmp_path), tmp_path).generate(None, "before", False)
    assert report["grid"] == str(tmp_path / "evaluations" / "before.png")
    with Image.open(report["grid"]) as grid:
        assert grid.format == "PNG"
        assert grid.size[0] > 4 * 160
        assert grid.convert("L").getextrema()[0] < 64  # the captions
