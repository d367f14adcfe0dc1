"""Draws docs/pictures/dashboard_*.png: every page of the dashboard over a run of `tdm-r1 train`, or
those that are named, over a run that people labelled with their label service's folder.

python -m tests.dashboard.draw_pages RUNS RUN docs/pictures
python -m tests.dashboard.draw_pages RUNS RUN docs/pictures LABELS labels
"""

import re
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import BrowserContext, sync_playwright

from tests.dashboard.serving import make_keys, serving
from tests.labels.browser import FLAGS, find_chromium

DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PAGES = (
    "rewards",
    "gallery",
    "gallery?view=prompts&sort=gained",
    "gallery?view=pair&sort=gained",
    "groups/{group}",
    "training",
    "throughput",
    "workers",
    "checkpoints",
    "control",
    "alerts",
    "audit",
    "settings",
    "/keys",
)
NAMES = {PAGES[2]: "heldout", PAGES[3]: "pair"}
"""Of those pages whose address does not say it. A page that begins with / is of no run."""
MAX_HEIGHT = 1500


def main(runs: Path, run: str, out: Path, labels: Path | None = None, *pages: str) -> None:
    """Every picture into `out`, or those of `pages`."""
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        data = labels or Path(folder)
        if labels is None:
            make_keys(data)
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        with serving(runs, data) as dashboard:
            context = browser.new_context(**DESK)
            page = context.new_page()
            page.goto(f"{dashboard.url}/login#invite={dashboard.invite}")
            page.wait_for_url(re.compile(r"/$"))
            state = context.storage_state()
            dark = browser.new_context(**DESK, color_scheme="dark", storage_state=state)
            phone = browser.new_context(**PHONE, storage_state=state)
            address = f"{dashboard.url}/runs/{run}"
            if not pages:
                draw(context, dashboard.url, out / "dashboard_runs.png")
                draw(context, address, out / "dashboard_overview.png")
                draw(dark, address, out / "dashboard_dark.png")
                draw(phone, f"{address}/gallery", out / "dashboard_phone.png")
            for path in pages or PAGES:
                name = NAMES.get(path, path.removeprefix("/").partition("/")[0])
                start = dashboard.url if path.startswith("/") else f"{address}/"
                draw(context, start + path.format(group=3), out / f"dashboard_{name}.png")
        browser.close()


def draw(context: BrowserContext, address: str, path: Path) -> None:
    """One page from its top, as far down as a picture should go."""
    page = context.new_page()
    page.goto(address)
    page.locator(".panel .body > *").first.wait_for()
    height = page.evaluate("document.scrollingElement.scrollHeight")
    width = page.viewport_size["width"] if page.viewport_size else 1280
    page.set_viewport_size({"width": width, "height": min(height, MAX_HEIGHT)})
    page.wait_for_load_state("networkidle")  # lazy images further down are not asked for
    page.wait_for_timeout(1000)
    page.screenshot(path=path)
    page.close()
    with Image.open(path) as drawn:
        drawn.convert("RGB").save(path, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *map(Path, sys.argv[3:5]), *sys.argv[5:])
