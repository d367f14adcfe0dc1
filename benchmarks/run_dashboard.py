"""What watching a run costs: reading by its size, events to many clients, first paint, telemetry.

python -m benchmarks.run_dashboard
"""

import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import numpy as np

from benchmarks.iteration import ON_POLICY
from services.config import TelemetryConfig, load_config
from services.recording.worker import Recorder
from services.rollout.worker import RolloutWorker
from services.run_store.images import ImageStore
from services.run_store.run_folder import RunFolder
from services.runs_api.app import create_app
from services.runs_api.settings import Settings
from services.telemetry import Telemetry
from services.train import train
from tests.labels.browser import FLAGS, find_chromium
from tests.runs_api.people import Keys, bearer
from tests.serving import served

GROUPS = (100, 1000, 10_000, 50_000)
LINES = (100, 1000, 10_000)
NUM_NAMES = 70
NUM_CLIENTS = 200
NUM_EVENTS = 30
API = "/api/v1/runs"


def main() -> None:
    """Everything, a table each."""
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        settings = Settings(runs=runs, cache=Path(folder) / "cache", max_streams=NUM_CLIENTS)
        for number in GROUPS:
            add_groups(make_run(runs, f"groups-{number}"), number)
        for number in LINES:
            add_lines(make_run(runs, f"lines-{number}"), number)
        live = make_run(runs, "live")
        add_lines(live, 100)
        with served(create_app(settings, Keys(("viewer",)))) as url:
            read(url)
            asyncio.run(listen(url, live))
        paint(runs, Path(folder) / "labels")
        tell(Path(folder) / "watched")


def make_run(runs: Path, name: str) -> RunFolder:
    """An empty run that says it is at work."""
    run = RunFolder(runs / name)
    run.images.mkdir(parents=True)
    (run.path / "run.json").write_text(json.dumps({"run_id": name, "created_at": time.time()}))
    run.write_status({"state": "running", "iteration": 0})
    return run


def add_groups(run: RunFolder, number: int) -> None:
    """Groups of four images, which are one file."""
    store = ImageStore(run.images)
    digest = store.add(np.zeros((64, 64, 3), dtype=np.uint8))
    said = {"state": "ready", "value": 1.0, "reason": "all clauses hold"}
    store.append(
        {
            "digest": digest,
            "step": group // 6,
            "group_id": group,
            "sample": sample,
            "policy_version": group // 6,
            "prompt_id": f"train.jsonl:{group % 500}",
            "prompt": f"a photo of {group} red circles",
            "rewards": {"geneval": said | {"value": (group * 7 + sample) % 11 / 10}},
        }
        for group in range(number)
        for sample in range(4)
    )


def add_lines(run: RunFolder, number: int, first: int = 1) -> None:
    """Iterations of as many numbers as the demo's have."""
    with run.metrics.open("a") as file:
        for step in range(first, first + number):
            file.write(json.dumps(line(step)) + "\n")


def line(step: int) -> dict[str, float]:
    """One iteration."""
    about = {"time": time.time(), "step": step, "policy_version": step, "surrogate_version": step}
    return about | {f"stage/number_{n}": step * n / 7 for n in range(NUM_NAMES)}


def read(url: str) -> None:
    """The first request reads the file; later ones what is new of it, which is nothing here."""
    print("| what is asked | first, ms | then (median of 20), ms |\n|---|---|---|")
    asked = [(f"groups-{n}", "/groups?limit=12&sort=best&reward=geneval") for n in GROUPS]
    asked += [(f"lines-{n}", "/metrics?names=stage/number_3&max_points=600") for n in LINES]
    with httpx.Client(headers=bearer("viewer"), timeout=120) as client:
        for run, path in asked:
            seconds = []
            for _ in range(21):
                start = time.perf_counter()
                client.get(f"{url}{API}/{run}{path}").raise_for_status()
                seconds.append(time.perf_counter() - start)
            later = statistics.median(seconds[1:])
            print(f"| `{run}{path}` | {seconds[0] * 1e3:.0f} | {later * 1e3:.1f} |")


