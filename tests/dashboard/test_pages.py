"""Every page in a real browser: on finished and live runs, by role, by finger, under attack."""

import csv
import json
import os
import re
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from services.config import RetentionConfig
from services.run_store import commands
from services.run_store.images import ImageStore
from services.run_store.promoted import promoted
from services.run_store.retention import Retention
from tests.labels.test_page import XSS
from tests.train_cases import Running, metrics, tagged_prompts, toy_run

pytestmark = pytest.mark.integration

PAGES = {
    "": "Overview",
    "rewards": "Rewards",
    "gallery": "Gallery",
    "gallery?view=prompts": "Gallery",
    "gallery?view=pair": "Gallery",
    "labels": "Labels",
    "groups/0": "Group 0",
    "training": "Training",
    "throughput": "Throughput",
    "workers": "Workers",
    "checkpoints": "Checkpoints",
    "control": "Run control",
    "alerts": "Alerts",
    "audit": "Audit",
    "settings": "Settings",
}
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}


BACKWARDS = "\u202e"
"""What is behind it reads from the right."""
STILL = """() => document.getAnimations().every(
    each => each.playState !== "running" || each.effect.getComputedTiming().endTime === Infinity)"""


def serious(page):
    """What the accessibility checker minds most, once nothing fades in or out any more."""
    page.wait_for_function(STILL)
    found = Axe().run(page).response["violations"]
    return [
        (each["id"], node["html"][:200])
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def shown(page, title):
    """The page once its panels are filled."""
    expect(page.locator("h1")).to_have_text(title)
    expect(page.locator(".panel .body > *").first).to_be_visible()
    return page


@pytest.mark.parametrize(("path", "title"), PAGES.items())
def test_every_page_shows_a_finished_run_with_the_time_of_its_data(open_page, stage, path, title):
    page = shown(open_page(f"/runs/{stage.finished.id}/{path}".rstrip("/")), title)
    stamps = page.locator(".stamp").all_inner_texts()
    assert stamps
    assert all(stamp.startswith("as of") for stamp in stamps)
    # Labels and deeds are of no iteration; an evaluation is of a policy version.
    if path not in ("settings", "labels", "audit") and "view=" not in path:
        assert all("iteration" in stamp for stamp in stamps)
    assert serious(page) == []


@pytest.mark.parametrize(
    "path",
    ["", "rewards", "gallery", "gallery?view=prompts", "gallery?view=pair", "control", "alerts"],
)
def test_dark_pages_have_contrast_too(open_page, stage, path):
    address = f"/runs/{stage.finished.id}/{path}".rstrip("/")
    page = shown(open_page(address, color_scheme="dark"), PAGES[path])
    expect(page.locator("body.body--dark")).to_have_count(1)
    assert serious(page) == []


BROKEN_WORDS = """() => [...document.querySelectorAll("td")].filter((cell) => {
  const range = document.createRange();
  range.selectNodeContents(cell);
  const isWord = !cell.childElementCount && /^\\S{1,24}$/.test(cell.innerText);
  return isWord && range.getClientRects().length > 1;
}).map((cell) => cell.innerText)"""
"""Cells of one word that is on several lines."""


def test_no_page_is_wider_than_a_phone_and_no_cell_so_narrow_that_a_word_breaks(open_page, stage):
    page = open_page("/", **PHONE)
    shown(page, "Runs")
    for path, title in PAGES.items():
        page.goto(f"{stage.dashboard.url}/runs/{stage.finished.id}/{path}".rstrip("/"))
        shown(page, title)
        width = page.evaluate("document.scrollingElement.scrollWidth")
        assert width <= 390, (path, width)
        assert page.evaluate(BROKEN_WORDS) == [], path


@pytest.fixture
def live(stage):
    """A run that has made some iterations and waits; it goes on when told to."""
    name = f"toy-live-{len(list(stage.runs.iterdir()))}"
    prompts = tagged_prompts(stage.runs.parent)
    running = Running(toy_run(stage.runs, run={"iterations": 10**6}, prompts=prompts), name)
    running.until(lambda status: status.get("iteration", 0) >= 2)
    commands.request(running.folder.path, "pause")
    running.until(lambda status: status["state"] == "paused")
    yield running
    commands.request(running.folder.path, "stop")
    running.join()


def test_every_page_shows_a_live_run(open_page, stage, live):
    page = open_page("/", "admin")
    shown(page, "Runs")
    expect(page.locator("tr", has_text=live.folder.id)).to_contain_text("paused")
    for path, title in PAGES.items():
        page.goto(f"{stage.dashboard.url}/runs/{live.folder.id}/{path}".rstrip("/"))
        shown(page, title)
        expect(page.locator(".state")).to_contain_text("paused")


def test_commands_reach_the_run_and_their_outcome_shows(open_page, live):
    page = shown(open_page(f"/runs/{live.folder.id}/control", "admin"), "Run control")
    history = page.locator("section[aria-label='What became of them']")
    before = live.folder.status()["iteration"]
    # A button that is drawn anew loses the click that comes just then.
    page.get_by_role("button", name="Checkpoint now").evaluate("button => button.isFirst = true")
    page.get_by_role("button", name="Unpause").click()
    expect(history.locator("tr", has_text="unpause")).to_contain_text("applied")
    live.until(lambda status: status["iteration"] > before)
    page.get_by_role("button", name="Pause", exact=True).click()
    expect(page.locator(".state")).to_contain_text("paused")
    button = page.get_by_role("button", name="Checkpoint now")
    button.click()
    expect(history.locator("tr", has_text="checkpoint")).to_contain_text("applied")
    assert button.evaluate("button => button.isFirst")
    assert list(live.folder.checkpoints.glob("step_*/manifest.json"))
    assert "key:" in history.inner_text()


def test_stop_is_typed_out(open_page, live):
    page = shown(open_page(f"/runs/{live.folder.id}/control", "admin"), "Run control")
    page.get_by_role("button", name="Stop").dblclick()
    page.get_by_label("type stop").fill("no")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("Nothing is done yet: type stop.")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_label("type stop")).to_have_count(0)
    expect(page.get_by_role("button", name="Stop")).to_be_focused()
    assert [command.type for command in commands.history(live.folder.path)] == ["pause"]
    page.get_by_role("button", name="Stop").click()
    page.get_by_label("type stop").fill("stop")
    page.get_by_role("button", name="Go on").click()
    expect(page.locator(".state")).to_contain_text("stopped")
    live.join()
    expect(page.get_by_role("button", name="Stop")).to_be_disabled()


