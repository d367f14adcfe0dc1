"""People's likes train the bundled model, all on this machine: service, people and run together.

    python examples/human_likes.py [run.seed=1 ...]

What is started are the commands that a team would start on its machines: `tdm-r1 serve`,
`tdm-r1 labels simulate` (40 people who take 30 s for a group, judge half of its images and skip the
others; a quarter of them toss a coin), and `tdm-r1 train configs/human_likes.yaml`. Everybody
answers a few boards first of which the answer is known, and who misses too many has no vote. About
ten minutes on 2 cores. In the end it says the true like rate on held-out prompts, before and after.
"""

import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from services.demo.stickers import SHAPES, Sticker, render
from services.demo.taste import COOL
from services.label_client.client import LabelClient

ROOT = Path(__file__).parents[1]
TDM_R1 = [sys.executable, "-m", "services.cli"]
QUESTION = {"question_id": "like", "text": "Do you like it?"}
CROWD = ["--people=40", "--judged=0.5", "--seconds=3.75", "--spammers=0.25", "--idle=3600"]
SERVICE = {"gold_first": 10, "gold_rate": 0.05, "overlap_rate": 0.0}
"""Settings: a newcomer answers ten known boards before any other, as many as the gate needs."""
NUM_GOLD = 4
"""Groups of boards that have one right answer: all in cool colours, or none."""
GOLD_SIZE = 12
PATIENCE_S = 60


def main(overrides: list[str]) -> None:
    """Start the service, hire the people, train, and say what came of it."""
    with ExitStack() as stack:
        data = stack.enter_context(tempfile.TemporaryDirectory(prefix="likes-"))
        keys = {role: make_key(role, data) for role in ("admin", "service")}
        url = start_service(data, stack)
        with LabelClient(url, keys["admin"]) as admin:
            admin.request("POST", "/questions", json=QUESTION)
            put_gold(admin)
            start(["labels", "simulate", "--url", url, *CROWD], stack, keys["admin"])
            config = [str(ROOT / "configs" / "human_likes.yaml"), f"rewards.0.options.url={url}"]
            run = start(["train", "--json", *config, *overrides], stack, keys["service"], None)
            answer, _ = run.communicate()
            if run.returncode:
                raise SystemExit(run.returncode)
            query = {"count": "true", "limit": 1}
            labels = admin.request("GET", "/labels", params=query).json()["total"]
    tell(json.loads(answer), labels)


def tell(summary: dict, labels: int) -> None:
    """Before and after."""
    before, after = (summary["evaluations"][label] for label in ("before", "after"))
    lines = [f"{labels} verdicts, {summary['surrogate_version']} updates of the surrogate"]
    for name, what in (("taste", "true like rate"), ("geneval", "strict GenEval")):
        lines.append(f"{what}: {before[name]:.3f} before, {after[name]:.3f} after")
    sys.stdout.write("\n".join(lines) + "\n")


def put_gold(admin: LabelClient) -> None:
    """Boards that everybody who has the taste likes, or that nobody does, in turn."""
    rng = np.random.default_rng(0)
    for number in range(NUM_GOLD):
        answers = [("like", COOL), ("dislike", ("red", "yellow"))] * (GOLD_SIZE // 2)
        images = [
            {"index": n, "sha256": admin.put_image(board(c, rng))}
            for n, (_, c) in enumerate(answers)
        ]
        group = {
            "run_id": "boards",
            "prompt": {"id": "board", "text": "three stickers"},
            "policy_version": 0,
            "question_id": QUESTION["question_id"],
            "images": images,
        }
        admin.put_group(f"boards-{number}", group)
        right = [{"index": n, "answer": answer} for n, (answer, _) in enumerate(answers)]
        admin.request("PUT", f"/gold/boards-{number}", json={"answers": right})


def board(colors: Sequence[str], rng: np.random.Generator) -> bytes:
    """Three stickers of these colours somewhere, as a PNG file."""
    places = rng.choice(16, 3, replace=False).tolist()
    stickers = tuple(
        Sticker(str(rng.choice(SHAPES)), str(rng.choice(colors)), *divmod(place, 4))
        for place in places
    )
    file = io.BytesIO()
    Image.fromarray(render(stickers, rng)).save(file, "PNG")
    return file.getvalue()


def make_key(role: str, data: str) -> str:
    """A fresh key of the service that keeps its data there."""
    create = ["keys", "create", "--name", "demo", "--role", role, "--data", data, "--json"]
    return json.loads(subprocess.check_output([*TDM_R1, *create], env=environment()))["key"]


def start_service(data: str, stack: ExitStack) -> str:
    """`tdm-r1 serve` on a free port; its address."""
    settings = Path(data) / "settings.json"  # JSON is YAML
    settings.write_text(json.dumps(SERVICE))
    serve = ["serve", "--port", "0", "--data", data, "--settings", str(settings)]
    serving = start(serve, stack)
    assert serving.stdout is not None
    line = serving.stdout.readline()
    address = line.partition("labels at ")[2].strip().removesuffix("/label")
    if not address:
        raise RuntimeError(f"the label service did not start: {line!r}")
    return address


def start(
    command: list[str], stack: ExitStack, key: str = "", errors: int | None = subprocess.DEVNULL
) -> subprocess.Popen[str]:
    """A command of ours that is told to end when the stack does."""
    process = subprocess.Popen(
        [*TDM_R1, *command],
        env=environment(TDMR1_LABELS_KEY=key),
        stdout=subprocess.PIPE,
        stderr=errors,
        text=True,
    )

    def end() -> None:
        process.terminate()
        process.communicate(timeout=PATIENCE_S)

    stack.callback(end)
    return process


def environment(**variables: str) -> dict[str, str]:
    """Ours, with this repository to import from."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


if __name__ == "__main__":
    # Whoever ends this ends what it started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main(sys.argv[1:])
