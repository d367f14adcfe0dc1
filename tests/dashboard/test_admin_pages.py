"""The Audit page in a real browser: admins alone, filters in the address, hostile texts."""

import csv
import re

import pytest
from playwright.sync_api import expect

from services.run_store import commands
from services.run_store.promoted import promote
from services.web.clock import utc_now
from tests.dashboard.serving import keys_of
from tests.dashboard.test_pages import PHONE, serious, shown
from tests.labels.people import make_key
from tests.labels.test_page import XSS

pytestmark = pytest.mark.integration


@pytest.fixture
def busy(another):
    """A run that people had do something, one of them with a hostile name."""
    folder = another("toy-busy")
    commands.request(folder.path, "set", {"algorithm.generator.lr": 1e-5}, by="=1+1")
    commands.request(folder.path, "stop", by=XSS[0], timeout_s=0.001)
    promote(folder, "6")
    return folder


def rows(page):
    return page.locator("section[aria-label='Who did what'] tbody tr")


@pytest.mark.parametrize("path", ["/audit", "/runs/toy-busy/audit"])
def test_who_is_no_admin_is_told_so_and_nothing_else(open_page, busy, path):
    page = shown(open_page(path, "viewer"), "Audit")
    expect(page.locator(".content")).to_contain_text("Only an admin's key sees who did what")
    assert page.locator("table, form").count() == 0
    html = page.content()
    assert "command.set" not in html
    assert "key.create" not in html


def test_everything_is_in_one_order_and_filters_are_in_the_address(open_page, stage, busy):
    with keys_of(stage.runs.parent / "labels") as database:
        make_key(database, "viewer", utc_now())
    page = shown(open_page("/audit", "admin"), "Audit")
    expect(rows(page).nth(0)).to_contain_text("key.create")
    expect(rows(page).nth(0)).to_contain_text("a viewer")
    expect(rows(page).nth(1)).to_contain_text("checkpoint.promote")
    expect(rows(page).nth(2)).to_contain_text("command.stop")
    expect(rows(page).nth(2)).to_contain_text("timed_out")
    expect(rows(page).nth(3)).to_contain_text("algorithm.generator.lr=1e-05")
    assert page.evaluate("window.pwned") is None
    assert page.locator(".content :is(iframe, script, svg[onload], img)").count() == 0
    assert serious(page) == []
    rows(page).nth(2).get_by_role("link", name=XSS[0]).click()
    expect(rows(page)).to_have_count(1)
    expect(page.get_by_label("Who", exact=True)).to_have_value(XSS[0])
    page.get_by_role("link", name="Newest").focus()
    page.get_by_label("Who", exact=True).fill("")
    page.get_by_label("Did what", exact=True).fill("command.set")
    page.keyboard.press("Enter")
    page.wait_for_url(re.compile("action=command.set"))
    expect(rows(page)).to_have_count(1)
    page.goto(f"{stage.dashboard.url}/audit?since=never")
    expect(page.get_by_role("alert").first).to_contain_text("since='never' is no time")


def test_a_runs_own_log_is_live_and_saved_without_formulas(open_page, busy, tmp_path):
    page = shown(open_page(f"/runs/{busy.id}/audit", "admin", color_scheme="dark"), "Audit")
    expect(rows(page)).to_have_count(3)
    assert serious(page) == []
    commands.request(busy.path, "checkpoint")
    expect(rows(page)).to_have_count(4)
    expect(rows(page).nth(0)).to_contain_text("cli")
    with page.expect_download() as got:
        page.get_by_role("button", name="These entries as a CSV file").click()
    assert got.value.suggested_filename == "toy-busy-who-did-what.csv"
    got.value.save_as(tmp_path / "saved.csv")
    head, *lines = csv.reader((tmp_path / "saved.csv").read_text().splitlines())
    assert head[:2] == ["at", "actor"]
    assert [line[1] for line in lines] == ["cli", "cli", XSS[0], "'=1+1"]


def test_a_page_follows_another_on_a_phone(open_page, another):
    folder = another("toy-commanded")
    for _ in range(101):
        commands.request(folder.path, "checkpoint")
    commands.request(folder.path, "stop")
    page = shown(open_page(f"/runs/{folder.id}/audit", "admin", **PHONE), "Audit")
    expect(rows(page)).to_have_count(100)
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    page.get_by_role("link", name="Older").click()
    expect(rows(page)).to_have_count(2)
    expect(page.get_by_role("link", name="Older")).to_have_count(0)
    commands.request(folder.path, "pause")  # moves no page
    page.get_by_label("Did what", exact=True).fill("command.stop")
    page.get_by_role("button", name="Show").click()
    expect(rows(page)).to_have_count(1)
    assert "before=" not in page.url
