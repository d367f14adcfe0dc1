"""The system's Chromium, as the tests start it, and pages in it that know of every error."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE_MS = 30_000
"""For a busy machine; nothing here is a measurement."""


def find_chromium() -> str | None:
    """Its path, or None where it is not installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


@contextmanager
def chromium() -> Iterator[Browser]:
    """One for a module's tests; it ends with them, since Playwright occupies the event loop."""
    path = find_chromium()
    if path is None:
        pytest.skip("Chromium is not installed")
    with sync_playwright() as playwright:
        expect.set_options(timeout=PATIENCE_MS)
        launched = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield launched
        launched.close()


@contextmanager
def visits(browser: Browser) -> Iterator[Callable[..., Page]]:
    """Opens addresses, each in a context of its own, and fails on every error that a page logs."""
    contexts: list[BrowserContext] = []
    errors: list[str] = []

    def visit(url: str, cookie: dict[str, str] | None, script: str = "", **options: Any) -> Page:
        context = browser.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        if cookie is not None:
            context.add_cookies([cookie])
        if script:
            context.add_init_script(script)
        page = context.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("dialog", lambda dialog: errors.append(f"dialog {dialog.message}"))
        page.goto(url)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert errors == []
