"""What the dashboard's tests share: a real `tdm-r1 dashboard`, keys of each role, a browser."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from services.dashboard.sessions import COOKIE
from services.run_store.run_folder import RunFolder
from tests.dashboard.serving import Dashboard, make_keys, serving
from tests.labels.browser import FLAGS, find_chromium
from tests.train_cases import HELD_OUT, Running, toy_run

PATIENCE_MS = 30_000
"""For a busy machine; nothing here is a measurement."""


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
    # In a thread: Playwright occupies this one's event loop.
    made = Running(
        toy_run(folder / "runs", telemetry={"images_every": 2}, **HELD_OUT), "toy-finished"
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
    """One Chromium for all; it ends with the module, since Playwright occupies the event loop."""
    path = find_chromium()
    if path is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


Open = Callable[..., Page]


@pytest.fixture
def open_page(browser: Browser, stage: Stage) -> Iterator[Open]:
    """Opens a page as somebody, and knows of every error and dialog that it comes to."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def open_(path: str, who: str | None = "viewer", script: str = "", **options: Any) -> Page:
        context = browser.new_context(**({"viewport": {"width": 1280, "height": 800}} | options))
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        url = stage.dashboard.url
        if who is not None:
            context.add_cookies([{"name": COOKIE, "value": stage.cookies[who], "url": url}])
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(f"dialog {dialog.message}"))
        page.goto(url + path)
        return page

    yield open_
    for context in contexts:
        context.close()
    assert errors == []


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
