"""What it costs a run to store a group: files, bytes, the recorder's time, rollout's decodings.

python -m benchmarks.stored_groups
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from services.config import RunConfig, load_config
from services.recording.worker import Recorder
from services.rollout.worker import RolloutWorker
from tdm_core.types import ImageGroup, PredictionImages, Prompt, RewardRecord

SIDES = (32, 512, 1024)
REPEATS = 5
PROMPT = Prompt("p:0", "a photograph of nothing")


def main() -> None:
    """Both tables; processor time, since other work shares the machine."""
    print("| images | predictions | files a group | bytes a group | recorder, ms |")
    print("|---|---|---|---|---|")
    for side in SIDES:
        for count in (0, 4):
            record(side, count)
    print("\n| rollout of the demo, 2 groups of 16 | processor s a call |\n|---|---|")
    for count in (0, 4):
        roll_out(count)


def config_of(**telemetry: int) -> RunConfig:
    """The demo's, with every group stored."""
    overrides = [f"telemetry.{name}={value}" for name, value in telemetry.items()]
    return load_config("configs/demo.yaml", ["telemetry.images_every=1", *overrides])


def record(side: int, count: int) -> None:
    """Groups of four images that look like photographs to a PNG."""
    config = config_of()
    seconds: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(config, folder)
        for number in range(REPEATS):
            images = photographs(16 * number, 4, side)[:, None]
            ways = photographs(16 * number + 4, 3 * count, side).unflatten(0, (count, 3))
            group = ImageGroup(number, PROMPT, 0, images)
            said = [
                RewardRecord(number, i, 0, "geneval", "ready", 1.0, parts={"strict": 1.0})
                for i in range(4)
            ]
            predictions = PredictionImages(ways, (1.0, 0.9, 0.75, 0.5, 0.0))
            seconds.append(
                processor_s(lambda g=group, p=predictions, s=said: recorder.record(0, [g], p, s))
            )
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        num_bytes = sum(path.stat().st_size for path in files)
    row = f"| {side} x {side} | {count} of 4 | {(len(files) - 1) // REPEATS} "
    print(f"{row}| {num_bytes / REPEATS:,.0f} | {statistics.median(seconds) * 1e3:.1f} |")


def roll_out(count: int) -> None:
    """A call whose groups are stored."""
    config = config_of(predictions_per_group=count)
    torch.set_num_threads(1)
    worker = RolloutWorker(config)
    requests = [(number, Prompt(f"p:{number}", "a red circle")) for number in range(2)]
    worker.generate_apart(requests)
    seconds = [processor_s(lambda: worker.generate_apart(requests)) for _ in range(REPEATS)]
    print(f"| predictions of {count} images a group | {statistics.median(seconds):.3f} |")


def photographs(seed: int, count: int, side: int) -> Tensor:
    """(count, 3, side, side) uint8: noise with a photograph's spectrum, and a little grain."""
    rng = np.random.default_rng(seed)
    frequencies = np.hypot(np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None])
    frequencies[0, 0] = 1
    shape = (count, 3, side, side)
    smooth = np.fft.ifft2(np.fft.fft2(rng.normal(size=shape)) / frequencies**1.2).real
    mixed = 0.8 * smooth[:, :1] + 0.2 * smooth  # colours of a photograph go together
    scaled = 128 + 50 * mixed / max(mixed.std(), 1e-9) if count else mixed
    grainy = scaled + rng.normal(size=shape)
    return torch.from_numpy(grainy.clip(0, 255).astype(np.uint8))


def processor_s(work: Callable[[], object]) -> float:
    """Seconds of this process's own processor time."""
    start = time.process_time()
    work()
    return time.process_time() - start


if __name__ == "__main__":
    main()
