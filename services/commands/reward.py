"""`tdm-r1 reward`: a folder of images scored from the shell, before anything is trained on it."""

import os
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any

from pydantic import ValidationError

from services.commands.console import note, progress_bar, show
from services.config import RewardConfig, load_config
from services.config_keys import apply_override, readable
from services.image_folder import image_files, read_folder
from services.scored_folder import (
    FORMATS,
    MAX_SHEET_IMAGES,
    ScoredImage,
    by_reward,
    draw_scores,
    mean_scores,
    score_folder,
    write_table,
)


def reward(
    name: str,
    options: Sequence[str],
    config: str | None,
    images: Path,
    prompts: Path | None,
    images_per_prompt: int,
    out: Path,
    format: str | None,
    sheet: Path | None,
    settings: dict[str, Any],
    as_json: bool,
) -> int:
    """Score every image, write table and sheet; exit code 1 where no image got a value."""
    format = _format(out, format)
    if prompts and out.resolve() == prompts.resolve():
        raise ValueError(f"--out {out} is the prompt file, which it would replace; give another")
    sheet = _sheet(sheet or out.with_suffix(".png"), images)
    chosen = _chosen(name, options, config, settings)
    folder = read_folder(images, prompts, images_per_prompt)
    order = {image.name: place for place, image in enumerate(folder)}
    left_out = [path.name for path in image_files(images) if path.name not in order]
    if left_out:
        note(f"{prompts} names other files: {len(left_out)} are left out, such as {left_out[0]}")
    rows: list[ScoredImage] = []
    try:
        with progress_bar() as bar:
            task = bar.add_task(chosen.name, total=len(folder), note="")
            for scored in score_folder(folder, chosen):
                rows.extend(scored)
                bar.advance(task, len(scored))
    finally:
        # What was judged until an interruption may have cost hours.
        rows.sort(key=lambda scored: order[scored.image.name])
        if rows:
            write_table(out, rows, format)
    draw_scores(rows).save(sheet)
    if len(rows) > MAX_SHEET_IMAGES:
        half = MAX_SHEET_IMAGES // 2
        note(f"the sheet shows the best {half} and the worst {half} of {len(rows)} images")
    summary = _summary(rows) | {"reward": chosen.name, "table": str(out), "sheet": str(sheet)}
    summary["scores"] = mean_scores(rows, chosen.name)
    show(summary, as_json, _text(summary, by_reward(rows)))
    return 0 if summary["ready"] else 1


def _format(out: Path, format: str | None) -> str:
    found = format or out.suffix.removeprefix(".")
    if found not in FORMATS:
        raise ValueError(
            f"--out {out}: its suffix is neither .csv nor .jsonl; use one, or give --format "
            f"{' or '.join(FORMATS)}"
            if format is None
            else f"--format {format!r}: allowed are {', '.join(FORMATS)}"
        )
    _check_place("--out", out)
    return found


def _sheet(sheet: Path, images: Path) -> Path:
    if sheet.suffix != ".png":
        raise ValueError(f"--sheet {sheet}: it is a PNG; give it the suffix .png")
    _check_place("--sheet", sheet)
    if sheet.absolute().parent.resolve() == images.resolve():
        raise ValueError(
            f"--sheet {sheet} lies in the folder of images, where the next run would score it too; "
            "give a path outside"
        )
    return sheet


def _check_place(option: str, file: Path) -> None:
    folder = file.absolute().parent
    if not folder.is_dir():
        raise ValueError(f"{option} {file}: no folder {folder}; make it first")
    if file.is_dir():
        raise ValueError(f"{option} {file} is a folder; give a file's name")
    if not os.access(folder, os.W_OK):
        raise ValueError(f"{option} {file}: {folder} may not be written to; give another place")


def _chosen(
    name: str, options: Sequence[str], config: str | None, settings: dict[str, Any]
) -> RewardConfig:
    """The reward's section: of a config by its name, or of a kind; `settings` over it."""
    tree = _section(name, config) if config else _fresh(name)
    for text in options:
        if "=" not in text:
            raise ValueError(f"option {text!r}: write it as key=value, such as score=soft")
        apply_override(tree["options"], text)
    tree |= {key: value for key, value in settings.items() if value is not None}
    try:
        chosen = RewardConfig.model_validate(tree | {"on_failure": "drop_sample"})
    except ValidationError as error:
        raise ValueError(readable(error, f"reward {name!r}")) from None
    if chosen.human:
        raise ValueError(
            "kind human: people judge through the label service; see docs/labels.md, or give an "
            "automatic reward"
        )
    return chosen


def _section(name: str, config: str) -> dict[str, Any]:
    run = load_config(config, check_files=False)
    rewards = {reward.name: reward for reward in (*run.rewards, *run.evaluation.rewards)}
    if name not in rewards:
        raise ValueError(f"{config} has no reward {name!r}; it has {', '.join(rewards)}")
    return rewards[name].model_dump()


def _fresh(kind: str) -> dict[str, Any]:
    """The section of a kind, named by it or by its class."""
    label = kind.rpartition(":")[2]
    is_name = label.isascii() and label.isidentifier() and label[0] != "_"
    return {"name": label if is_name else "reward", "kind": kind, "options": {}}


def _summary(rows: Sequence[ScoredImage]) -> dict[str, Any]:
    values = [scored.record.value for scored in rows if scored.record.value is not None]
    counts = {"images": len(rows), "ready": len(values), "missing": len(rows) - len(values)}
    if not values:
        return counts
    spread = {"lowest": min(values), "highest": max(values)}
    return counts | {"mean": fmean(values), "std": pstdev(values)} | spread


def _text(summary: dict[str, Any], ranked: Sequence[ScoredImage]) -> str:
    facts = [
        f"{name} {value:.6g}" for name, value in summary.items() if isinstance(value, int | float)
    ]
    lines = [", ".join(facts)]
    over_tags = [(k, value) for k, value in summary["scores"].items() if k.endswith("/tag_mean")]
    if over_tags:
        lines.append(", ".join(f"{name} {value:.6g}" for name, value in over_tags))
    if summary["ready"]:
        best, worst = ranked[0], ranked[summary["ready"] - 1]
        lines.append(f"best {best.image.name}, worst {worst.image.name}")
    if summary["missing"]:
        first = ranked[summary["ready"]]
        lines.append(f"first without a value: {first.image.name}: {first.record.reason}")
    lines.append(f"table {summary['table']}, sheet {summary['sheet']}")
    return "\n".join(lines)
