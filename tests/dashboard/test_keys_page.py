"""The Keys page in a real browser: a secret is shown once, to the admin who made it alone."""

import csv
import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import expect

from services.dashboard.sessions import COOKIE
from services.labels.api_keys import create_key, find_key, revoke_key
from services.labels.settings import Settings
from services.labels.store.tables import ApiKey
from services.run_store.run_folder import RunFolder
from services.web.clock import utc_now
from services.web.keys import SECRET_PATTERN, parse_key
from tests.dashboard.conftest import Stage, sign_in
from tests.dashboard.serving import keys_of, make_keys, serving
from tests.dashboard.test_pages import PHONE, serious, shown
from tests.labels.live import eventually
from tests.labels.test_page import XSS

pytestmark = pytest.mark.integration
HOSTILE = ("<img src=x onerror=window.pwned=1>", "=cmd|' /C calc'!A0", XSS[0])


@pytest.fixture(scope="module")
def stage(tmp_path_factory) -> Iterator[Stage]:
    """A dashboard of its own, whose log is kept; every role has signed in but the annotator."""
    folder = tmp_path_factory.mktemp("keys")
    (folder / "runs").mkdir()
    keys = make_keys(folder / "labels")
    with serving(folder / "runs", folder / "labels", log=folder / "log.txt") as dashboard:
        cookies = {role: sign_in(dashboard, keys[role]) for role in ("viewer", "service", "admin")}
        nothing = RunFolder(folder / "runs" / "none")
        yield Stage(dashboard, folder / "runs", nothing, keys, cookies)


@pytest.fixture
def data(stage):
    return stage.runs.parent / "labels"


def make(data, name, role="viewer", days=90.0):
    """A key's text, made as the command line makes it."""
    with keys_of(data) as database:
        return database.write_now(
            lambda session: create_key(session, name, role, utc_now(), "cli", (), None, days)
        )[1]


def names_of(data):
    """Every key's name, and whether it lasts."""
    with keys_of(data) as database:
        rows = database.read_now(lambda session: session.query(ApiKey).all())
        return {row.name: row.revoked_at is None for row in rows}


def panel(page, title):
    return page.locator(f"section[aria-label='{title}']")


def fill(page, name, role="viewer"):
    form = page.get_by_role("form", name="Make a key")
    form.get_by_label("Name").fill(name)
    form.locator("select[name='role']").select_option(role)
    return form.get_by_role("button", name="Make a key")


def heard_by(page):
    """What the page's socket is told from its next visit on."""
    frames = []
    page.on("websocket", lambda socket: socket.on("framereceived", lambda f: frames.append(str(f))))
    page.reload()
    page.wait_for_function("window.socket?.connected")
    return frames


def secret_of(page):
    """What the dialog shows."""
    return page.get_by_role("dialog").locator("code").inner_text()


@pytest.mark.parametrize("role", ["viewer", "service"])
def test_who_is_no_admin_sees_no_key_and_no_form(open_page, stage, role):
    page = open_page("/keys", role)
    expect(page.locator(".content")).to_contain_text("Only an admin's key sees and makes keys")
    assert page.locator("table, form").count() == 0
    assert "a admin" not in page.content()
    assert serious(page) == []
    page.goto(stage.dashboard.url)
    expect(page.locator("h1")).to_have_text("Runs")
    assert page.get_by_role("link", name="Keys").count() == 0


def test_neither_annotators_nor_those_whose_key_is_over_get_in(stage, data):
    url = stage.dashboard.url
    answer = httpx.post(f"{url}/api/v1/session", json={"secret": stage.keys["annotator"]})
    assert answer.status_code == 401
    over = make(data, "soon over", "admin", days=3 / 86400)
    cookies = {COOKIE: sign_in(stage.dashboard, over)}
    eventually(lambda: httpx.get(f"{url}/keys", cookies=cookies).status_code == 303, 30)
    assert httpx.get(f"{url}/audit", cookies=cookies).status_code == 303


