"""`tdm-r1 distill`: a bar, a metrics file, and the student at the end."""

import json
from pathlib import Path

from services.commands.console import err, note, progress_bar, say
from services.config import load_config, resolved_yaml
from services.distill import distill as run

PLAIN_EVERY = 20
"""Updates between lines where there is no terminal to draw a bar on."""
SHOWN = ("fake_score/matching", "generator/grad_norm")


def distill(
    config_file: str,
    overrides: list[str],
    out: Path,
    guidance: float | None,
    fake_score_updates: int,
) -> None:
    """Distil the config's teacher into `out`."""
    config = load_config(config_file, overrides)
    scale = config.algorithm.generator.teacher_guidance if guidance is None else guidance
    out.mkdir(parents=True, exist_ok=True)
    (out / "distill.yaml").write_text(resolved_yaml(config))
    total = config.run.iterations
    with (out / "distill.jsonl").open("w", buffering=1) as file, progress_bar() as bar:
        task = bar.add_task("distilling", total=total, note="")

        def report(iteration: int, metrics: dict[str, float]) -> None:
            file.write(json.dumps({"step": iteration, **metrics}) + "\n")
            short = " ".join(f"{name} {metrics[name]:.4g}" for name in SHOWN if name in metrics)
            bar.update(task, advance=1, note=short)
            if not err.is_terminal and iteration % PLAIN_EVERY == 0:
                note(f"update {iteration} of {total}: {short}")

        line = run(
            config, out, guidance=scale, fake_score_updates=fake_score_updates, report=report
        )
    say(f"student after {total} updates: {out}")
    say(f"load it with: {line}")
