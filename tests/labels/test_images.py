"""Images: their bytes are checked, their pixels kept, and nothing else of them is served."""

import hashlib
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Pillow
from PIL import PngImagePlugin

from services.labels.images import ImageFolder, read_picture
from services.web.problems import Problem

pytestmark = pytest.mark.unit

MEGAPIXEL = 1_000_000


def encoded(format: str, size: tuple[int, int] = (40, 30), **options: object) -> bytes:
    rng = np.random.default_rng(0)
    buffer = io.BytesIO()
    pixels = rng.integers(0, 256, (size[1], size[0], 3), np.uint8)
    Pillow.fromarray(pixels).save(buffer, format, **options)
    return buffer.getvalue()


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def refused(content: bytes, max_pixels: int = MEGAPIXEL) -> tuple[int, str]:
    """Status and code of the problem that the bytes make."""
    with pytest.raises(Problem) as caught:
        read_picture(content, digest(content), max_pixels)
    return caught.value.status, caught.value.code


def png_header(width: int, height: int) -> bytes:
    """A PNG that says it is large, in a few bytes."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 64)), (b"IEND", b"")]
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(("format", "options"), [("PNG", {}), ("WEBP", {"lossless": True})])
def test_the_pixels_are_kept_without_loss(format: str, options: dict[str, object]) -> None:
    content = encoded(format, **options)
    picture = read_picture(content, digest(content), MEGAPIXEL)
    served = np.asarray(Pillow.open(io.BytesIO(picture.files["orig"])))
    assert np.array_equal(served, np.asarray(Pillow.open(io.BytesIO(content)).convert("RGB")))
    assert (picture.width, picture.height, picture.num_bytes) == (40, 30, len(content))


def test_thumbnails_are_webp_of_their_size_and_keep_the_shape() -> None:
    content = encoded("JPEG", (1000, 500))
    picture = read_picture(content, digest(content), MEGAPIXEL)
    assert picture.media_type == "image/jpeg"
    for size, expected in (("512", (512, 256)), ("256", (256, 128))):
        thumb = Pillow.open(io.BytesIO(picture.files[size]))
        assert (thumb.format, thumb.size) == ("WEBP", expected)


def test_copies_of_a_tiny_picture_lose_nothing() -> None:
    for size, is_tiny in ((32, True), (256, True), (257, False)):
        content = encoded("PNG", (size, size))
        files = read_picture(content, digest(content), MEGAPIXEL).files
        sent = np.asarray(Pillow.open(io.BytesIO(content)))
        copy = np.asarray(Pillow.open(io.BytesIO(files["512"])).convert("RGB"))
        assert np.array_equal(copy, sent) == is_tiny


def test_metadata_and_what_hangs_on_the_end_are_not_served() -> None:
    exif = Pillow.Exif()
    exif[0x010E] = "taken at home"
    exif[0x0112] = 6  # turned by a quarter
    text = PngImagePlugin.PngInfo()
    text.add_text("secret", "<script>alert(1)</script>")
    profile = b"an icc profile with somebody's name"
    for content in (
        encoded("JPEG", exif=exif, icc_profile=profile),
        encoded("PNG", exif=exif, pnginfo=text, icc_profile=profile),
        encoded("WEBP", exif=exif, icc_profile=profile),
    ):
        content += b"<script>polyglot</script>"
        picture = read_picture(content, digest(content), MEGAPIXEL)
        assert (picture.width, picture.height) == (30, 40)
        for served in picture.files.values():
            image = Pillow.open(io.BytesIO(served))
            assert not image.getexif()
            assert "icc_profile" not in image.info
            for word in (b"home", b"script", b"somebody"):
                assert word not in served


def test_transparency_stays() -> None:
    buffer = io.BytesIO()
    Pillow.new("RGBA", (4, 4), (1, 2, 3, 0)).save(buffer, "PNG")
    picture = read_picture(buffer.getvalue(), digest(buffer.getvalue()), MEGAPIXEL)
    assert Pillow.open(io.BytesIO(picture.files["orig"])).mode == "RGBA"


def test_another_digest_is_refused() -> None:
    content = encoded("PNG")
    with pytest.raises(Problem) as caught:
        read_picture(content, digest(b"other"), MEGAPIXEL)
    assert (caught.value.status, caught.value.code) == (422, "digest-mismatch")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>",
        b"<!doctype html><script>alert(1)</script>",
        b"RIFF\x10\0\0\0WAVEfmt ",
        encoded("GIF"),
        encoded("BMP"),
        encoded("TIFF"),
    ],
)
def test_what_is_no_png_jpeg_or_webp_is_refused_whatever_it_is_called(content: bytes) -> None:
    assert refused(content) == (415, "image-type")


def test_broken_files_are_refused_and_not_half_kept() -> None:
    content = encoded("PNG")
    assert refused(content[: len(content) // 2]) == (422, "image-unreadable")
    flipped = bytearray(encoded("JPEG"))
    assert refused(bytes(flipped[:200]))[0] in (415, 422)
    garbled = bytearray(content)
    garbled[60:90] = b"\0" * 30
    assert refused(bytes(garbled)) == (422, "image-unreadable")


def test_a_small_file_that_unpacks_to_too_many_pixels_is_never_decoded() -> None:
    assert refused(png_header(8001, 8000), 64 * MEGAPIXEL) == (413, "image-too-large")
    assert refused(png_header(50_000, 50_000), 64 * MEGAPIXEL) == (413, "image-too-large")
    assert refused(encoded("PNG", (40, 30)), 1199) == (413, "image-too-large")


def test_animations_and_deep_pixels_are_refused() -> None:
    frames = [Pillow.new("RGB", (8, 8), color) for color in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    assert refused(buffer.getvalue()) == (422, "image-animated")
    deep = io.BytesIO()
    Pillow.fromarray(np.full((4, 4), 40_000, np.uint16)).save(deep, "PNG")
    assert refused(deep.getvalue()) == (422, "image-depth")


def test_files_lie_under_their_digest_and_no_other_path_is_reached(tmp_path: Path) -> None:
    content = encoded("PNG")
    folder = ImageFolder(tmp_path)
    folder.add(read_picture(content, digest(content), MEGAPIXEL))
    assert folder.path(digest(content), "256").is_file()
    for name in ("../" * 22, "/etc/passwd", "a" * 63 + "/"):
        with pytest.raises(AssertionError):
            folder.path(name, "orig")
