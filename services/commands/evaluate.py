"""`tdm-r1 eval`: held-out prompts, scored by the run's rewards."""

from pathlib import Path
from typing import Any

from services.checkpoint import load_checkpoint
from services.commands.artifacts import check_weights, find_generator
from services.commands.console import err, show
from services.config import RunConfig, config_hash, load_config
from services.manifest import MANIFEST, list_checkpoints
from services.run_store.run_folder import find_run
from services.weights import PublishedWeights, pack

WEIGHTS = ("ema", "generator", "start", "teacher")
PARTS = {"ema": "generator_ema", "generator": "generator"}


def evaluate(
    run: str,
    runs: Path,
    num_images: int | None,
    weights: str,
    checkpoint: str | None,
    as_json: bool,
) -> None:
    """Score the chosen weights of a run; the answer is the evaluator's."""
    check_weights(weights, WEIGHTS)
    folder = find_run(runs, run)
    config = _evaluated(load_config(folder.config), num_images, folder.id)
    published = _published(config, run, runs, weights, checkpoint)
    count = config.evaluation.num_images
    with err.status(f"scoring {count} images ({weights})"):
        answer = _score(config, str(folder.path), weights, published)
    lines = [f"{name:36} {value}" for name, value in answer.items()]
    show(answer, as_json, "\n".join(lines))


def _score(
    config: RunConfig, folder: str, weights: str, published: PublishedWeights | None
) -> dict[str, Any]:
    from services.scored_evaluator import ScoredEvaluator

    evaluator = ScoredEvaluator(config, folder)
    if weights == "teacher":
        return evaluator.evaluate_teacher()
    version = f"_{published.version}" if published else ""
    return evaluator.evaluate(published, f"eval_{weights}{version}")


def _evaluated(config: RunConfig, num_images: int | None, run: str) -> RunConfig:
    """The config with as many images as asked for; ValueError where it cannot be evaluated."""
    if num_images is not None:
        evaluation = config.evaluation.model_copy(update={"num_images": num_images})
        config = config.model_copy(update={"evaluation": evaluation})
    if config.evaluation.num_images < 1 or config.prompts.heldout is None:
        raise ValueError(
            f"run {run} was configured without evaluation; it needs prompts.heldout, and "
            "evaluation.num_images or --num-images of at least 1"
        )
    return config


def _published(
    config: RunConfig, run: str, runs: Path, weights: str, checkpoint: str | None
) -> PublishedWeights | None:
    """Weights of a checkpoint; None where the backbone's own are meant."""
    if weights not in PARTS:
        return None
    folder = find_generator(run, runs, checkpoint)
    if not (folder / MANIFEST).is_file():
        found = list_checkpoints(folder / "checkpoints")
        if not found:
            raise ValueError(f"run {folder.name} has no checkpoint yet; wait for one")
        folder = found[0]
    part, version = PARTS[weights], config_hash(config)
    parts, _ = load_checkpoint(folder, [part], version)
    return pack("generator", int(folder.name.removeprefix("step_")), parts[part], version)
