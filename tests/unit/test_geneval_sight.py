"""From a network's masks to GenEval's objects, by hand; no network runs here."""

import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from services.reward.clip_colors import crop_object
from services.reward.geneval_sight import wanting_color
from services.reward.mask2former import (
    Frame,
    box_of,
    class_names,
    enlarged,
    instances_of,
    valid_size,
)

pytestmark = pytest.mark.unit

SMALL = Frame((2, 2), (2, 2), (2, 2))
OUT = -9.0


def classes_of(*probabilities: tuple[float, float, float]) -> torch.Tensor:
    """Logits of the classes cat, dog and "no object"."""
    return torch.tensor(probabilities).log()


def masks_of(*logits: list[list[float]]) -> torch.Tensor:
    return torch.tensor(logits)


def test_an_instance_has_the_product_of_both_confidences_and_the_box_of_its_mask():
    three_quarters = float(np.log(3.0))  # sigmoid(log 3) = 3/4
    (found,) = instances_of(
        classes_of((0.05, 0.9, 0.05)),
        masks_of([[OUT, three_quarters], [OUT, three_quarters]]),
        SMALL,
        ("cat", "dog"),
        0.3,
    )
    assert found.class_name == "dog"
    assert found.score == pytest.approx(0.9 * 0.75, rel=1e-5)
    assert found.box == (1.0, 0.0, 2.0, 2.0)
    assert found.mask.tolist() == [[False, True], [False, True]]
    assert found.color is None


def test_one_query_can_be_of_two_classes_but_there_are_no_more_candidates_than_queries():
    def found(*probabilities: tuple[float, float, float]) -> list[tuple[str, float]]:
        masks = masks_of(*([[9.0, 9.0], [9.0, 9.0]],) * 2)
        seen = instances_of(classes_of(*probabilities), masks, SMALL, ("cat", "dog"), 0.3)
        return [(one.class_name, round(one.score, 2)) for one in seen]

    assert found((0.9, 0.05, 0.05), (0.55, 0.42, 0.03)) == [("cat", 0.9), ("cat", 0.55)]
    assert found((0.55, 0.42, 0.03), (0.05, 0.05, 0.9)) == [("cat", 0.55), ("dog", 0.42)]


def test_what_is_not_above_the_floor_or_has_no_pixel_is_left_out():
    half = [[0.5, OUT], [OUT, OUT]]
    sure, empty = (0.98, 0.01, 0.01), [[OUT, OUT], [OUT, OUT]]
    arguments = (SMALL, ("cat", "dog"))
    # 0.98 x sigmoid(0.5) = 0.61
    assert len(instances_of(classes_of(sure), masks_of(half), *arguments, 0.60)) == 1
    assert instances_of(classes_of(sure), masks_of(half), *arguments, 0.62) == []
    assert instances_of(classes_of(sure), masks_of(empty), *arguments, 0.0) == []
    assert instances_of(classes_of((0.1, 0.1, 0.8)), masks_of(half), *arguments, 0.3) == []


def test_masks_are_enlarged_to_the_image_with_the_padding_cut_off():
    logits = torch.arange(16.0).reshape(1, 4, 4)
    frame = Frame(padded=(4, 4), valid=(2, 3), image=(2, 3))
    assert enlarged(logits, frame).tolist() == [[[0.0, 1.0, 2.0], [4.0, 5.0, 6.0]]]
    # Twice as large, bilinear with pixel centres: edges repeat, between are quarters.
    row = enlarged(torch.tensor([[[0.0, 4.0]]]), Frame((1, 2), (1, 2), (1, 4)))
    assert_close(row, torch.tensor([[[0.0, 1.0, 3.0, 4.0]]]))
    assert enlarged(torch.zeros(0, 4, 4), frame).shape == (0, 2, 3)


def test_the_valid_part_of_a_padded_image_is_measured():
    pixel_mask = torch.zeros(6, 8, dtype=torch.int64)
    pixel_mask[:4, :5] = 1
    assert valid_size(pixel_mask) == (4, 5)


def test_the_far_edges_of_a_box_are_exclusive():
    mask = np.zeros((5, 7), dtype=bool)
    mask[1, 2] = mask[3, 4] = True
    assert box_of(mask) == (2.0, 1.0, 5.0, 4.0)


def test_a_crop_shows_the_object_on_grey():
    image = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    mask = np.zeros((4, 4), dtype=bool)
    mask[1, 1] = mask[2, 2] = True
    crop = crop_object(image, mask, box_of(mask))
    assert crop.shape == (2, 2, 3)
    assert crop.dtype == np.uint8
    assert crop[0, 0].tolist() == image[1, 1].tolist()
    assert crop[1, 1].tolist() == image[2, 2].tolist()
    assert crop[0, 1].tolist() == crop[1, 0].tolist() == [0x99, 0x99, 0x99]


def test_classes_are_named_as_geneval_names_them(tmp_path):
    labels = {"0": "person", "10": "mouse", "2": "sofa", "1": "tvmonitor"}
    (tmp_path / "config.json").write_text(json.dumps({"id2label": labels}))
    assert class_names(tmp_path) == ("person", "tv", "couch", "computer mouse")


@dataclass(frozen=True)
class Seen:
    class_name: str
    score: float
    color: str | None = None


def test_only_objects_that_a_clause_takes_need_a_colour():
    sure, unsure, weak, cat = Seen("dog", 0.9), Seen("dog", 0.5), Seen("dog", 0.2), Seen("cat", 0.9)
    metadata = {"include": [{"class": "dog", "count": 1, "color": "red"}, {"class": "cat"}]}
    objects = [weak, unsure, cat, sure]
    assert wanting_color(metadata, objects, (0.3, 0.9)) == [sure]
    metadata["include"].append({"class": "dog", "count": 3, "color": "blue"})
    assert wanting_color(metadata, objects, (0.3, 0.9)) == [sure, unsure]
    assert wanting_color({**metadata, "tag": "counting"}, objects, (0.3, 0.8)) == [sure]
    assert wanting_color({"include": [{"class": "dog", "count": 1}]}, objects, (0.3, 0.9)) == []
