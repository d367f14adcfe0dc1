"""A sheet of images with captions, for people."""

import textwrap
from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

CELL = 160
"""Pixels a cell is wide; smaller images are enlarged by a whole factor, without smoothing."""
CAPTION_LINES, LINE_HEIGHT, CHARACTERS = 3, 12, 28
MARGIN = 6


def draw_grid(images_N3HW: Tensor, captions: Sequence[str], columns: int = 4) -> Image.Image:
    """Images (N, 3, H, W) uint8 in rows of `columns`, each over its caption."""
    tiles = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images_N3HW]
    return draw_sheet(tiles, captions, columns)


def draw_sheet(tiles: Sequence[Image.Image], captions: Sequence[str], columns: int) -> Image.Image:
    """Pictures of any sizes, at least one, in rows of `columns`, each over its caption."""
    tiles = [_enlarged(tile) for tile in tiles]
    width = max(CELL, *(tile.width for tile in tiles)) + MARGIN
    below = max(tile.height for tile in tiles)
    height = below + CAPTION_LINES * LINE_HEIGHT + 2 * MARGIN
    num_rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width + MARGIN, num_rows * height + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=LINE_HEIGHT - 2)
    for place, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left = MARGIN + place % columns * width
        top = MARGIN + place // columns * height
        sheet.paste(tile, (left, top))
        lines = [line for text in caption.splitlines() for line in textwrap.wrap(text, CHARACTERS)]
        text = "\n".join(lines[:CAPTION_LINES])
        draw.text((left, top + below + MARGIN // 2), text, "black", font, spacing=2)
    return sheet


def _enlarged(tile: Image.Image) -> Image.Image:
    scale = max(1, CELL // max(tile.width, tile.height))
    size = (tile.width * scale, tile.height * scale)
    return tile.resize(size, Image.Resampling.NEAREST)
