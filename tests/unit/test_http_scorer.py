"""The options of a scorer over HTTP, and the published form of what it is sent and answers."""

import json
from pathlib import Path

import pytest

from services.config import RewardConfig
from services.reward.contract import is_groupwise
from services.reward.http_scorer import HttpScorer
from services.reward.http_wire import wire_schema
from services.reward.load import load_reward

pytestmark = pytest.mark.unit

PUBLISHED = Path(__file__).parents[2] / "docs/http_reward.json"
FINE = {"url": "https://scorer.example.com/score", "allowed_hosts": ["scorer.example.com"]}


def build(**options):
    return load_reward(RewardConfig(name="r", kind="http", options={**FINE, **options}))


def test_the_published_schema_is_that_of_the_code():
    """If you meant to change it: `make openapi`, and say in the commit what scorers will notice."""
    assert json.loads(PUBLISHED.read_text()) == json.loads(json.dumps(wire_schema()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"url": "http://scorer.example.com/"}, "option url: scheme 'http' is not allowed"),
        ({"url": "https://evil.test/"}, "evil.test:443 is not on the allow-list; allowed: scorer"),
        ({"url": "https://me:pw@scorer.example.com/"}, "a user, a password"),
        ({"url": "https://scorer.example.com:8443/"}, "not on the allow-list"),
        ({"url": 3}, "option url: 3 is no URL"),
        ({"allowed_hosts": []}, "allowed: none; set allowed_hosts"),
        ({"allowed_hosts": "scorer.example.com"}, r"write a list, such as \["),
        ({"allowed_hosts": ["*:*"], "url": "https://10.0.0.1/"}, "10.0.0.1, which is not public"),
        ({"timeout_s": 0}, "timeout_s=0: allowed are seconds"),
        ({"max_response_bytes": 0}, "max_response_bytes=0: .* from 1"),
        ({"max_request_bytes": 1.5}, "max_request_bytes=1.5: .* from 1"),
        ({"api_key_env": "TDM_R1_NO_SUCH_KEY"}, "TDM_R1_NO_SUCH_KEY.* is not set"),
        ({"ca_file": "no/ca.pem"}, "ca_file='no/ca.pem': .*No such file.* give a PEM file"),
        ({"ca_file": __file__}, "give a PEM file"),
        ({"look_up": 1}, "unknown option 'look_up'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        build(**options)


def test_http_and_private_addresses_pass_where_the_config_says_so():
    local = {"url": "http://127.0.0.1:9000/score", "allowed_hosts": ["127.0.0.1:9000"]}
    assert build(**local, allow_private=True).requires == ("prompt", "image")


def test_it_is_groupwise_where_the_config_says_so():
    assert is_groupwise(build(groupwise=True))
    assert not is_groupwise(build())


def test_the_version_changes_with_what_is_asked_but_not_with_patience():
    first = HttpScorer(**FINE).version
    assert HttpScorer(**FINE, timeout_s=1, retries=0).version == first
    assert HttpScorer(**FINE, groupwise=True).version != first
    assert HttpScorer(**FINE, scorer_version="2").version != first
