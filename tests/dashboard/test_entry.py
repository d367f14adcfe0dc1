"""Who gets in: keys, the link of the terminal, strangers, other pages' sockets; and what is said
when the dashboard has gone."""

import json
import logging
import re
import signal
import socket
from urllib.parse import urlsplit

import httpx
import pytest
from fastapi import FastAPI, WebSocket
from playwright.sync_api import expect
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from services.dashboard.gate import CONTENT_SECURITY_POLICY
from services.dashboard.sessions import COOKIE
from services.web.logs import FORMAT, RedactingFormatter
from tests.dashboard.serving import make_keys, revoke, serving
from tests.serving import served

pytestmark = pytest.mark.integration
SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=polling"


def get(stage, path, who=None, **headers):
    cookies = {COOKIE: stage.cookies[who]} if who else {}
    return httpx.get(stage.dashboard.url + path, cookies=cookies, headers=headers, timeout=60)


def test_a_stranger_is_shown_the_way_in_and_comes_back_to_the_page(open_page, stage):
    wanted = f"/runs/{stage.finished.id}/gallery?sort=oldest"
    page = open_page(wanted, None)
    expect(page.locator("h1")).to_have_text("TDM-R1")
    page.get_by_label("Key").fill("tdmr1_wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("status")).to_contain_text("unknown, used, expired")
    page.get_by_label("Key").fill(stage.keys["viewer"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(stage.dashboard.url + wanted)
    expect(page.locator("h1")).to_have_text("Gallery")
    (cookie,) = [each for each in page.context.cookies() if each["name"] == COOKIE]
    assert cookie["httpOnly"]
    page.goto(f"{stage.dashboard.url}/runs/{stage.finished.id}/settings")
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(re.compile("/login"))
    assert httpx.get(stage.dashboard.url, cookies={COOKIE: cookie["value"]}).status_code == 303


def test_an_open_page_ends_with_its_key(open_page, stage):
    wanted = f"/runs/{stage.finished.id}"
    page = open_page(wanted, None)
    page.get_by_label("Key").fill(stage.keys["service"])
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(stage.dashboard.url + wanted)
    expect(page.locator("h1")).to_have_text("Overview")
    revoke(stage.keys["service"], stage.runs.parent / "labels")
    page.wait_for_url(re.compile(r"/login\?next="))
    expect(page.locator("h1")).to_have_text("TDM-R1")


def test_the_link_of_the_terminal_opens_one_browser_once(open_page, stage):
    page = open_page(f"/login#invite={stage.dashboard.invite}", None)
    expect(page.locator("h1")).to_have_text("Runs")
    assert "tdmr1i_" not in page.url
    again = httpx.post(
        f"{stage.dashboard.url}/api/v1/session", json={"secret": stage.dashboard.invite}
    )
    assert again.status_code == 401


@pytest.mark.parametrize(
    "path", ["/", "/runs/toy-finished", "/runs/toy-finished/control", "/compare"]
)
def test_pages_are_closed_without_a_session(stage, path):
    answer = get(stage, path)
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/login?next=")


def test_a_socket_is_opened_for_our_own_pages_alone(stage):
    assert get(stage, SOCKET).status_code == 401
    assert get(stage, SOCKET, "viewer", Origin="https://evil.example").status_code == 401
    assert get(stage, SOCKET, "viewer", Origin=stage.dashboard.url).status_code == 200


def test_what_stands_in_for_the_socket_is_opened_for_our_own_pages_alone(stage):
    ours, foreign = {"Origin": stage.dashboard.url}, {"Origin": "https://evil.example"}
    opened = get(stage, SOCKET, "viewer").text
    address = f"{stage.dashboard.url}{SOCKET}&sid={json.loads(opened[1:])['sid']}"
    cookies = {COOKIE: stage.cookies["viewer"]}
    # A page from elsewhere may send text without asking first.
    text = {"Content-Type": "text/plain;charset=UTF-8"}
    for headers in ({}, foreign):
        answer = httpx.post(address, content="40", headers=text | headers, cookies=cookies)
        assert answer.status_code == 401
    assert httpx.post(address, content="40", headers=text | ours).status_code == 401
    large = httpx.post(address, content="4" * 100_000, headers=text | ours, cookies=cookies)
    assert large.status_code == 413
    sent = httpx.post(address, content="40", headers=text | ours, cookies=cookies)
    assert (sent.status_code, sent.text) == (200, "OK")


@pytest.mark.parametrize(
    ("host", "origin", "status"),
    [
        (None, "own", 101),
        (None, None, 403),
        (None, "https://evil.example", 403),
        ("evil.example", "http://evil.example", 403),
    ],
)
def test_a_websocket_wants_our_name_and_our_page(stage, host, origin, status):
    url = urlsplit(stage.dashboard.url)
    connection = socket.create_connection((url.hostname, url.port))
    cookie = {"Cookie": f"{COOKIE}={stage.cookies['viewer']}"}
    address = f"ws://{host or url.netloc}{SOCKET}".replace("polling", "websocket")
    try:
        with connect(
            address,
            sock=connection,
            origin=stage.dashboard.url if origin == "own" else origin,
            additional_headers=cookie,
        ) as opened:
            answered = opened.response.status_code
    except InvalidStatus as refused:
        answered = refused.response.status_code
    assert answered == status


def test_nobody_presses_the_buttons_of_anothers_page(open_page, another):
    folder = another("toy-pressed")
    path = f"/runs/{folder.id}/checkpoints"
    admin = open_page(path, "admin")
    # Whatever else runs on this host may have cookies, too, of any form.
    admin.evaluate("document.cookie = 'other={\"a\": 1}; path=/'")
    admin.reload()
    promote = admin.get_by_role("button", name="Promote").first
    expect(promote).to_be_visible()
    admin.evaluate("""() => {
        window.send = window.socket.emit;
        window.socket.emit = (...sent) => { window.pressed = sent; };
    }""")
    promote.click()
    admin.wait_for_function("window.pressed?.[0] === 'event'")
    pressed = admin.evaluate("window.pressed")
    viewer = open_page(path)
    expect(viewer.get_by_role("button", name="Promote").first).to_be_disabled()
    viewer.evaluate("pressed => { window.socket.emit(...pressed); }", pressed)
    viewer.wait_for_timeout(500)
    assert not (folder.path / "promoted.json").exists()
    admin.evaluate("pressed => { window.send.apply(window.socket, pressed); }", pressed)
    expect(admin.get_by_text("is promoted; the run keeps it")).to_be_visible()


def test_nobody_hears_anothers_page(stage):
    page = get(stage, f"/runs/{stage.finished.id}", "admin").text
    (page_id,) = re.findall(r"'client_id': '([0-9a-f-]{36})'", page)
    of_page = {"client_id": page_id, "tab_id": "a", "document_id": "b"}
    at_once = "".join(f"&{name}={value}" for name, value in of_page.items())
    at_once += "&implicit_handshake=true"
    later = json.dumps(["handshake", of_page | {"document_id": "c"}])
    assert said_to_socket(stage, "viewer", at_once, "40")[0].startswith('44{"message"')
    assert said_to_socket(stage, "viewer", "", "40", f"420{later}")[1] == "430[false]"
    assert said_to_socket(stage, "admin", at_once, "40")[0].startswith('40{"sid"')


def said_to_socket(stage, who, query, *sent):
    """What a socket of somebody's hears after each message."""
    url = stage.dashboard.url
    address = (url + SOCKET + query).replace("http", "ws", 1).replace("polling", "websocket")
    cookie = {"Cookie": f"{COOKIE}={stage.cookies[who]}"}
    with connect(address, origin=url, additional_headers=cookie) as opened:
        opened.recv(5)
        heard = []
        for message in sent:
            opened.send(message)
            heard.append(str(opened.recv(5)))
    return heard


def test_a_cookie_alone_changes_nothing_over_the_api(stage):
    address = f"{stage.dashboard.url}/api/v1/runs/{stage.finished.id}/commands"
    headers = {"Idempotency-Key": "a", "Origin": stage.dashboard.url}
    cookies = {COOKIE: stage.cookies["admin"]}
    answer = httpx.post(address, json={"type": "stop"}, cookies=cookies, headers=headers)
    assert answer.json()["code"] == "csrf"
    foreign = headers | {"Origin": "https://evil.example"}
    answer = httpx.post(address, json={"type": "stop"}, cookies=cookies, headers=foreign)
    assert answer.json()["code"] == "origin-not-allowed"


def test_who_has_a_session_reads_the_api_too(stage):
    assert get(stage, "/api/v1/runs", "viewer").json()["items"][0]["run_id"]
    assert (
        get(stage, "/api/v1/nothing", "viewer")
        .headers["content-type"]
        .startswith("application/problem+json")
    )


def test_policies_are_as_strict_as_each_page_allows(stage):
    page = get(stage, "/", "viewer").headers["content-security-policy"]
    assert page == CONTENT_SECURITY_POLICY
    assert "default-src 'none'" in page
    login = get(stage, "/login").headers["content-security-policy"]
    assert "unsafe" not in login
    assert get(stage, "/", "viewer", Host="evil.example").status_code == 400


@pytest.mark.parametrize(
    ("path", "who"),
    [
        ("/login-or-so", None),
        ("/_nicegui/nothing", None),
        ("/nothing", "viewer"),
        (f"/runs/toy-finished/groups/{10**30}", "viewer"),
        ("/runs/toy-finished/groups/first", "viewer"),
    ],
)
def test_what_is_no_page_is_a_file_and_costs_no_memory(stage, path, who):
    answer = get(stage, path, who)
    assert answer.status_code == 404
    assert "No such page" in answer.text
    assert "client_id" not in answer.text
    assert "unsafe" not in answer.headers["content-security-policy"]


def test_a_browser_without_scripts_is_told_why_it_sees_nothing(browser, stage):
    with browser.new_context(java_script_enabled=False) as context:
        url = stage.dashboard.url
        page = context.new_page()
        page.goto(url)
        told = page.locator("noscript p")
        expect(told).to_contain_text("Signing in needs JavaScript")
        context.add_cookies([{"name": COOKIE, "value": stage.cookies["viewer"], "url": url}])
        page.goto(url)
        expect(told).to_contain_text("drawn by JavaScript")


def test_assets_have_names_and_no_paths(stage):
    assert get(stage, "/assets/dashboard.css").status_code == 200
    for name in ("..%2fapp.py", "app.py", "%2e%2e"):
        assert get(stage, f"/assets/{name}").status_code == 404


def test_a_cut_page_says_since_when_it_is_stale_and_goes_on(browser, stage, another, tmp_path):
    folder = another("toy-cut")
    make_keys(tmp_path / "labels")
    stale = re.compile(r"Stale since \d\d:\d\d:\d\d UTC")
    context = browser.new_context()
    context.add_init_script("window.STALE_AFTER_MS = 3000")
    page = context.new_page()
    banner = page.locator("body > .stale")
    with serving(stage.runs, tmp_path / "labels") as dashboard:
        page.goto(f"{dashboard.url}/login?next=/runs/{folder.id}#invite={dashboard.invite}")
        expect(page.locator("h1")).to_have_text("Overview")
        expect(banner).to_be_hidden()
        dashboard.process.send_signal(signal.SIGSTOP)  # the socket stays open
        expect(banner).to_have_text(stale)
        line = json.loads(folder.metrics.read_text().splitlines()[-1]) | {"step": 7}
        with folder.metrics.open("a") as file:
            file.write(json.dumps(line) + "\n")
        dashboard.process.send_signal(signal.SIGCONT)
        expect(banner).to_be_hidden()
        stamp = page.locator("section[aria-label='Reward of the rollouts'] .stamp")
        expect(stamp).to_contain_text("iteration 7")
        dashboard.process.kill()
        expect(banner).to_have_text(stale)
    with serving(stage.runs, tmp_path / "labels", urlsplit(dashboard.url).port):
        page.wait_for_url(re.compile(r"/login\?next="))  # sessions end with their process
    context.close()


def test_the_log_tells_no_pages_id(caplog):
    app = FastAPI()

    @app.websocket("/ws")
    async def listen(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.close()

    caplog.set_level(logging.INFO)
    address = "/ws?client_id=147ed7e1&tab_id=dac3"
    with served(app) as url, connect(url.replace("http", "ws") + address):
        pass
    lines = [RedactingFormatter(FORMAT).format(record) for record in caplog.records]
    assert [line for line in lines if '"WebSocket /ws" [accepted]' in line]
    assert not [line for line in lines if "147ed7e1" in line or "tab_id" in line]
