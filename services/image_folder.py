"""Images of a folder and the prompts that they were made for.

Three ways to say which prompt is whose: a prompt file with `file_name` on every line; a prompt file
in the order of the images' names; no file, where the PNGs carry their prompt (`tdm-r1 sample`).
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from services.prompts import read_prompts
from tdm_core.prompts import Prompt

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FILE_NAME = "file_name"
UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises for files that are no image, or none that we would open."""


@dataclass(frozen=True)
class FolderImage:
    """One image file."""

    path: Path
    """Where it is."""
    name: str
    """How it is called in results: its path in the folder."""
    prompt: Prompt
    """What it was made for; an empty text where nobody says."""


def read_folder(
    folder: Path, prompts: Path | None = None, images_per_prompt: int = 1
) -> list[FolderImage]:
    """Every image with its prompt, in the order of names or of `file_name` lines.

    ValueError where images and prompts do not fit together: both numbers, and the first left over.
    """
    if images_per_prompt < 1:
        raise ValueError(f"images_per_prompt={images_per_prompt}: at least 1")
    files = image_files(folder)
    read = read_prompts(prompts) if prompts else []
    if any(FILE_NAME in prompt.metadata for prompt in read):
        return _by_name(folder, read)
    if not files:
        raise ValueError(f"{folder} holds no image; allowed are {', '.join(SUFFIXES)}")
    if prompts is None:
        return [FolderImage(path, path.name, _own_prompt(path)) for path in files]
    return _by_order(folder, files, prompts, read, images_per_prompt)


def image_files(folder: Path) -> list[Path]:
    """The folder's images by name, where numbers count as numbers: 2.png comes before 10.png."""
    if not folder.is_dir():
        raise ValueError(f"no folder {folder}; give one that holds images")
    files = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES]
    return sorted(files, key=lambda path: _natural(path.name))


def grouped(images: Sequence[FolderImage]) -> list[list[FolderImage]]:
    """Images of equal prompts (text and metadata) together, by first appearance."""
    groups: dict[str, list[FolderImage]] = {}
    for image in images:
        prompt = image.prompt
        key = json.dumps([prompt.text, dict(prompt.metadata)], sort_keys=True)
        groups.setdefault(key, []).append(image)
    return list(groups.values())


def _natural(name: str) -> list[tuple[int, int, str]]:
    pieces = re.findall(r"[0-9]+|[^0-9]+", name)
    keys = [(0, int(piece), "") if piece[0] in "0123456789" else (1, 0, piece) for piece in pieces]
    return [*keys, (2, 0, name)]


def _own_prompt(path: Path) -> Prompt:
    try:
        with Image.open(path) as image:
            text = image.info.get("prompt", "")
    except UNREADABLE:
        text = ""  # the reward's row will say that the file is no image
    return Prompt(path.name, text if isinstance(text, str) else "")


def _by_name(folder: Path, prompts: Sequence[Prompt]) -> list[FolderImage]:
    images: dict[str, FolderImage] = {}
    for prompt in prompts:
        metadata = dict(prompt.metadata)
        name = metadata.pop(FILE_NAME, None)
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"{prompt.prompt_id}: {FILE_NAME!r} is {name!r}; where one line names its file, "
                "all do, by a path inside the folder of images"
            )
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError(f"{prompt.prompt_id}: {name!r} is not inside {folder}; move it there")
        if not (folder / name).is_file():
            raise ValueError(f"{prompt.prompt_id}: no image {name!r} in {folder}")
        if name in images:
            earlier = images[name].prompt.prompt_id
            raise ValueError(f"{prompt.prompt_id}: {name!r} has a prompt already, {earlier}")
        named = Prompt(prompt.prompt_id, prompt.text, metadata)
        images[name] = FolderImage(folder / name, name, named)
    return list(images.values())


def _by_order(
    folder: Path, files: Sequence[Path], source: Path, prompts: Sequence[Prompt], each: int
) -> list[FolderImage]:
    wanted = [prompt for prompt in prompts for _ in range(each)]
    if len(files) != len(wanted):
        raise ValueError(_leftover(folder, files, source, wanted, each))
    return [
        FolderImage(path, path.name, prompt) for path, prompt in zip(files, wanted, strict=True)
    ]


def _leftover(
    folder: Path, files: Sequence[Path], source: Path, wanted: Sequence[Prompt], each: int
) -> str:
    if len(files) > len(wanted):
        what = f"image {files[len(wanted)].name!r} has no prompt"
    else:
        prompt = wanted[len(files)]
        what = f"prompt {prompt.prompt_id} {prompt.text[:60]!r} has no image"
    count = f"{len(wanted) // each} prompts"
    if each > 1:
        count += f" x {each} images a prompt = {len(wanted)}"
    return (
        f"{folder} holds {len(files)} images but {source} has {count}; "
        f"the first left over: {what}. Write one line an image in the order of their names, or "
        f'name files: {{"{FILE_NAME}": "a.png", "prompt": "..."}}'
    )
