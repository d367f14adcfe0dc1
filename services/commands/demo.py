"""`tdm-r1 demo`: a bundled world end to end, and what came of it in numbers and pictures."""

import shlex
import time
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from services.commands.console import note, out, print_json, say
from services.commands.figures import curve
from services.commands.status import read_metrics
from services.commands.train import check_inputs, exit_code, watched_train
from services.config import DEMOS, RunConfig, bundled, load_config
from services.run_store.run_folder import RunFolder, create_run

SCORES = {"teacher": "teacher_score", "before": "student_before", "after": "student_after"}
SHOWN = {
    "teacher": "teacher, {teacher_steps} steps with guidance {teacher_guidance:g}",
    "before": "student, {num_steps} steps, before",
    "after": "student, {num_steps} steps, after TDM-R1",
}
TITLE_HEIGHT, GAP = 28, 24


def demo(world: str, overrides: list[str], runs: Path, as_json: bool) -> int:
    """Train on the world, then show; the exit code."""
    started = time.monotonic()
    if world not in DEMOS:
        raise ValueError(f"--world {world}: no such bundled world; allowed: {', '.join(DEMOS)}")
    config = load_config(bundled(DEMOS[world]), [f"run.dir={runs}", *overrides])
    if config.evaluation.num_images == 0 or not config.evaluation.score_teacher:
        raise ValueError("the demo compares scores; leave evaluation.num_images, .score_teacher on")
    check_inputs(config)
    folder = create_run(config, "demo")
    summary = watched_train(config, folder)
    if summary is None:
        return 1
    evaluations = summary["evaluations"]
    if set(SCORES) - set(evaluations):
        note(f"stopped before the last evaluation ({summary['reason']}); nothing to compare")
        return exit_code(summary) or 1
    summary |= compare(config, evaluations) | {"seconds": time.monotonic() - started}
    summary |= _pictures(config, folder, evaluations)
    export = _export(folder)
    sample = ["tdm-r1", "sample", str(export), "--prompt", _example(config), "--num-images", "4"]
    summary["sample_command"] = shlex.join(sample)
    folder.write_summary(summary)
    if as_json:
        print_json(summary)
    else:
        _show(config, folder, summary)
    return exit_code(summary)


def compare(config: RunConfig, evaluations: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The three scores and what they were taken on."""
    name = score_name(config, evaluations["after"])
    scores = {key: evaluations[label][name] for label, key in SCORES.items()}
    return {
        **scores,
        "score": name,
        "num_images": config.evaluation.num_images,
        "seed": config.run.seed,
    }


def score_name(config: RunConfig, report: dict[str, Any]) -> str:
    """The first reward's strict score where it has one, else its value."""
    reward = config.rewards[0].name
    return f"{reward}/strict" if f"{reward}/strict" in report else reward


def _pictures(
    config: RunConfig, folder: RunFolder, evaluations: dict[str, dict[str, Any]]
) -> dict[str, str]:
    """Write the before/after sheet and the curve; their paths."""
    sheet, drawn = folder.path / "before_after.png", folder.path / "curve.png"
    score = score_name(config, evaluations["after"])
    pages = [
        (f"{_title(config, label)}: {evaluations[label][score]:.3f}", evaluations[label]["grid"])
        for label in SCORES
    ]
    side_by_side([(title, Image.open(page)) for title, page in pages]).save(sheet)
    mean = f"reward/{config.rewards[0].name}/mean"
    lines = read_metrics(folder.metrics)
    student = [
        (report["iteration"], report[score])
        for label, report in evaluations.items()
        if label != "teacher"
    ]
    training = [(line["step"], line[mean]) for line in lines if line.get(mean) is not None]
    series = {"training": training, "student": sorted(student)}
    levels = {"teacher": evaluations["teacher"][score]}
    curve(series, levels, f"held-out {score}, and the reward while training").save(drawn)
    return {"before_after": str(sheet), "curve": str(drawn)}


def _title(config: RunConfig, label: str) -> str:
    facts = config.evaluation.model_dump() | {"num_steps": config.algorithm.sampler.num_steps}
    return SHOWN[label].format(**facts)


def side_by_side(titled: list[tuple[str, Image.Image]]) -> Image.Image:
    """Pictures in a row, each under its title."""
    width = sum(picture.width + GAP for _, picture in titled) - GAP
    height = TITLE_HEIGHT + max(picture.height for _, picture in titled)
    page = Image.new("RGB", (width, height), "white")
    pen, left = ImageDraw.Draw(page), 0
    for title, picture in titled:
        pen.text((left + 8, 6), title, "black", font=ImageFont.load_default(15))
        page.paste(picture, (left, TITLE_HEIGHT))
        left += picture.width + GAP
    return page


def _export(folder: RunFolder) -> Path:
    from services.export import export

    export(folder.path, folder.export)
    return folder.export


def _example(config: RunConfig) -> str:
    from services.prompts import read_prompts

    return read_prompts(config.prompts.heldout or config.prompts.train)[0].text


def _show(config: RunConfig, folder: RunFolder, summary: dict[str, Any]) -> None:
    from rich.table import Table

    count = summary["num_images"]
    table = Table(title=f"{summary['score']} on {count} held-out images")
    table.add_column("who")
    table.add_column("score", justify="right")
    for label, key in SCORES.items():
        table.add_row(_title(config, label), f"{summary[key]:.3f}")
    out.print(table)
    say(f"{summary['seconds']:.0f} s, seed {summary['seed']}, {summary['iterations']} iterations")
    for name in ("before_after", "curve"):
        say(f"{name:14} {summary[name]}")
    say(f"{'summary':14} {folder.path / 'summary.json'}")
    say(f"{'sample more':14} {summary['sample_command']}")
