"""The size of a JPEG, up or down."""

import io

import numpy as np
import pytest
from PIL import Image

from services.reward.contract import RewardInput
from services.reward.jpeg import JpegCompressibility, JpegIncompressibility, jpeg_kilobytes
from tdm_core.types import Prompt

pytestmark = pytest.mark.unit

FLAT = np.full((32, 32, 3), 128, dtype=np.uint8)
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)


def batch(*images):
    return [RewardInput(image, Prompt("p:1", "x"), 0, i, 0) for i, image in enumerate(images)]


def test_the_size_is_the_encoders_bytes_in_thousands():
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, "JPEG", quality=95)
    assert jpeg_kilobytes(NOISE) == len(buffer.getvalue()) / 1000


def test_noise_is_larger_than_a_flat_image_and_quality_counts():
    assert jpeg_kilobytes(NOISE) > 2 * jpeg_kilobytes(FLAT)
    assert jpeg_kilobytes(NOISE, 50) < jpeg_kilobytes(NOISE, 95)


def test_the_two_rewards_are_each_others_negative():
    up = JpegIncompressibility().evaluate(batch(FLAT, NOISE))
    down = JpegCompressibility().evaluate(batch(FLAT, NOISE))
    assert [-value for value in up] == down
    assert up[0] < up[1]