def test_a_live_parameter_is_set_with_a_word_and_its_outcome_shows(open_page, live):
    page = shown(open_page(f"/runs/{live.folder.id}/control", "admin"), "Run control")
    history = page.locator("section[aria-label='What became of them']")
    row = page.locator("section[aria-label='Live parameters'] tr", has_text="checkpoint.every")

    def change(value):
        row.get_by_role("button").click()
        page.get_by_label("new value").fill(value)
        page.get_by_label("type set").fill("set")
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_label("type set")).to_have_count(0)

    change("2.5")
    expect(page.locator("body")).to_contain_text("checkpoint.every='2.5': allowed 0 to 1e+06")
    assert [command.type for command in commands.history(live.folder.path)] == ["pause"]
    change("500")
    expect(history.locator("tr", has_text="set checkpoint.every=500")).to_contain_text("applied")
    expect(row).to_contain_text("500")
    pools = page.locator("section[aria-label='Rollout and reward workers']")
    for pool in ("rollout", "upper_half"):
        expect(pools.locator("tr", has_text=pool)).to_contain_text("fixed")  # threads are


def test_rollout_workers_are_scaled_with_a_word(open_page, another):
    folder = another("toy-elastic")
    sizes = {"workers": 1, "fewest": 1, "most": 4, "held": 1}
    pools = {"rollout": sizes | {"automatic": False}, "upper_half": sizes | {"held": None}}
    folder.write_status({**folder.status(), "state": "running", "pools": pools})
    page = shown(open_page(f"/runs/{folder.id}/control", "admin"), "Run control")
    page.get_by_role("button", name="Change upper_half").click()
    expect(page.locator(".dialog")).to_contain_text("1 to 4 workers of upper_half, or as many as")
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("button", name="Change rollout").click()
    expect(page.locator(".dialog")).not_to_contain_text("auto")
    page.get_by_label("new value").fill("3")
    page.get_by_label("type scale").fill("scale")
    page.get_by_role("button", name="Go on").click()
    history = page.locator("section[aria-label='What became of them']")
    expect(history.locator("tr", has_text="scale rollout to 3")).to_contain_text("requested")
    (command,) = commands.history(folder.path)
    assert command.arguments == {"pool": "rollout", "workers": 3}


