"""Writes a trained generator in the form that diffusers itself loads.

Under `roles=lora` that is a LoRA for `pipe.load_lora_weights(folder)`; full copies become a whole
pipeline folder. `tdm_r1.json` beside it says where the weights come from and how they sample.
"""

import json
from pathlib import Path
from typing import Any

from services.manifest import CARD
from services.run_store.files import write_whole
from services.saved_generator import SavedGenerator, card, open_generator
from tdm_core.config import SamplerConfig
from tdm_core.noise_schedule import boundaries, unshift_sigma


def export(source: Path, out: Path, averaged: bool = True) -> dict[str, Any]:
    """Export the generator of a run or checkpoint into `out`, an empty or new folder.

    Returns what `tdm_r1.json` holds; its `use` are the lines of Python that load and sample.
    """
    saved = open_generator(source, averaged)
    if saved.tensors is None:
        raise ValueError(f"{source} is an export already; give the run or one of its checkpoints")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty; export into a new folder")
    out.mkdir(parents=True, exist_ok=True)
    load_line = saved.load().save_generator(str(out), saved.tensors)
    content = card(saved) | {"use": _use(saved, load_line)}
    write_whole(out / CARD, json.dumps(content, indent=1, sort_keys=True).encode() + b"\n")
    return content


def _use(saved: SavedGenerator, load_line: str) -> list[str]:
    if saved.model.family != "sd3":
        return [load_line]
    return [load_line, pipeline_call(saved.sampler, saved.model.max_sequence_length)]


def pipeline_call(sampler: SamplerConfig, max_sequence_length: int) -> str:
    """The call of diffusers' pipeline that takes Euler steps on the same boundaries.

    Its scheduler shifts the sigmas it is given, so they are given before the shift. A generator of
    another solver is told so in a comment: its own steps are those of `tdm-r1 sample`.
    """
    told = "" if sampler.solver == "euler" else f"  # Euler, not the {sampler.solver} of training"
    sigmas = [round(unshift_sigma(s, sampler.shift), 6) for s in boundaries(sampler)[:-1]]
    return (
        f"pipe(prompt, num_inference_steps={sampler.num_steps}, sigmas={sigmas}, "
        f"guidance_scale=1.0, max_sequence_length={max_sequence_length}).images[0]{told}"
    )