def test_a_secret_is_shown_once_and_is_nowhere_else(open_page, stage, data):
    page = shown(open_page("/", "admin"), "Runs")
    page.get_by_role("link", name="Keys").click()
    shown(page, "Keys")
    fill(page, HOSTILE[0], "admin").click()
    dialog = page.get_by_role("dialog", name=f"The key of {HOSTILE[0]}")
    expect(dialog).to_be_visible()
    key = secret_of(page)
    assert parse_key(key) is not None
    expect(dialog.get_by_role("button", name="Copy the key")).to_have_attribute("data-copy", key)
    assert serious(page) == []
    page.keyboard.press("Escape")  # so that it is not lost by accident
    expect(dialog).to_be_visible()
    assert key not in page.url
    sign_in(stage.dashboard, key)
    dialog.get_by_role("button", name="I have kept it").click()
    expect(dialog).to_have_count(0)
    assert key not in page.content()
    expect(page.get_by_role("form", name="Make a key").get_by_label("Name")).to_have_value("")
    first = panel(page, "Keys").locator("tbody tr").first
    expect(first).to_contain_text(HOSTILE[0])
    page.reload()
    shown(page, "Keys")
    assert page.evaluate("window.pwned") is None
    other = shown(open_page("/keys", "admin"), "Keys")
    secret = key.split("_", 2)[2]
    for html in (page.content(), other.content(), page.request.get(page.url).text()):
        assert secret not in html
        assert SECRET_PATTERN.search(html) is None
    kept = "() => JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])"
    assert secret not in page.evaluate(kept)
    files = [path for path in stage.runs.parent.rglob("*") if path.is_file()]
    assert data / Settings(data_dir=data).url.rpartition("/")[2] in files
    assert stage.runs.parent / "log.txt" in files
    assert [path for path in files if secret.encode() in path.read_bytes()] == []
    page.goto(f"{stage.dashboard.url}/audit")
    row = panel(page, "Who did what").locator("tbody tr").first
    expect(row).to_contain_text("key.create")
    expect(row).to_contain_text("a admin")  # the name of the key that made it
    expect(row).to_contain_text(HOSTILE[0])


def test_a_secret_is_gone_once_its_page_is_left_and_brought_back(open_page):
    page = shown(open_page("/keys", "admin"), "Keys")
    fill(page, "left").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    key = secret_of(page)
    page.evaluate("dispatchEvent(new PageTransitionEvent('pagehide', { persisted: true }))")
    assert key not in page.content()


def test_what_cannot_be_a_key_is_refused_with_the_reason(open_page, data):
    page = shown(open_page("/keys", "admin", color_scheme="dark"), "Keys")
    before = names_of(data)
    send = fill(page, "never made")
    said = panel(page, "Make a key").get_by_role("alert")
    scope = page.get_by_label("labels:push (role annotator)")
    scope.check()
    send.click()
    expect(said).to_have_text("scope 'labels:push' is not for role viewer; allowed: none")
    assert serious(page) == []
    scope.uncheck()
    days = page.get_by_label("Days (empty: for ever)")
    days.evaluate("field => { field.type = 'text'; }")  # browsers are no wall
    for value, reason in {"4000": "equal to 3650", "-1": "greater than 0", "x": "no num"}.items():
        days.fill(value)
        page.keyboard.press("Enter")
        expect(said).to_contain_text(reason)
    assert names_of(data) == before


def test_nobody_makes_a_key_by_anothers_page(open_page, stage, data):
    admin = shown(open_page("/keys", "admin"), "Keys")
    own = heard_by(admin)
    send = fill(admin, "by a stranger", "admin")
    admin.evaluate("""() => {
        window.send = window.socket.emit;
        window.socket.emit = (...sent) => { if (sent[0] === "event") window.pressed = sent; };
    }""")
    send.click()
    admin.wait_for_function("window.pressed?.[0] === 'event'")
    pressed = admin.evaluate("window.pressed")
    for role in ("viewer", "service"):
        stranger = open_page("/keys", role)
        expect(stranger.locator(".content")).to_contain_text("Only an admin's key")
        frames = heard_by(stranger)
        stranger.evaluate("pressed => { window.socket.emit(...pressed); }", pressed)
        stranger.wait_for_timeout(500)
        assert "by a stranger" not in names_of(data)
        assert frames
        assert [frame for frame in frames if SECRET_PATTERN.search(frame)] == []
    admin.evaluate("pressed => { window.send.apply(window.socket, pressed); }", pressed)
    expect(admin.get_by_role("dialog", name="The key of by a stranger")).to_be_visible()
    assert [frame for frame in own if SECRET_PATTERN.search(frame)]


def test_an_admin_whose_key_was_revoked_makes_none_by_an_open_page(open_page, stage, data):
    key = make(data, "fired", "admin")
    stage.cookies["fired"] = sign_in(stage.dashboard, key)
    page = shown(open_page("/keys", "fired"), "Keys")
    send = fill(page, "too late")
    id, _ = parse_key(key)
    with keys_of(data) as database:
        database.write_now(
            lambda session: revoke_key(session, find_key(session, id), utc_now(), "cli")
        )
    send.click()
    page.wait_for_url(re.compile(r"/login\?next="))  # within 5 s
    assert "too late" not in names_of(data)