async def listen(url: str, run: RunFolder) -> None:
    """Lines are written; how long until each client has heard of each."""
    delays: list[float] = []
    written: dict[int, float] = {}
    ready = asyncio.Semaphore(0)

    async def client(http: httpx.AsyncClient) -> None:
        address = f"{url}{API}/{run.id}/events?topics=metrics"
        async with http.stream("GET", address, headers=bearer("viewer")) as answer:
            async for text in answer.aiter_lines():
                if text.startswith(": from"):
                    ready.release()
                if text.startswith("data: "):
                    heard = time.perf_counter()
                    data = json.loads(text[6:])
                    steps = range(data["from_step"], data["to_step"] + 1)
                    delays.extend(heard - written[step] for step in steps)
                    if data["to_step"] == 100 + NUM_EVENTS:
                        return

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(timeout=120, limits=limits) as http:
        clients = [asyncio.create_task(client(http)) for _ in range(NUM_CLIENTS)]
        for _ in clients:
            await ready.acquire()
        for step in range(101, 101 + NUM_EVENTS):
            written[step] = time.perf_counter()
            await asyncio.to_thread(add_lines, run, 1, step)
            await asyncio.sleep(0.2)
        await asyncio.gather(*clients)
    print(f"\n{NUM_CLIENTS} clients, {NUM_EVENTS} events each: {len(delays)} deliveries")
    print(
        f"p50 {quantile(delays, 50):.2f} s, p99 {quantile(delays, 99):.2f} s (polled every 0.5 s)"
    )


def paint(runs: Path, data: Path) -> None:
    """Until the first row of the gallery is seen, in the system's Chromium."""
    path = find_chromium()
    if path is None:
        print("\nChromium is not installed; first paint is not measured")
        return
    seconds: list[tuple[int, float, float]] = []
    # Playwright's event loop and ours do not go together.
    thread = threading.Thread(target=_paint, args=(path, runs, data, seconds))
    thread.start()
    thread.join()
    print("\n| groups | first row seen, s | page's memory, MB |\n|---|---|---|")
    for number, taken, memory in seconds:
        print(f"| {number} | {taken:.2f} | {memory:.0f} |")


def _paint(path: str, runs: Path, data: Path, seconds: list[tuple[int, float, float]]) -> None:
    from playwright.sync_api import sync_playwright

    from tests.dashboard.serving import make_keys, serving

    make_keys(data)
    with sync_playwright() as playwright, serving(runs, data) as dashboard:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"{dashboard.url}/login#invite={dashboard.invite}")
        page.locator("h1").wait_for()
        for number in GROUPS:
            address = f"{dashboard.url}/runs/groups-{number}/gallery"
            page.goto(address)  # reads the index, and lets the browser keep the scripts
            page.locator("article.group").first.wait_for()
            start = time.perf_counter()
            page.goto(address)
            page.locator("article.group").first.wait_for()
            taken = time.perf_counter() - start
            memory = page.evaluate("performance.memory.usedJSHeapSize") / 1e6
            seconds.append((number, taken, memory))
        browser.close()


def tell(folder: Path) -> None:
    """What a run of the demo spends on being watched, were every iteration's groups stored."""
    spent: dict[str, float] = {}
    watching = [
        (Telemetry, "write"),
        (RolloutWorker, "_predictions"),
        (Recorder, "record"),
        (Recorder, "note"),
    ]
    with ExitStack() as timed:
        for owner, name in watching:
            timed.enter_context(mock.patch.object(owner, name, _timed(owner, name, spent)))
        wanted = [f"run.dir={folder}", "run.iterations=12", "evaluation.num_images=0"]
        on_policy = [*ON_POLICY, "cluster.runtime=local", "telemetry.images_every=1"]
        config = load_config("configs/demo.yaml", [*wanted, *on_policy])
        start = time.perf_counter()
        train(config)
        seconds = time.perf_counter() - start
    every = TelemetryConfig().images_every
    cost = sum(
        value / (every if name in {"_predictions", "record"} else 1)
        for name, value in spent.items()
    )
    print(f"\n12 iterations of the demo, {seconds:.1f} s; of these, ms an iteration:")
    print(", ".join(f"{name} {value / 12 * 1e3:.2f}" for name, value in spent.items()))
    print(f"images stored every {every} iterations: {cost / seconds:.2%} of the run")


def _timed(owner: type, name: str, spent: dict[str, float]) -> Callable[..., Any]:
    inner = getattr(owner, name)

    def outer(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return inner(*args, **kwargs)
        finally:
            spent[name] = spent.get(name, 0) + time.perf_counter() - start

    return outer


def quantile(values: Sequence[float], percent: int) -> float:
    """By nearest rank."""
    return sorted(values)[min(len(values) - 1, len(values) * percent // 100)]


if __name__ == "__main__":
    main()
