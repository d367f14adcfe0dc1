"""A curve for people, drawn with Pillow alone."""

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image, ImageDraw, ImageFont

BACKGROUND, INK, FAINT = (255, 255, 255), (30, 30, 30), (190, 190, 190)
COLOURS = {"student": (200, 60, 40), "teacher": (60, 90, 170), "training": (150, 150, 150)}


def curve(
    series: Mapping[str, Sequence[tuple[float, float]]], levels: Mapping[str, float], title: str
) -> Image.Image:
    """Lines of (step, value) points and horizontal levels; the axis is 0 to 1 or what they need."""
    width, height, left, top = 720, 400, 52, 36
    page = Image.new("RGB", (width, height), BACKGROUND)
    pen, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    last = max((x for points in series.values() for x, _ in points), default=1.0) or 1.0
    right, bottom = width - 24, height - 60
    values = [y for points in series.values() for _, y in points] + list(levels.values())
    low, high = min([0.0, *values]), max([1.0, *values])

    def at(x: float, y: float) -> tuple[float, float]:
        share = (y - low) / (high - low)
        return left + x / last * (right - left), bottom - share * (bottom - top)

    pen.text((left, 10), title, INK, font=font)
    for tick in range(6):
        y = low + tick / 5 * (high - low)
        pen.line([at(0, y), at(last, y)], FAINT if tick else INK)
        pen.text((left - 30, at(0, y)[1] - 8), f"{y:.2g}", INK, font=font)
    pen.text((left, bottom + 6), "0", INK, font=font)
    pen.text((right - 40, bottom + 6), f"{last:g}", INK, font=font)
    pen.text(((left + right) / 2 - 30, bottom + 6), "iteration", INK, font=font)
    for name, level in levels.items():
        pen.line([at(0, level), at(last, level)], COLOURS.get(name, INK), width=2)
    for name, points in series.items():
        placed = [at(x, y) for x, y in points]
        colour = COLOURS.get(name, INK)
        if len(placed) > 1:
            pen.line(placed, colour, width=3 if name == "student" else 1)
        for x, y in placed if len(placed) < 50 else ():
            pen.ellipse([x - 4, y - 4, x + 4, y + 4], fill=colour)
    _legend(pen, font, [*series, *levels], left, bottom + 30)
    return page


def _legend(pen: Any, font: Any, names: Sequence[str], x: float, y: float) -> None:
    for name in names:
        pen.rectangle([x, y + 3, x + 12, y + 13], COLOURS.get(name, INK))
        pen.text((x + 18, y), name, INK, font=font)
        x += 40 + pen.textlength(name, font=font)