def test_a_key_is_revoked_once_the_word_is_typed_and_ends_the_session_that_it_opened(
    open_page, stage, data
):
    key = make(data, "mine", "admin")
    stage.cookies["mine"] = sign_in(stage.dashboard, key)
    make(data, "other")
    page = shown(open_page("/keys", "mine"), "Keys")

    def ask(name):
        page.get_by_role("button", name=f"Revoke {name} (").click()
        expect(page.get_by_role("dialog")).to_contain_text(name)

    ask("other")
    page.get_by_label("type revoke").fill("yes")
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("Nothing is done yet: type revoke.")).to_be_visible()
    assert names_of(data)["other"]
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_have_count(0)
    ask("other")
    assert serious(page) == []
    page.get_by_label("type revoke").fill("revoke")
    page.keyboard.press("Enter")
    expect(panel(page, "Keys").locator("tr", has_text="other")).to_contain_text("revoked")
    assert not names_of(data)["other"]
    ask("mine")
    expect(page.get_by_role("dialog")).to_contain_text("the key that you are signed in with")
    page.get_by_label("type revoke").fill("revoke")
    page.get_by_role("button", name="Go on").click()
    page.wait_for_url(re.compile(r"/login\?next="))


def test_the_last_admin_key_goes_by_another_word_alone(browser, stage, tmp_path):
    keys = make_keys(tmp_path / "labels")
    with serving(stage.runs, tmp_path / "labels") as dashboard:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"{dashboard.url}/login?next=/keys#invite={dashboard.invite}")
        shown(page, "Keys")
        page.get_by_role("button", name="Revoke a admin (").click()
        dialog = page.get_by_role("dialog")
        expect(dialog).to_contain_text("the last active key of role admin")
        expect(dialog).to_contain_text("tdm-r1 keys create --role admin --name NAME")
        word = page.get_by_label("type revoke the last admin key")
        word.fill("revoke")
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_text("Nothing is done yet")).to_be_visible()
        assert names_of(tmp_path / "labels")["a admin"]
        word.fill("revoke the last admin key")
        page.keyboard.press("Enter")  # a second click so soon would be half of a double one
        expect(panel(page, "Keys").locator("tr", has_text="a admin")).to_contain_text("revoked")
        assert httpx.get(f"{dashboard.url}/api/v1/runs", headers=bearer(keys)).status_code == 401
        context.close()


def bearer(keys):
    return {"Authorization": f"Bearer {keys['admin']}"}


def test_keys_that_end_soon_are_marked_and_saved_without_formulas(open_page, data, tmp_path):
    make(data, HOSTILE[1], days=3.5)
    make(data, HOSTILE[2], days=1e-6)
    page = shown(open_page("/keys?role=viewer", "admin", **PHONE), "Keys")
    listed = panel(page, "Keys")
    expect(listed.locator("tr", has_text=HOSTILE[1])).to_contain_text("expires in 3 d")
    expect(listed.locator("tr", has_text=HOSTILE[2])).to_contain_text("expired")
    assert "a admin" not in listed.inner_text()
    assert page.evaluate("document.scrollingElement.scrollWidth") <= 390
    assert page.evaluate("window.pwned") is None
    with page.expect_download() as got:
        page.get_by_role("button", name="These keys as a CSV file").click()
    got.value.save_as(tmp_path / "keys.csv")
    rows = list(csv.DictReader((tmp_path / "keys.csv").read_text().splitlines()))
    assert rows[1]["name"] == "'" + HOSTILE[1]
    assert {row["role"] for row in rows} == {"viewer"}
    page.goto(page.url.replace("viewer", "nobody"))
    expect(page.get_by_role("alert").first).to_contain_text("role='nobody' is none; allowed: view")


def test_somebody_is_invited_by_keyboard_and_their_link_is_shown_once(open_page):
    page = shown(open_page("/keys", "admin"), "Keys")
    name = page.get_by_role("form", name="Invite").get_by_label("Name")
    name.focus()
    page.keyboard.type("Zoe <b>")
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="The link for Zoe <b>")
    expect(dialog).to_contain_text("It makes one browser Zoe <b>'s, once")
    link = secret_of(page)
    assert re.fullmatch(r"http://127.0.0.1:\d+/login#invite=tdmr1i_[\w-]{43}", link)
    page.get_by_role("button", name="Copy the link").focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    expect(dialog).to_have_count(0)
    assert link not in page.content()
    expect(name).to_be_focused()
