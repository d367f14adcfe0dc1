"""Exports and samples in a real browser, by real processes, on a run that trains meanwhile."""

import re

import pytest
from playwright.sync_api import expect

from services.run_store import commands
from services.runs_api.jobs import history
from tests.dashboard.test_pages import serious, shown
from tests.labels.live import eventually
from tests.labels.test_page import XSS
from tests.train_cases import Running, reward, toy_run

pytestmark = pytest.mark.integration
CLIPBOARD = ["clipboard-read", "clipboard-write"]


@pytest.fixture
def training(stage):
    """The folder of a run that trains on, with a checkpoint."""
    slow = reward("python:tests.train_cases:SlowReward", options={"seconds": 0.1})
    running = Running(toy_run(stage.runs, run={"iterations": 10**6}, rewards=[slow]), "toy-jobs")
    running.until(lambda status: status.get("iteration", 0) >= 1)
    commands.request(running.folder.path, "checkpoint")
    eventually(lambda: list(running.folder.checkpoints.glob("step_*")), 30)
    yield running.folder
    commands.request(running.folder.path, "stop")
    running.join()


def test_a_checkpoint_of_a_live_run_is_exported_and_sampled_with_a_click(open_page, training):
    folder = training
    path = f"/runs/{folder.id}/checkpoints"
    viewer = shown(open_page(path, "viewer"), "Checkpoints")
    viewer.evaluate("document.querySelectorAll('button').forEach(b => b.disabled = false)")
    viewer.get_by_role("button", name="Export").click()
    expect(viewer.locator("body")).to_contain_text("may not export")
    page = shown(open_page(path, "admin", permissions=CLIPBOARD), "Checkpoints")
    started_at = folder.status()["iteration"]
    jobs = page.locator("section[aria-label='Exports and samples']")
    (name,) = (each.name for each in folder.checkpoints.iterdir())
    page.get_by_role("button", name=f"Export {name}").dblclick()
    expect(page.locator("body")).to_contain_text("is running; wait for it")
    out = folder.path / "exports" / name
    expect(jobs.locator("tr", has_text="export")).to_contain_text(str(out), timeout=60_000)
    assert (out / "tdm_r1.json").is_file()
    for text, copy in (
        (out, f"Copy the path of the export of {name}"),
        (folder.checkpoints / name, f"Copy the path of {name}"),
    ):
        page.locator("summary", has_text=f"of {name}").evaluate(
            "each => each.parentElement.open = true"
        )
        button = page.get_by_role("button", name=copy, exact=True)
        button.click()
        expect(button).to_have_text("Copied")
        assert page.evaluate("navigator.clipboard.readText()") == str(text)
    page.get_by_role("button", name=f"Export {name}").click()
    expect(page.locator("body")).to_contain_text("is there already and is not overwritten")

    def draw(prompt):
        page.get_by_role("button", name=f"Sample {name}").click()
        page.get_by_label("prompt", exact=True).fill(prompt)
        page.get_by_label("images, 1 to").fill("2")
        page.get_by_role("button", name="Draw").click()
        row = jobs.locator("tr", has_text=prompt)
        expect(row).to_contain_text(re.compile("done|failed"), timeout=60_000)
        return row

    prompt = f"--out=/tmp/elsewhere -n 99; $(touch x) {XSS[1]}"
    expect(draw(prompt)).to_contain_text(f'"{prompt}": the toy world knows')
    pictures = draw("label 0").locator("img")
    expect(pictures).to_have_count(2)
    for picture in pictures.all():
        assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    assert [job.state for job in history(folder)] == ["done", "failed", "done"]
    assert (folder.status()["state"], folder.status()["iteration"] > started_at) == (
        "running",
        True,
    )
    assert [each.name for each in (folder.path / "samples").iterdir()] == ["sha256"]
    expect(page.locator(".q-notification")).to_have_count(0, timeout=20_000)  # pale as they fade
    assert serious(page) == []
