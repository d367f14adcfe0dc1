"""Draws docs/pictures/label_*.png: the label page over images of `tdm-r1 sample`.

tdm-r1 sample RUN --prompt "..." --num-images 8 --out SAMPLES
python -m tests.labels.draw_page SAMPLES docs/pictures
"""

import hashlib
import sys
import tempfile
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, Page, sync_playwright

from services.labels.app import create_app
from services.labels.images import ImageFolder, Picture, read_picture
from services.labels.settings import NO_RATES, Settings
from services.labels.store.database import Database
from tests.labels.browser import FLAGS, find_chromium
from tests.labels.page_stage import Stage
from tests.serving import served

DESK = {"viewport": {"width": 1280, "height": 800}}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PICTURES: dict[str, dict[str, Any]] = {
    "label_light": DESK,
    "label_dark": DESK | {"color_scheme": "dark"},
    "label_phone": PHONE | {"device_scale_factor": 2},
}


def main(samples: Path, out: Path) -> None:
    """Every picture into `out`."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(data_dir=Path(folder), gold_rate=0, overlap_rate=0, rates=NO_RATES)
        database = Database.open(settings.url)
        stage = Stage(database, settings)
        keeper = ImageFolder(settings.data_dir / "images")
        for prompt, pictures in groups_in(samples):
            for picture in pictures:
                keeper.add(picture)
            stage.add_groups(1, prompt=prompt, pictures=pictures)
        keeper.close()
        with (
            served(create_app(settings, database=database)) as url,
            sync_playwright() as playwright,
        ):
            browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
            for name, options in PICTURES.items():
                draw(browser, url, stage, options, out / f"{name}.png")
            browser.close()
        database.close()


def groups_in(samples: Path) -> Iterator[tuple[str, list[Picture]]]:
    """(prompt, pictures) by the first number in the names that `tdm-r1 sample` gives."""
    for _, paths in groupby(sorted(samples.glob("*.png")), lambda path: path.name.split("_")[0]):
        contents = [(path, path.read_bytes()) for path in paths]
        prompt = contents[0][0].stem.split("_")[2].replace("-", " ")
        digests = [hashlib.sha256(content).hexdigest() for _, content in contents]
        pictures = zip(contents, digests, strict=True)
        yield prompt, [read_picture(content, digest, 10**8) for (_, content), digest in pictures]


def draw(browser: Browser, url: str, stage: Stage, options: dict[str, Any], path: Path) -> None:
    """One picture of a group that is half labelled."""
    context = browser.new_context(**options)
    context.add_cookies([{"name": "tdmr1_session", "value": stage.sign_in(), "url": url}])
    page = context.new_page()
    page.goto(f"{url}/label")
    page.locator("body[data-state=label]").wait_for()
    settle(page)
    for key in "fdfu":
        page.keyboard.press(key)
    settle(page)
    page.screenshot(path=path)
    context.close()


def settle(page: Page) -> None:
    """Until every image is decoded and nothing moves."""
    page.evaluate("Promise.allSettled([...document.images].map((image) => image.decode()))")
    page.wait_for_timeout(300)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
