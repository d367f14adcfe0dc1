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
    scale = max(1, CELL // tiles[0].width)
    width = max(CELL, tiles[0].width * scale) + MARGIN
    height = tiles[0].height * scale + CAPTION_LINES * LINE_HEIGHT + 2 * MARGIN
    num_rows = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * width + MARGIN, num_rows * height + MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=LINE_HEIGHT - 2)
    for place, (tile, caption) in enumerate(zip(tiles, captions, strict=True)):
        left = MARGIN + place % columns * width
        top = MARGIN + place // columns * height
        big = tile.resize((tile.width * scale, tile.height * scale), Image.Resampling.NEAREST)
        sheet.paste(big, (left, top))
        lines = textwrap.wrap(caption, CHARACTERS)[:CAPTION_LINES]
        draw.text(
            (left, top + big.height + MARGIN // 2), "\n".join(lines), "black", font, spacing=2
        )
    return sheet
