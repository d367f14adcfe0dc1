"""Size of the image as a JPEG: a reward that nobody can differentiate and anybody can check."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from services.reward.contract import Answer, RewardInput

DEFAULT_QUALITY = 95


def jpeg_kilobytes(image: NDArray[np.uint8], quality: int = DEFAULT_QUALITY) -> float:
    """Size of an RGB image (H, W, 3) uint8 encoded at `quality`, in kB of 1000 bytes."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, format="JPEG", quality=quality)
    return buffer.tell() / 1000


class JpegIncompressibility:
    """The size in kB: detail and noise are good."""

    version = "1"
    requires = ("image",)

    def __init__(self, quality: int = DEFAULT_QUALITY) -> None:
        """`quality` of the encoder, 1 to 95."""
        if type(quality) is not int or not 1 <= quality <= 95:
            raise ValueError(f"option quality={quality!r}: allowed is a whole number from 1 to 95")
        self._quality = quality
        self.version = f"1:q{quality}"

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """The size of every image in kB."""
        return [jpeg_kilobytes(item.image, self._quality) for item in batch]


class JpegCompressibility(JpegIncompressibility):
    """Minus the size in kB: smooth images are good."""

    def evaluate(self, batch: list[RewardInput]) -> list[Answer]:
        """Minus the size of every image in kB."""
        return [-jpeg_kilobytes(item.image, self._quality) for item in batch]