def test_a_checkpoint_is_promoted_with_a_click(open_page, another):
    folder = another("toy-promoted")
    path = f"/runs/{folder.id}/checkpoints"
    viewer = shown(open_page(path, "viewer"), "Checkpoints")
    expect(viewer.get_by_role("button", name="Promote")).to_be_disabled()
    page = shown(open_page(path, "admin"), "Checkpoints")
    page.get_by_role("button", name="Promote").click()
    expect(page.locator("section[aria-label='Checkpoints'] tbody").first).to_contain_text("key:")
    assert promoted(folder).by.startswith("key:")


def test_a_viewer_looks_and_does_not_command(open_page, live):
    page = shown(open_page(f"/runs/{live.folder.id}/control", "viewer"), "Run control")
    for name in ("Pause", "Unpause", "Checkpoint now", "Stop"):
        expect(page.get_by_role("button", name=name, exact=True)).to_be_disabled()
    expect(page.locator(".content")).to_contain_text("Only a key of role admin commands")
    # The button is only a courtesy: who clicks it all the same changes nothing.
    page.evaluate("document.querySelectorAll('.actions button').forEach(b => b.disabled = false)")
    page.get_by_role("button", name="Unpause").click()
    expect(page.locator("body")).to_contain_text("may not command")
    assert live.folder.status()["state"] == "paused"


@pytest.mark.parametrize("script", ["", "delete window.WebSocket"], ids=["websocket", "polling"])
def test_news_appear_without_a_reload(open_page, another, script):
    folder = another("toy-growing")
    page = shown(open_page(f"/runs/{folder.id}", script=script), "Overview")
    stamp = page.locator("section[aria-label='Reward of the rollouts'] .stamp")
    expect(stamp).to_contain_text("iteration 6")
    line = json.loads(folder.metrics.read_text().splitlines()[-1]) | {"step": 7}
    with folder.metrics.open("a") as file:
        file.write(json.dumps(line) + "\n")
    expect(stamp).to_contain_text("iteration 7")


def breaks(page, title):
    """How many curves of a chart have a gap: a line that begins anew within its path."""
    paths = page.locator(f"section[aria-label='{title}'] svg path[fill='none']")
    return sum(
        re.fullmatch(r"M.*L.*M.*L.*", path.get_attribute("d")) is not None for path in paths.all()
    )


def test_a_silent_run_looks_dead_and_not_flat(open_page, another):
    folder = another("toy-silent")
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    chart = "Reward of the rollouts"
    page = shown(open_page(f"/runs/{folder.id}"), "Overview")
    expect(page.locator(f"section[aria-label='{chart}'] svg")).to_be_visible()
    assert breaks(page, chart) == 0
    for number, line in enumerate(lines):  # it was silent once, for an hour, after its third
        line["time"] = 1.0e9 + number + 3600 * (number >= 3)
    lines[1]["generator/step_lost"] = 1.0
    folder.metrics.write_text("".join(json.dumps(line) + "\n" for line in lines))
    status = folder.path / "status.json"
    last = {"state": "running", "updated_at": lines[-1]["time"]}
    status.write_text(json.dumps(json.loads(status.read_text()) | last))
    page = shown(open_page(f"/runs/{folder.id}"), "Overview")
    expect(page.locator(f"section[aria-label='{chart}'] svg")).to_be_visible()
    assert breaks(page, chart) > 0
    expect(page.locator(f"section[aria-label='{chart}'] .stamp")).to_contain_text(
        "as of 2001-09-09"
    )
    expect(page.locator(".state")).to_contain_text(re.compile(r"silent.*news \d+ d ago"))
    expect(page.locator("section[aria-label='State']")).not_to_contain_text("time left")
    expect(page.locator("section[aria-label='State']")).to_contain_text(
        re.compile(r"images to judge\s*0")
    )
    page = shown(open_page(f"/runs/{folder.id}/workers"), "Workers")
    assert set(page.locator("td .chip").all_inner_texts()) == {"unknown"}
    page = shown(open_page(f"/runs/{folder.id}/alerts"), "Alerts")
    expect(page.locator("section[aria-label='Now']")).to_contain_text("The run is silent")
    over = page.locator("section[aria-label='Over'] tr", has_text="A step was not finite")
    expect(over).to_contain_text(f"{lines[1]['step']} to {lines[2]['step']}")


