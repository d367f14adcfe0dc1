"""Where webhooks may not go: an attack corpus against the URL check and the resolver."""

import asyncio
import ipaddress
import socket
import threading
import time

import httpx
import pytest

from services.web.outbound import (
    ForbiddenUrlError,
    OutboundRules,
    UnresolvedHostError,
    check_url,
    is_public,
    outbound_client,
    resolve,
)

pytestmark = pytest.mark.unit
RULES = OutboundRules(("hooks.example.com", "*.trusted.test", "other.test:8443", "any.test:*"))
EVERYWHERE = OutboundRules(("*:*",))

NOT_PUBLIC = [
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.8.8.8",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.1",
    "192.168.1.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:8.8.8.8",
    "::7f00:1",
    "64:ff9b::7f00:1",
    "64:ff9b::a9fe:a9fe",
    "2001::1",
    "2002:7f00:1::",
    "fc00::1",
    "fd00:ec2::254",
    "fe80::1",
    "fe80::1%eth0",
    "fec0::1",
    "ff02::1",
]

NOT_HOSTS = [
    "https://2130706433/",
    "https://0x7f000001/",
    "https://0x7f.0.0.1/",
    "https://0177.0.0.1/",
    "https://127.1/",
    "https://127.0.0.01/",
    "https://%31%32%37.0.0.1/",
    "https://[::ffff:7f00:1]/",
    "https://[0:0:0:0:0:0:0:1]/",
    "https://[fe80::1%25eth0]/",
    "https://hooks.example.com.:443/",
    "https://-bad.example.com/",
    "https://a_b.example.com/",
    "https:///x",
    "https://",
    "https://\u2460\u2461\u2466.\u24ea.\u24ea.\u2460/",
]


@pytest.mark.parametrize("text", NOT_PUBLIC)
def test_an_address_that_is_not_on_the_open_internet_is_refused(text):
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", ["8.8.8.8", "93.184.216.34", "2606:4700::1111"])
def test_an_address_on_the_open_internet_is_fine(text):
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("url", NOT_HOSTS)
def test_what_a_resolver_might_read_as_an_address_is_no_host(url):
    with pytest.raises(ForbiddenUrlError):
        check_url(url, OutboundRules(("*:*",)))


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "ftp://hooks.example.com/",
        "file:///etc/passwd",
        "gopher://hooks.example.com/",
        "//hooks.example.com/",
        "hooks.example.com",
        "https://user@hooks.example.com/",
        "https://user:secret@hooks.example.com/",
        "https://hooks.example.com#@evil.test/",
        "https://hooks.example.com\\@evil.test/",
        "https://hooks.example.com:8443/",
        "https://evil.test/?hooks.example.com",
        "https://hooks.example.com.evil.test/",
        "https://xhooks.example.com/",
        "https://trusted.test/",
        "https://other.test/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data/",
        "https://localhost/",
        "https://hooks.example.com:99999/",
        "https://hooks.example.com\n.evil.test/",
    ],
)
def test_a_url_that_is_not_plainly_on_the_list_is_refused(url):
    with pytest.raises(ForbiddenUrlError):
        check_url(url, RULES)


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.example.com/in?x=1",
        "https://HOOKS.example.com/",
        "https://a.b.trusted.test/",
        "https://other.test:8443/",
        "https://any.test:99/",
    ],
)
def test_a_url_on_the_list_is_fine(url):
    assert check_url(url, RULES).scheme == "https"


def test_nothing_is_allowed_where_no_list_is_set():
    with pytest.raises(ForbiddenUrlError, match="webhook_hosts"):
        check_url("https://hooks.example.com/", OutboundRules(()))


@pytest.mark.parametrize("url", ["https://localhost/", "https://127.0.0.1/", "https://[::1]/"])
def test_a_listed_host_with_a_private_address_is_refused_when_it_is_resolved(url):
    with pytest.raises(ForbiddenUrlError, match=r"not public|no address"):
        asyncio.run(resolve(check_url(url, EVERYWHERE), EVERYWHERE))


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".test"])
def test_a_host_that_cannot_be_resolved_is_refused(host):
    url = httpx.URL(f"https://{host}/")
    with pytest.raises(ForbiddenUrlError, match="no address"):
        asyncio.run(resolve(url, EVERYWHERE))


@pytest.mark.parametrize("answers", [["10.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["8.8.8.8", "::1"]])
def test_one_private_address_among_the_answers_is_enough_to_refuse(answers):
    async def look_up(host, port):
        return answers

    with pytest.raises(ForbiddenUrlError, match="not public"):
        asyncio.run(resolve(httpx.URL("https://scorer.test/"), EVERYWHERE, look_up))


def test_a_name_is_looked_up_once_and_each_of_its_addresses_is_connected_to_in_turn():
    asked = []

    async def look_up(host, port):
        asked.append((host, port))
        return ["8.8.8.8", "1.1.1.1", "8.8.8.8"]

    target = asyncio.run(resolve(httpx.URL("https://scorer.test:9/in"), EVERYWHERE, look_up))
    assert [str(url) for url in target.connect_urls] == [
        "https://8.8.8.8:9/in",
        "https://1.1.1.1:9/in",
    ]
    assert asked == [("scorer.test", 9)]


def test_a_look_up_that_hangs_is_left_behind(monkeypatch):
    over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **hints: over.wait(30) and [])
    looked_up = resolve(httpx.URL("https://hooks.example.com/"), EVERYWHERE)
    started = time.monotonic()
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(looked_up, 0.2))
    assert time.monotonic() - started < 5
    over.set()


def test_an_empty_answer_is_no_address():
    async def look_up(host, port):
        return []

    with pytest.raises(UnresolvedHostError, match="no address"):
        asyncio.run(resolve(httpx.URL("https://scorer.test/"), EVERYWHERE, look_up))


def test_the_connection_goes_to_the_checked_address_under_the_urls_name():
    rules = OutboundRules(("localhost:*",), allow_private=True)
    target = asyncio.run(resolve(check_url("http://localhost:8080/in", rules), rules))
    assert {url.host for url in target.connect_urls} <= {"127.0.0.1", "::1"}
    assert {(url.port, url.path) for url in target.connect_urls} == {(8080, "/in")}
    assert target.url.netloc == b"localhost:8080"


def test_no_proxy_of_the_environment_is_asked(monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert not outbound_client()._mounts
