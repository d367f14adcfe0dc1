"""The Labels page in a real browser: what viewers see, what only admins do, what is not there."""

import json
import re

import pytest
from playwright.sync_api import expect

from tests.dashboard import labelled
from tests.dashboard.test_pages import PHONE, serious, shown
from tests.labels.test_page import XSS

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def labels(stage):
    """The label service's folder, in which people have labelled groups of the finished run."""
    data = stage.runs.parent / "labels"
    labelled.label(data, stage.finished.id, XSS)
    yield data
    labelled.forget(data)


def panel(page, title):
    return page.locator(f"section[aria-label='{title}']")


def test_without_a_label_service_the_page_says_what_helps(open_page, stage):
    page = shown(open_page(f"/runs/{stage.finished.id}/labels"), "Labels")
    expect(panel(page, "State")).to_contain_text("No label service is connected")
    expect(panel(page, "State")).to_contain_text("tdm-r1 serve --runs")
    expect(panel(page, "Labels a minute")).to_contain_text("Nothing told yet")


def test_an_admin_sees_who_labels_and_hostile_names_are_text(open_page, stage, labels):
    page = shown(open_page(f"/runs/{stage.finished.id}/labels", "admin"), "Labels")
    people = panel(page, "Who labels")
    expect(people.locator("tr", has_text="Eve")).to_contain_text("suspended")
    expect(people.locator("tr", has_text="Eve")).to_contain_text("2 of 12")
    expect(people).to_contain_text(XSS[0])
    expect(panel(page, "Held now").locator("tbody tr")).to_have_count(2)
    expect(panel(page, "Rewards on their way")).to_contain_text(XSS[1])
    assert page.evaluate("window.pwned") is None
    assert page.locator(".content :is(iframe, script, svg[onload])").count() == 0
    assert serious(page) == []


def test_a_viewer_sees_how_it_goes_and_nobodys_name(open_page, stage, labels):
    page = shown(open_page(f"/runs/{stage.finished.id}/labels", **PHONE), "Labels")
    state = panel(page, "State")
    expect(state).to_contain_text(re.compile(r"open groups\s*4"))
    expect(state).to_contain_text(re.compile(r"dead letters\s*1"))
    expect(panel(page, "Groups by state")).to_contain_text("20 (83%)")
    expect(panel(page, "What people like")).to_contain_text(re.compile(r"\d+% to \d+%"))
    times = panel(page, "Time per group")
    expect(times).to_contain_text(re.compile(r"on a group, median\s*\d\d\.\d s\s*90% within"))
    expect(times).to_contain_text(re.compile(r"groups ready an hour\s*20"))
    times.get_by_role("button", name="Time per group as a table").click()
    expect(times.locator("tbody tr")).to_have_text(
        [re.compile(r"a person on a group\s*\d.*30"), re.compile(r"from put to ready\s*\d.*20")]
    )
    agreement = panel(page, "Agreement and gold")
    expect(agreement).to_contain_text(re.compile(r"95% -?\d\.\d\d to \d\.\d\d, over 40 images"))
    expect(agreement).to_contain_text(re.compile(r"suspended\s*1"))
    chart = panel(page, "Labels a minute").get_by_role("img").first
    expect(chart).to_have_attribute("aria-label", re.compile(r"Newest: labels \d"))
    expect(panel(page, "Who labels")).to_contain_text("Only an admin's key")
    html = page.content()
    assert [name for name in (*labelled.PEOPLE, XSS[1]) if name in html] == []
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    page.get_by_role("link", name="All runs together").click()
    shown(page, "Labels of all runs")
    expect(panel(page, "State")).to_contain_text(re.compile(r"open groups\s*4"))


def test_an_admin_takes_a_group_back_by_keyboard_and_a_viewer_cannot(
    open_page, stage, labels
) -> None:
    path = f"/runs/{stage.finished.id}/labels"
    viewer = shown(open_page(path), "Labels")
    expect(panel(viewer, "Held now")).to_contain_text("Only an admin's key")
    assert viewer.get_by_role("button", name="Take").count() == 0
    page = shown(open_page(path, "admin"), "Labels")
    held = panel(page, "Held now")
    rows = held.locator("tbody tr")
    first = held.get_by_role("button", name=re.compile("Take .* back from Ann"))
    first.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name=re.compile("^Take .* back"))
    expect(dialog).to_contain_text("never again to Ann")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    expect(page.locator("[class*='-enter-active']")).to_have_count(
        0
    )  # half seen, it has no contrast
    assert serious(page) == []
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    expect(rows).to_have_count(2)
    first.focus()
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("button", name="Cancel")).to_be_focused()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_text("is taken back from Ann")).to_be_visible()
    expect(rows).to_have_count(1)
    expect(rows).to_contain_text("Cem")


def test_another_run_has_asked_nobody_and_new_labels_appear(open_page, stage, another, labels):
    folder = another("toy-asks-nobody")
    page = shown(open_page(f"/runs/{folder.id}/labels", color_scheme="dark"), "Labels")
    expect(panel(page, "State")).to_contain_text("it has asked nobody")
    assert serious(page) == []
    labelled.label_one(labels, folder.id)
    expect(panel(page, "Groups by state")).to_contain_text("1 (100%)")


def test_the_rewards_page_compares_people_with_other_judges(open_page, another):
    folder = another("toy-judged")
    with folder.groups.open("a") as file:
        for n in range(16):
            liked = n % 4 != 0  # the surrogate is right in three groups of four
            parts = [{"n": 1.0, "likes": float(each), "rho": 0.3} for each in (liked, not liked)]
            about = {"time": 9.0 + n, "group_id": 900 + n, "policy_version": n}
            values = [[0.5], [0.25]]
            for more in (
                {"event": "labelled", "reward": "human", "by": n // 8, "parts": parts},
                {"event": "compared", "finals": {"upper_half": [0.0, 0.0]}},
            ):
                file.write(json.dumps(about | more | {"values": values}) + "\n")
    page = shown(open_page(f"/runs/{folder.id}/rewards"), "Rewards")
    judges = panel(page, "People and other judges")
    expect(judges.locator("tr", has_text="the surrogate")).to_contain_text("75%")
    expect(judges.locator("tr", has_text="upper_half")).to_contain_text("50%")
    chart = panel(page, "Like rate by policy version").get_by_role("img").first
    expect(chart).to_have_attribute("aria-label", re.compile("like rate 0.5"))
    assert serious(page) == []


def test_a_run_without_people_says_so_and_shows_no_number(open_page, stage):
    page = shown(open_page(f"/runs/{stage.finished.id}/rewards"), "Rewards")
    expect(panel(page, "People and other judges")).to_contain_text("Nobody has labelled")
    expect(panel(page, "Like rate by policy version")).to_contain_text("Nothing told yet")