def test_what_cannot_be_read_is_said_and_old_panels_do_not_look_new(open_page, another):
    folder = another("toy-broken")
    status = folder.path / "status.json"
    sound = status.read_text()
    page = shown(open_page(f"/runs/{folder.id}"), "Overview")
    banner = page.locator(".stale.of-panels")
    expect(banner).to_be_hidden()
    status.write_text(sound[:40])
    expect(banner).to_have_text(re.compile(r"Stale since .* UTC: .*status.json is not JSON"))
    expect(page.locator(".state")).to_contain_text("unreadable")
    expect(page.locator("section[aria-label='State']")).to_contain_text("policy version")
    page.reload()
    expect(banner).to_have_text(re.compile(r"This cannot be read: .*status.json is not JSON"))
    page.goto(page.url.partition("/runs/")[0])
    expect(page.locator(".content")).to_contain_text(f"{folder.id} cannot be read")
    page.goto(f"{page.url}runs/{folder.id}/workers")
    expect(banner).to_be_visible()
    status.write_text(sound)
    expect(banner).to_be_hidden()
    expect(page.locator("section[aria-label='Workers']")).to_contain_text("replay")


def test_filters_are_in_the_address_and_a_column_of_the_histogram_is_one(open_page, stage):
    page = shown(open_page(f"/runs/{stage.finished.id}/rewards"), "Rewards")
    page.locator(".histogram a").last.click()
    shown(page, "Gallery")
    query = parse_qs(urlsplit(page.url).query)
    assert query["reward"] == ["upper_half"]
    assert float(query["max_reward"][0]) == 1.0
    expect(page.get_by_label("at most")).to_have_value("1.0")
    page.get_by_label("Sort").select_option("best")
    page.get_by_label("at least").fill("")
    page.get_by_role("button", name="Show").click()
    shown(page, "Gallery")
    assert "sort=best" in page.url
    first = page.locator("article.group").first
    expect(first).to_be_visible()
    captions = first.locator("figcaption").all_inner_texts()
    values = [float(re.search(r"upper_half (\S+)", text)[1]) for text in captions]
    assert values == sorted(values, reverse=True)
    first.locator("a.prompt").click()
    expect(page.locator("h1")).to_contain_text("Group")


def test_runs_stand_side_by_side_and_the_form_keeps_them(open_page, stage, another):
    names = [stage.finished.id, another("toy-other").id, another("toy-third").id]
    page = shown(open_page("/"), "Runs")
    for name in names:
        page.get_by_label(f"Take {name}").check()
    page.get_by_role("button", name="Compare the chosen").click()
    chart = page.locator("section[aria-label='Mean reward of the rollouts']")
    for _ in range(2):
        shown(page, "Rewards")
        for name in names:
            expect(chart.get_by_role("img").first).to_have_attribute(
                "aria-label", re.compile(f"{name} upper_half")
            )
        page.get_by_label("Histogram from iteration").fill("2")
        page.get_by_role("button", name="Show").click()
        page.wait_for_url(re.compile("from_step=2"))


