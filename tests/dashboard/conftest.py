"""What the dashboard's tests share: a real `tdm-r1 dashboard`, keys of each role, a browser."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page

from services.dashboard.sessions import COOKIE
from services.run_store.run_folder import RunFolder
from tests.dashboard.serving import Dashboard, make_keys, serving
from tests.labels.browser import chromium, visits
from tests.train_cases import HELD_OUT, Running, tagged_prompts, toy_run

VIEWPORT = {"width": 1280, "height": 800}


@dataclass(frozen=True)
class Stage:
    """A running dashboard and who may use it."""

    dashboard: Dashboard
    runs: Path
    finished: RunFolder
    keys: dict[str, str]
    cookies: dict[str, str]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """Over one finished toy run; each role has signed in once."""
    folder = tmp_path_factory.mktemp("dashboard")
    changes = HELD_OUT | {"prompts": tagged_prompts(folder)}
    # In a thread: Playwright occupies this one's event loop.
    made = Running(
        toy_run(folder / "runs", telemetry={"images_every": 2}, **changes), "toy-finished"
    )
    made.join()
    finished = made.folder
    keys = make_keys(folder / "labels")
    with serving(folder / "runs", folder / "labels") as dashboard:
        cookies = {role: sign_in(dashboard, keys[role]) for role in ("viewer", "admin")}
        yield Stage(dashboard, folder / "runs", finished, keys, cookies)


def sign_in(dashboard: Dashboard, secret: str) -> str:
    """The cookie that a key or link is worth."""
    address = f"{dashboard.url}/api/v1/session"
    answer = httpx.post(address, json={"secret": secret}, timeout=60)
    assert answer.status_code == 204, answer.text
    return answer.cookies[COOKIE]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as launched:
        yield launched


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, stage: Stage) -> Iterator[Open]:
    """Opens a page as somebody, and knows of every error and dialog that it comes to."""
    url = stage.dashboard.url
    with visits(browser) as visit:

        def open_(path: str, who: str | None = "viewer", **options: Any) -> Page:
            cookie = who and {"name": COOKIE, "value": stage.cookies[who], "url": url}
            return visit(url + path, cookie, **({"viewport": VIEWPORT} | options))

        yield open_


@pytest.fixture
def another(stage: Stage) -> Iterator[Callable[[str], RunFolder]]:
    """Copies of the finished run, to be changed; they go with the test."""
    made: list[RunFolder] = []

    def copy(name: str) -> RunFolder:
        folder = RunFolder(stage.runs / name)
        shutil.copytree(stage.finished.path, folder.path)
        made.append(folder)
        return folder

    yield copy
    for folder in made:
        shutil.rmtree(folder.path)
