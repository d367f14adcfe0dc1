"""GenEval's objects and colours by transformers' real classes on tiny random checkpoints."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch.testing import assert_close
from transformers import CLIPModel, Mask2FormerImageProcessorPil

from services.config import RewardConfig
from services.reward.checkpoints import Placement
from services.reward.clip import load_clip
from services.reward.clip_colors import COLORS, ColorClassifier
from services.reward.geneval import GenevalReward
from services.reward.mask2former import Frame, Mask2Former, instances_of, valid_size
from services.reward.worker import RewardWorker, check_requirements
from tdm_core.types import ImageGroup, Prompt
from tests.tiny_vision import build_clip, build_mask2former

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return build_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    return build_mask2former(tmp_path_factory.mktemp("mask2former"))


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(3)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for size in sizes]


def test_objects_are_those_of_the_librarys_own_postprocessing():
    # The library enlarges to 384 x 384 whatever came in; for an image of that size both agree.
    torch.manual_seed(0)
    class_logits, mask_logits = 3 * torch.randn(1, 7, 4), 4 * torch.randn(1, 7, 12, 12)
    outputs = SimpleNamespace(class_queries_logits=class_logits, masks_queries_logits=mask_logits)
    (theirs,) = Mask2FormerImageProcessorPil().post_process_instance_segmentation(
        outputs, threshold=0.2, return_binary_maps=True
    )
    frame = Frame((384, 384), (384, 384), (384, 384))
    ours = instances_of(class_logits[0], mask_logits[0], frame, ("a", "b", "c"), 0.2)
    assert len(ours) > 2
    expected = sorted(
        (segment["score"], "abc"[segment["label_id"]], int(mask.sum()))
        for segment, mask in zip(theirs["segments_info"], theirs["segmentation"], strict=True)
    )
    found = sorted((one.score, one.class_name, int(one.mask.sum())) for one in ours)
    assert [one[1:] for one in found] == [one[1:] for one in expected]
    assert [one[0] for one in found] == pytest.approx([one[0] for one in expected], abs=1e-5)


def test_an_image_is_seen_alike_alone_and_in_a_batch_of_other_sizes(detector):
    model = Mask2Former(detector, Placement("cpu"), 0.05)
    images = pictures((48, 80), (64, 64), (48, 80))
    together = model.detect(images)
    assert model.classes == ("person", "motorcycle", "computer keyboard")
    for image, objects in zip(images, together, strict=True):
        (alone,) = model.detect([image])
        assert [one.class_name for one in alone] == [one.class_name for one in objects]
        assert [one.box for one in alone] == [one.box for one in objects]
        assert [one.score for one in alone] == pytest.approx(
            [one.score for one in objects], abs=1e-5
        )
        assert all(one.mask.shape == image.shape[:2] for one in objects)


def test_padding_of_the_real_processor_is_measured_and_cut_off(tmp_path):
    size = {"shortest_edge": 64, "longest_edge": 96}
    folder = build_mask2former(tmp_path, size=size, pad_size=128)
    (image,) = pictures((64, 96))
    processor = Mask2FormerImageProcessorPil.from_pretrained(folder)
    inputs = processor([Image.fromarray(image)], return_tensors="pt")
    assert inputs.pixel_values.shape == (1, 3, 128, 128)
    assert valid_size(inputs.pixel_mask[0]) == (64, 96)
    (objects,) = Mask2Former(folder, Placement("cpu"), 0.02).detect([image])
    assert objects


def test_a_colour_is_the_nearest_mean_of_its_three_prompts(clip):
    crops = pictures((20, 28), (33, 21), (28, 28))
    named = ColorClassifier(clip, Placement("cpu")).name_colors(crops, ["dog", "dog", "tv remote"])
    encoder = load_clip(clip, clip, Placement("cpu"))
    for crop, class_name, color in zip(crops, ("dog", "dog", "tv remote"), named, strict=True):
        closeness = []
        for candidate in COLORS:
            texts = [
                f"a photo of a {candidate} {class_name}",
                f"a photo of a {candidate}-colored {class_name}",
                f"a photo of a {candidate} object",
            ]
            mean = torch.stack([encoder.embed_texts([text])[0] for text in texts]).mean(dim=0)
            closeness.append((encoder.embed_images([crop])[0] @ (mean / mean.norm())).item())
        assert color == COLORS[int(np.argmax(closeness))]
    assert ColorClassifier(clip, Placement("cpu")).name_colors([], []) == []


def test_embeddings_have_length_one_and_do_not_depend_on_their_neighbours(clip):
    encoder = load_clip(clip, clip, Placement("cpu"))
    images, texts = pictures((28, 40), (50, 28)), ["a red dog", "two very blue cats on a mat"]
    together = encoder.embed_images(images), encoder.embed_texts(texts)
    for i in range(2):
        assert_close(encoder.embed_images([images[i]])[0], together[0][i], atol=1e-5, rtol=0)
        assert_close(encoder.embed_texts([texts[i]])[0], together[1][i], atol=1e-5, rtol=0)
    assert_close(together[0].norm(dim=-1), torch.ones(2))
    assert_close(together[1].norm(dim=-1), torch.ones(2))
    raw = CLIPModel.from_pretrained(clip)
    assert encoder.logit_scale == pytest.approx(raw.logit_scale.exp().item())


def reward_config(detector, clip, **options) -> RewardConfig:
    models = {"detector": "mask2former", "weights": str(detector), "clip": str(clip)}
    return RewardConfig(name="g", kind="geneval", options=models | {"device": "cpu"} | options)


def test_the_reward_judges_what_the_models_see(detector, clip):
    (image,) = pictures((64, 64))
    (objects,) = Mask2Former(detector, Placement("cpu"), 0.2).detect([image])
    name = objects[0].class_name
    count = sum(one.class_name == name for one in objects)
    images = torch.from_numpy(np.stack([image] * 2)).permute(0, 3, 1, 2)[:, None].contiguous()
    worker = RewardWorker(reward_config(detector, clip, threshold=0.2, score="soft"))

    def parts(clause: dict) -> dict[str, float]:
        prompt = Prompt("p:1", "x", {"tag": "colors", "include": [clause]})
        first, second = worker.evaluate([ImageGroup(0, prompt, 0, images)])
        assert first.state == "ready", first.reason
        assert first.parts == second.parts
        return dict(first.parts)

    assert parts({"class": name, "count": count})["strict"] == 1.0
    assert parts({"class": name, "count": count + 1})["strict"] == 0.0
    by_color = [parts({"class": name, "count": count, "color": color}) for color in COLORS]
    fitting = [found[f"include 0 {name}: {c}"] for found, c in zip(by_color, COLORS, strict=True)]
    assert sum(fitting) == count


def test_the_same_image_with_other_weights_has_another_version(detector, clip, tmp_path):
    other = build_mask2former(tmp_path / "other", seed=1)
    options = [reward_config(folder, clip).options for folder in (detector, other)]
    versions = [GenevalReward(**choice).version for choice in options]
    assert versions[0] != versions[1]
    assert versions[0] == GenevalReward(**options[0]).version


def test_missing_weights_are_named_before_the_run_with_the_remedy(detector, clip, tmp_path):
    prompt = Prompt("p:1", "x", {"include": [{"class": "person", "count": 1}]})
    nowhere = reward_config("some/weights-nobody-has", clip)
    with pytest.raises(ValueError, match=r"option weights=.*hf download some/weights-nobody-has"):
        check_requirements(nowhere, [prompt])
    with pytest.raises(ValueError, match=r"lacks config.json, preprocessor_config.json"):
        check_requirements(reward_config(tmp_path, clip), [prompt])
    torn = tmp_path / "torn"
    shutil.copytree(clip, torn)
    (torn / "model.safetensors").unlink()
    with pytest.raises(ValueError, match="torn holds no safetensors; a checkpoint is"):
        check_requirements(reward_config(detector, torn), [prompt])
    with pytest.raises(ValueError, match="options weights are for detector=mask2former"):
        GenevalReward(detector="stickers", weights=str(clip))


def test_genevals_eighty_classes_are_those_of_coco(detector, clip, tmp_path):
    folder = build_mask2former(tmp_path / "named")
    config = json.loads((folder / "config.json").read_text())
    config["id2label"]["1"] = "tvmonitor"
    (folder / "config.json").write_text(json.dumps(config))
    tv = Prompt("p:1", "a tv", {"include": [{"class": "tv", "count": 1}]})
    check_requirements(reward_config(folder, clip), [tv])
    with pytest.raises(ValueError, match=r"'mask2former' cannot see 'tv', only person"):
        check_requirements(reward_config(detector, clip), [tv])


def test_weights_that_leave_parameters_unset_end_the_worker_at_its_start(clip, detector, tmp_path):
    for name, folder in (("Mask2Former", detector), ("CLIP", clip)):
        torn = tmp_path / name
        shutil.copytree(folder, torn)
        tensors = load_file(torn / "model.safetensors")
        gone = next(key for key in tensors if key.endswith("norm.weight"))
        del tensors[gone]
        save_file(tensors, torn / "model.safetensors", {"format": "pt"})
        config = reward_config(*((torn, clip) if folder == detector else (detector, torn)))
        with pytest.raises(ValueError, match=f"is none of {name}.*: it does not set {gone}"):
            RewardWorker(config)