def test_a_chart_is_a_table_and_a_file_too(open_page, stage):
    page = shown(open_page(f"/runs/{stage.finished.id}/rewards"), "Rewards")
    title = "Mean reward of the rollouts"
    name = "reward/upper_half/mean"  # evaluations have lines of their own
    names = [name, "reward/upper_half/p10", "reward/upper_half/p90"]
    told = [[line[each] for each in names] for line in metrics(stage.finished) if name in line]
    button = page.get_by_role("button", name=f"{title} as a table")
    assert button.get_attribute("aria-expanded") == "false"
    button.press("Enter")
    rows = page.get_by_role("region", name=f"{title}, as numbers").locator("tbody tr")
    expect(rows).to_have_count(len(told))
    last = [str(len(told)), *(f"{value:.6g}" for value in told[-1])]
    assert rows.last.inner_text().split() == last
    expect(button).to_have_attribute("aria-expanded", "true")
    assert serious(page) == []
    button.press("Enter")
    expect(rows).to_have_count(0)
    with page.expect_download() as started:
        page.get_by_role("button", name=f"{title} as a CSV file").click()
    named = f"{stage.finished.id}-mean-reward-of-the-rollouts.csv"
    assert started.value.suggested_filename == named
    head, *rows = csv.reader(started.value.path().read_text().splitlines())
    assert head == ["iteration", "upper_half", "upper_half, low", "upper_half, high"]
    assert [[float(value) for value in row[1:]] for row in rows] == told


def test_rewards_are_followed_by_prompt_category(open_page, stage, live):
    trained = "Reward of the rollouts by prompt category"
    titles = {"Held-out score by prompt category": "evaluation/student/", trained: "reward_by_tag/"}
    page = shown(open_page(f"/runs/{stage.finished.id}/rewards"), "Rewards")
    for title, prefix in titles.items():
        name = "upper_half/label-1"
        told = [line[prefix + name] for line in metrics(stage.finished) if prefix + name in line]
        chart = page.locator(f"section[aria-label='{title}']")
        words = chart.get_by_role("img").first
        expect(words).to_have_attribute("aria-label", re.compile(f"{name} {told[-1]:.4g}"))
        chart.get_by_role("button", name="as a table").click()
        expect(chart.locator("tbody tr")).to_have_count(len(told))
        expect(chart.locator(".stamp")).to_contain_text("policy v6")
    page.get_by_label("By category").select_option("upper_half")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(re.compile("measure=upper_half"))
    assert serious(page) == []
    page = shown(open_page(f"/runs/{live.folder.id}/rewards"), "Rewards")
    chart = page.locator(f"section[aria-label='{trained}']").get_by_role("img").first
    expect(chart).to_have_attribute("aria-label", re.compile("upper_half/label-0 0"))


def test_the_surrogate_is_held_against_the_rewards_step_by_step(open_page, stage):
    told: dict[str, list[float]] = {}
    for line in metrics(stage.finished):
        for name in line:
            if name.startswith("surrogate/agreement/"):
                told.setdefault(f"after step {int(name[-1]) + 1}", []).append(line[name])
    page = shown(open_page(f"/runs/{stage.finished.id}/rewards"), "Rewards")
    chart = page.locator("section[aria-label='The surrogate by denoising step']")
    words = chart.get_by_role("img").first
    for name, values in told.items():
        expect(words).to_have_attribute("aria-label", re.compile(f"{name} {values[-1]:.4g}"))
    rows = page.locator("section[aria-label='The surrogate and the reward'] tbody tr")
    expect(rows).to_have_count(len(told))
    for row in rows.all():
        name, agreement, gap, _, count = row.locator("td").all_inner_texts()
        values = told[name]
        mean = sum(values) / len(values)
        assert (agreement, gap, count) == (f"{mean:.0%}", f"{1 - mean:.0%}", str(len(values)))


