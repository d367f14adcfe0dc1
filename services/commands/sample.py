"""`tdm-r1 sample`: prompts to PNG files."""

from collections.abc import Sequence
from pathlib import Path

from services.commands.artifacts import check_weights, find_generator
from services.commands.console import print_json, progress_bar, say
from services.prompts import read_prompts
from services.sample import sample_images
from services.saved_generator import open_generator


def sample(
    source: str,
    runs: Path,
    prompts: Sequence[str],
    prompt_file: Path | None,
    num_images: int,
    seed: int,
    out: Path,
    weights: str,
    checkpoint: str | None,
    as_json: bool,
) -> None:
    """Draw `num_images` of each prompt into the folder `out`."""
    check_weights(weights, ("ema", "generator"))
    texts = list(prompts)
    if prompt_file is not None:
        texts += [prompt.text for prompt in read_prompts(prompt_file)]
    if not texts:
        raise ValueError("no prompt; give --prompt TEXT (several times if you like) or --prompts")
    saved = open_generator(find_generator(source, runs, checkpoint), averaged=weights == "ema")
    paths = []
    with progress_bar() as bar:
        task = bar.add_task("sampling", total=len(texts) * num_images, note="")
        for path in sample_images(saved, texts, out, num_images, seed):
            bar.advance(task)
            paths.append(str(path))
    if as_json:
        print_json({"images": paths, "seed": seed, "origin": dict(saved.origin)})
    else:
        for path in paths:
            say(path)
