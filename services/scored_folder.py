"""A reward over a folder of images, outside any run: rows of a table, and a sheet to look at."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import ceil, sqrt
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps

from services.config import RewardConfig
from services.csv_cells import csv_line
from services.evaluation.grid import CELL, draw_sheet
from services.evaluation.scores import score_table
from services.image_folder import UNREADABLE, FolderImage, grouped
from services.reward.contract import is_groupwise, together
from services.reward.load import load_reward
from services.reward.worker import RewardWorker, check_requirements
from services.run_store.files import write_whole
from tdm_core.types import ImageGroup, RewardRecord

FORMATS = ("csv", "jsonl")
COLUMNS = ("file", "prompt", "state", "value", "reason", "version", "latency_s")
MAX_SHEET_IMAGES = 400


@dataclass(frozen=True)
class ScoredImage:
    """One row: what the reward said of one file."""

    image: FolderImage
    record: RewardRecord
    thumbnail: Image.Image
    """At most `CELL` pixels a side."""

    @property
    def row(self) -> dict[str, Any]:
        """Plain data; `value` is None where there is none, and `state` and `reason` say why."""
        record = self.record
        return {
            "file": self.image.name,
            "prompt": self.image.prompt.text,
            "state": record.state,
            "value": record.value,
            "reason": record.reason,
            "version": record.version,
            "latency_s": round(record.latency_s, 6),
            "parts": dict(record.parts),
        }


def score_folder(
    images: Sequence[FolderImage], reward: RewardConfig
) -> Iterator[list[ScoredImage]]:
    """Score batch by batch, each as soon as it is judged; ValueError for a wrong config or prompt.

    A groupwise reward gets the images of equal prompts together. A batch has images of one size, as
    in a run.
    """
    instance = load_reward(reward)
    silent = next((image for image in images if not image.prompt.text), None)
    if silent and "prompt" in instance.requires:
        raise ValueError(
            f"{silent.name} has no prompt, which reward {reward.name!r} reads; give a prompt file"
        )
    prompts = {image.prompt.prompt_id: image.prompt for image in images}
    check_requirements(reward, list(prompts.values()))
    units = grouped(images) if is_groupwise(instance) else [[image] for image in images]
    same_size = _by_size(units)
    worker = RewardWorker(reward)
    for some in same_size:
        for batch in together(some, reward.batch_size):
            yield _score(worker, batch, reward.name)


def mean_scores(rows: Sequence[ScoredImage], reward: str) -> dict[str, float]:
    """An evaluation's means of these images: of value and parts, by the prompts' tag and over tags.

    The images of one prompt are one witness.
    """
    prompts = list({row.image.prompt.prompt_id: row.image.prompt for row in rows}.values())
    numbers = {prompt.prompt_id: number for number, prompt in enumerate(prompts)}
    records = [replace(row.record, group_id=numbers[row.image.prompt.prompt_id]) for row in rows]
    return score_table(reward, records, dict(enumerate(prompts)))


def write_table(path: Path, rows: Sequence[ScoredImage], format: str) -> None:
    """Write every row, parts in columns of their own where the format has columns."""
    if format == "jsonl":
        lines = [json.dumps(scored.row, ensure_ascii=False).encode() + b"\n" for scored in rows]
        write_whole(path, b"".join(lines))
        return
    parts = sorted({name for scored in rows for name in scored.record.parts})
    lines = [csv_line([*COLUMNS, *(f"part:{name}" for name in parts)])]
    for scored in rows:
        row = scored.row
        cells = [row[name] for name in COLUMNS]
        lines.append(csv_line([*cells, *(row["parts"].get(name) for name in parts)]))
    write_whole(path, b"".join(lines))


def by_reward(rows: Sequence[ScoredImage]) -> list[ScoredImage]:
    """Best first; what has no value comes last."""

    def key(scored: ScoredImage) -> tuple[bool, float]:
        value = scored.record.value
        return value is None, -(value or 0.0)

    return sorted(rows, key=key)


def draw_scores(rows: Sequence[ScoredImage]) -> Image.Image:
    """The images by reward, each over its value; of very many the best and the worst."""
    rows = by_reward(rows)
    if len(rows) > MAX_SHEET_IMAGES:
        half = MAX_SHEET_IMAGES // 2
        rows = [*rows[:half], *rows[-half:]]
    captions = [_caption(scored) for scored in rows]
    return draw_sheet([scored.thumbnail for scored in rows], captions, ceil(sqrt(len(rows))))


def _caption(scored: ScoredImage) -> str:
    record = scored.record
    value = record.state if record.value is None else f"{record.value:.4g}"
    about = record.reason if record.value is None else scored.image.prompt.text
    return f"{value}  {scored.image.name}\n{about}"


def _by_size(units: Sequence[list[FolderImage]]) -> list[list[list[FolderImage]]]:
    """Units by the size of their images; ValueError where one unit has several sizes."""
    by_size: dict[str, list[list[FolderImage]]] = {}
    for unit in units:
        sizes = sorted({size for image in unit if (size := _size(image.path))})
        if len(sizes) > 1:
            raise ValueError(
                f"images of the prompt {unit[0].prompt.text[:60]!r} have the sizes "
                f"{', '.join(sizes)}; a groupwise reward compares images of one size: score those "
                "of each size by themselves"
            )
        by_size.setdefault("".join(sizes), []).append(unit)
    return list(by_size.values())


def _size(path: Path) -> str:
    """Width x height as a person sees it, from the file's head; empty where it is no image."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            width, height = image.size[::-1] if turned else image.size
    except UNREADABLE:
        return ""  # its row will say so
    return f"{width}x{height}"


def _score(
    worker: RewardWorker, units: Sequence[list[FolderImage]], reward: str
) -> list[ScoredImage]:
    scored: list[ScoredImage] = []
    groups: list[ImageGroup] = []
    judged: dict[tuple[int, int], tuple[FolderImage, Image.Image]] = {}
    for number, unit in enumerate(units):
        pixels: list[NDArray[np.uint8]] = []
        for image in unit:
            try:
                picture = _opened(image.path)
            except UNREADABLE as error:
                scored.append(_unreadable(image, number, reward, error))
                continue
            judged[number, len(pixels)] = image, _thumbnail(picture)
            pixels.append(np.asarray(picture))
        if pixels:
            stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2)[:, None].contiguous()
            groups.append(ImageGroup(number, unit[0].prompt, 0, stacked))
    for record in worker.evaluate(groups) if groups else []:
        image, thumbnail = judged[record.group_id, record.sample]
        scored.append(ScoredImage(image, record, thumbnail))
    return scored


def _opened(path: Path) -> Image.Image:
    with Image.open(path) as image:
        # As a person sees it: turned as the camera was held.
        return ImageOps.exif_transpose(image).convert("RGB")


def _thumbnail(picture: Image.Image) -> Image.Image:
    small = max(picture.size) <= CELL
    return picture.copy() if small else ImageOps.contain(picture, (CELL, CELL))


def _unreadable(image: FolderImage, group: int, reward: str, error: Exception) -> ScoredImage:
    record = RewardRecord(group, 0, 0, reward, "failed", None, reason=f"cannot be read: {error}")
    return ScoredImage(image, record, Image.new("RGB", (CELL, CELL), "lightgrey"))