def test_hostile_prompts_reasons_and_logs_are_text(open_page, another):
    folder = another("toy-hostile")
    attacks = [BACKWARDS + 300 * "x", *XSS]
    store = ImageStore(folder.images)
    known = store.index()[0]
    store.append(
        known
        | {
            "group_id": 100 + number,
            "prompt": attack,
            "prompt_id": attack,
            "rewards": {"upper_half": {"state": "failed", "value": None, "reason": attack}},
        }
        for number, attack in enumerate(attacks)
    )
    with folder.events.open("a") as file:
        file.write("\n".join(attacks) + "\n")
    folder.write_status({**folder.status(), "state": "failed", "error": "\n".join(attacks)})
    page = open_page(f"/runs/{folder.id}", "admin")
    groups = [f"groups/{100 + number}" for number in range(len(attacks))]
    paths = ["", "gallery", "workers", "alerts", *groups]
    for path in paths:
        page.goto(f"{page.url.split('/runs/')[0]}/runs/{folder.id}/{path}".rstrip("/"))
        expect(page.locator(".panel .body > *").first).to_be_visible()
        assert page.evaluate("window.pwned") is None
        assert page.locator(".content :is(iframe, script, svg[onload])").count() == 0
        assert BACKWARDS not in page.inner_text("body")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"), path
    expect(page.locator(".prompt.large")).to_contain_text("<b>bold</b>")


def test_a_removed_image_leaves_a_tombstone(open_page, another):
    folder = another("toy-removed")
    store = ImageStore(folder.images)
    for line in store.index():
        if line["group_id"] == 0:
            store.path(line["digest"]).unlink(missing_ok=True)
    page = shown(open_page(f"/runs/{folder.id}/groups/0"), "Group 0")
    assert page.locator(".tombstone").count() > 0
    expect(page.locator(".tombstone").first).to_have_text("image removed")


def weight(response):
    """Bytes of a page."""
    return len(response.body())


def memory_of(process):
    """Bytes that it has in memory."""
    text = Path(f"/proc/{process.pid}/statm").read_text()
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_a_group_shows_every_step_what_became_of_it_and_what_was_learned(open_page, stage):
    page = shown(open_page(f"/runs/{stage.finished.id}/groups/8"), "Group 8")
    images = page.locator("section[aria-label='Images after every step']")
    first = images.locator("article").first
    expect(first.locator("img")).to_have_count(4)
    expect(first.locator("figcaption").first).to_contain_text("after step 1, noise 1.00 to")
    expect(first.locator("figcaption").last).to_contain_text("final image")
    expect(first).to_contain_text(re.compile(r"upper_half [01]\s*advantage [+-]\d\.\d{3}"))
    address = first.locator("a").first.get_attribute("href")
    assert page.context.request.get(stage.dashboard.url + address).ok
    became = page.locator("section[aria-label='What became of it'] tbody tr")
    expect(became).to_have_count(5)
    for row, text in enumerate(
        ["generated", "judged by upper_half", "drawn by the surrogate", "drawn by the generator"]
    ):
        expect(became.nth(row)).to_contain_text(text)
    expect(became.last).to_contain_text("left the buffer")
    learned = page.locator("section[aria-label='What the surrogate learned from it']")
    expect(learned.locator("tbody tr")).to_have_count(16)
    expect(learned).to_contain_text("Every step has the same")
    expect(page.locator("section[aria-label='What people say']")).to_contain_text("not asked")


def test_what_a_run_of_old_did_not_record_is_said(open_page, another):
    folder = another("toy-old")
    folder.groups.unlink()
    (folder.path / "evaluations" / "index.jsonl").unlink()
    store = ImageStore(folder.images)
    lines = store.index()
    store.index_path.unlink()
    new = ("predictions", "sigmas")
    store.append({k: v for k, v in line.items() if k not in new} for line in lines)
    page = shown(open_page(f"/runs/{folder.id}/groups/8"), "Group 8")
    titles = ["What became of it", "What the surrogate learned from it", "What people say"]
    for title in titles:
        expect(page.locator(f"section[aria-label='{title}']")).to_contain_text("Not recorded")
    images = page.locator("section[aria-label='Images after every step']")
    expect(images).to_contain_text("is not recorded")
    expect(images.locator("article").first.locator("img")).to_have_count(1)
    page.goto(f"{page.url.split('/groups/')[0]}/gallery?view=pair")
    expect(page.locator(".content")).to_contain_text("No image of an evaluation is stored")


