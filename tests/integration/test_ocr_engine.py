"""The real engine reads text that a real font drew."""

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import rapidocr
import torch
from PIL import Image, ImageDraw, ImageFont

from services.config import RewardConfig
from services.demo.words.signs import FONTS
from services.reward.contract import RewardInput
from services.reward.ocr import OcrReward
from services.reward.worker import RewardWorker
from tdm_core.types import ImageGroup, Prompt

pytestmark = pytest.mark.integration


def drawn(text: str, width: int = 192, height: int = 64) -> torch.Tensor:
    """Text in Pillow's own font on a light ground, as (1, 3, H, W) uint8."""
    image = Image.new("RGB", (width, height), (235, 230, 220))
    font = ImageFont.load_default(size=28)
    ImageDraw.Draw(image).text((10, 14), text, font=font, fill=(150, 20, 20))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]


@pytest.fixture(scope="module")
def worker() -> RewardWorker:
    return RewardWorker(RewardConfig(name="text", kind="ocr", batch_size=2))


def test_right_wrong_and_blank_images_are_told_apart(worker):
    images = torch.stack([drawn("Grand Sale"), drawn("Grand Safe"), drawn("Zoo"), drawn("")])
    prompt = Prompt("p:1", 'a shop with a sign "GRAND sale"')
    right, near, wrong, blank = worker.evaluate([ImageGroup(0, prompt, 0, images)])
    assert right.value == 1.0
    assert near.value == pytest.approx(1 - 1 / 9)
    assert wrong.value is not None
    assert wrong.value < 0.3
    assert blank.value == 0.0
    assert right.reason == "read 'Grand Sale'"
    assert blank.reason == "read ''"


def test_reading_is_the_same_every_time_and_small_images_are_enlarged(worker):
    small = torch.nn.functional.interpolate(drawn("OPEN", 96, 64).float(), scale_factor=0.5)
    group = ImageGroup(0, Prompt("p:1", 'a sign "OPEN"'), 0, small.to(torch.uint8)[:, None][:1])
    values = [worker.evaluate([group])[0].value for _ in range(3)]
    assert values == [1.0, 1.0, 1.0]


def test_a_whole_image_read_as_one_line_gives_the_same_text_without_a_search():
    line = RewardConfig(name="text", kind="ocr", options={"find_lines": False})
    images = torch.stack([drawn("OPEN"), drawn("OVEN")])
    exact, near = RewardWorker(line).evaluate([ImageGroup(0, Prompt("p:1", '"OPEN"'), 0, images)])
    assert (exact.value, exact.parts) == (1.0, {"exact": 1.0})
    assert (near.value, near.parts) == (0.75, {"exact": 0.0})


@pytest.mark.parametrize("font", FONTS)
@pytest.mark.parametrize("size", [18, 28, 44])
def test_several_fonts_are_read_at_several_sizes(worker, font, size):
    image = Image.new("RGB", (size * 7, size * 2), (20, 40, 90))
    place, letters = (size // 2, size // 2), _font(font, size)
    ImageDraw.Draw(image).text(place, "Hotel 28", font=letters, fill=(250, 240, 90))
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None, None]
    (record,) = worker.evaluate([ImageGroup(0, Prompt("p:1", 'a sign "Hotel 28"'), 0, pixels)])
    assert record.value == 1.0, record.reason


def _font(name: str, size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    package, file, _ = FONTS[name]
    if not package:
        return ImageFont.load_default(size=size)
    return ImageFont.truetype(import_module(package).font_files[file], size)


def test_models_of_ones_own_are_read_from_their_files(tmp_path):
    """The wheel's own files under other names stand for those of another script."""
    models = Path(rapidocr.__file__).parent / "models"
    options = {"language": "latin"}
    for part, name in (("recognizer", "rec"), ("detector", "det")):
        (found,) = models.glob(f"*_{name}_*.onnx")
        options[part] = str(shutil.copy(found, tmp_path / f"{name}.onnx"))
    reward = OcrReward(**options)
    image = drawn("OPEN")[0].permute(1, 2, 0).contiguous().numpy()
    (verdict,) = reward.evaluate([RewardInput(image, Prompt("p:1", '"OPEN"'), 0, 0, 0)])
    assert verdict.value == 1.0
    assert reward.version != OcrReward().version