def test_the_gallery_shows_a_chosen_step_and_keeps_it_with_the_filters(open_page, stage):
    page = shown(open_page(f"/runs/{stage.finished.id}/gallery?sort=oldest"), "Gallery")
    image = page.locator("article.group img").first
    final = image.get_attribute("src")
    bar = page.get_by_role("navigation", name="Denoising step")
    expect(bar.locator("a[aria-current]")).to_contain_text("final image")
    bar.get_by_role("link", name="after step 1").click()
    expect(image).to_have_attribute("alt", re.compile("^after step 1, sample"))
    assert image.get_attribute("src") != final
    query = parse_qs(urlsplit(page.url).query)
    assert query == {"sort": ["oldest"], "step": ["1"]}
    page.get_by_label("Prompt has").fill("label 0")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(re.compile(r"prompt=label\+0.*step=1"))
    expect(bar.locator("a[aria-current]")).to_contain_text("after step 1")


def test_one_slider_shows_every_image_after_a_step_and_obeys_the_arrow_keys(open_page, stage):
    query = "sort=oldest&prompt=label"
    page = shown(open_page(f"/runs/{stage.finished.id}/gallery?{query}"), "Gallery")
    slider = page.get_by_role("slider", name="Denoising step")
    expect(slider).to_have_attribute("aria-valuetext", re.compile("^final image"))
    groups = page.locator("article.group").all_inner_texts()
    typed = page.get_by_label("Prompt has")
    typed.fill("label 0")
    slider.focus()
    for step in (3, 2):
        page.keyboard.press("ArrowLeft")
        expect(page.locator(f"article.group img[alt^='after step {step}, ']")).to_have_count(48)
        expect(slider).to_be_focused()
        expect(slider).to_have_attribute("aria-valuetext", re.compile(f"^after step {step}, "))
        expect(page.locator(".tabs a[aria-current=true]")).to_contain_text(f"after step {step}")
    page.wait_for_url(re.compile(rf"\?{query}&step=2$"))
    before = page.get_by_role("link", name="Before: iteration")
    expect(before).to_have_attribute("href", re.compile(f"{query}&step=2&from_step="))
    expect(typed).to_have_value("label 0")  # what is drawn anew leaves it alone
    page.keyboard.press("End")
    page.wait_for_url(re.compile(rf"\?{query}$"))
    expect(page.locator("article.group img[alt^='sample']")).to_have_count(48)
    assert page.locator("article.group").all_inner_texts() == groups
    page.keyboard.press("Home")
    page.wait_for_url(re.compile("step=1"))
    page.reload()
    expect(slider).to_have_value("1")
    assert serious(page) == []


def test_groups_are_filtered_by_policy_and_tell_what_keyed_their_noise(open_page, stage):
    page = shown(open_page(f"/runs/{stage.finished.id}/gallery?sort=oldest"), "Gallery")
    page.get_by_label("From policy").fill("2")
    page.get_by_label("to policy").fill("3")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(re.compile("min_version=2&max_version=3"))
    expect(page.locator("article.group")).to_have_count(4)
    expect(page.locator("article.group").last).to_contain_text("policy v2 - seed 0")


def test_the_gallery_goes_from_iteration_to_iteration_and_keeps_its_filters(open_page, stage):
    page = shown(open_page(f"/runs/{stage.finished.id}/gallery?prompt=label+0"), "Gallery")
    bar = page.get_by_role("navigation", name="Iteration")
    bar.get_by_role("link", name="Before: iteration 4").click()
    page.wait_for_url(re.compile("prompt=label\\+0&from_step=4&to_step=4"))
    expect(page.locator("article.group").first).to_contain_text("iteration 4")
    expect(bar.get_by_role("link", name="After")).to_have_count(0)
    bar.get_by_role("link", name="Before: iteration 2").click()
    expect(page.locator("article.group").first).to_contain_text("iteration 2")
    expect(bar.get_by_role("link", name="After: iteration 4")).to_be_visible()
    bar.get_by_role("link", name="All iterations").click()
    page.wait_for_url(re.compile("prompt=label\\+0$"))


def test_held_out_prompts_are_followed_and_two_evaluations_compared(open_page, stage):
    page = shown(open_page(f"/runs/{stage.finished.id}/gallery"), "Gallery")
    page.get_by_role("link", name="Held-out prompts over time").click()
    row = page.locator("article.group").first
    expect(row.locator("img")).to_have_count(7)  # before, five on the way, after
    expect(row.locator("figcaption").first).to_contain_text("before (policy v0): ")
    expect(page.locator("article.group")).to_have_count(4)
    page.get_by_role("link", name="Two evaluations side by side").click()
    page.get_by_label("Left").select_option("step_000002")
    page.get_by_label("Sort").select_option("gained")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url(re.compile("before=step_000002"))
    row = page.locator("article.group").first
    expect(row.locator("figcaption").first).to_contain_text("step_000002 (policy v2): ")
    expect(row.locator("figcaption").last).to_contain_text("checkpoint step_000006")
    expect(page.locator(".panel .body > p").first).to_contain_text("From step_000002 to after: ")
    changes = page.locator("article.group header span").all_inner_texts()
    values = [float(text.removeprefix("change ")) for text in changes]
    assert values == sorted(values, reverse=True)


def test_what_retention_removed_says_so(open_page, another):
    folder = another("toy-pruned")
    Retention(folder, RetentionConfig(last_iterations=1)).apply()
    page = shown(open_page(f"/runs/{folder.id}/gallery?sort=oldest"), "Gallery")
    tombstone = page.locator(".tombstone").first
    expect(tombstone).to_have_text("removed by retention")
    expect(tombstone).to_have_attribute("title", "last_iterations=1")


def test_ten_thousand_groups_are_shown_a_page_at_a_time(open_page, stage, another):
    """The time to the first paint is measured by benchmarks/run_dashboard.py."""
    small, large = another("toy-small"), another("toy-large")
    for folder, num_groups in ((small, 100), (large, 10_000)):
        store = ImageStore(folder.images)
        known = store.index()[0]
        store.append(
            known | {"group_id": 1000 + group, "sample": sample, "prompt": f"group {group}"}
            for group in range(num_groups)
            for sample in range(4)
        )
    page = shown(open_page(f"/runs/{small.id}/gallery"), "Gallery")
    weights = [weight(page.request.get(page.url))]
    before = memory_of(stage.dashboard.process)
    page.goto(f"{stage.dashboard.url}/runs/{large.id}/gallery")
    expect(page.locator(".pager")).to_contain_text(re.compile(r"100\d\d groups"))
    assert page.locator("article.group").count() == 12
    assert page.locator("img").count() <= 48
    weights.append(weight(page.request.get(page.url)))
    assert weights[1] < 1.1 * weights[0]
    assert page.evaluate("performance.memory.usedJSHeapSize") < 200e6
    page.get_by_role("link", name="Next page").click()
    expect(page.locator("article.group").first).to_contain_text("group 9987")
    assert memory_of(stage.dashboard.process) - before < 100e6


def test_a_keyboard_is_enough(open_page, stage):
    page = shown(open_page(f"/runs/{stage.finished.id}"), "Overview")
    page.keyboard.press("Tab")
    expect(page.locator(":focus")).to_have_text("Skip to the content")
    for _ in range(3):
        page.keyboard.press("Tab")
    for title in ("Overview", "Rewards", "Gallery"):
        expect(page.locator(":focus")).to_have_text(title)
        page.keyboard.press("Tab")


def test_a_theme_is_chosen_and_remembered(open_page, stage):
    page = shown(open_page(f"/runs/{stage.finished.id}/settings"), "Settings")
    expect(page.locator("body.body--light")).to_have_count(1)
    page.get_by_role("button", name="Dark").click()
    expect(page.locator("body.body--dark")).to_have_count(1)
    page.reload()
    expect(page.locator("body.body--dark")).to_have_count(1)
    page.get_by_role("button", name="As the system").click()
    expect(page.locator("body.body--light")).to_have_count(1)
    for system in ("dark", "light"):  # it changes while the page is open
        page.emulate_media(color_scheme=system)
        expect(page.locator(f"body.body--{system}")).to_have_count(1)
    page.get_by_role("button", name="Light").click()
    page.emulate_media(color_scheme="dark")
    page.reload()
    expect(page.locator("body.body--light")).to_have_count(1)
