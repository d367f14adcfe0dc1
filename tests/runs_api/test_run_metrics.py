"""Live runs for Prometheus, and what deploy/ makes of their metrics: alert rules and panels."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from services.labels import metrics as label_metrics
from services.labels.scrape import known_to_the_store
from services.labels.store.database import Database
from services.web.clock import utc_now
from services.web.scraping import Scrape

pytestmark = pytest.mark.integration

DEPLOY = Path("deploy").absolute()
RULES = DEPLOY / "prometheus/rules.yml"
ELSEWHERE = {"node_filesystem_avail_bytes", "node_filesystem_size_bytes"}
"""Of other exporters."""


@pytest.fixture
def live(finished):
    """The finished run, as if it were still at work."""
    finished.write_status({**finished.status(), "state": "running"})
    return finished


def scraped(client):
    answer = client.get("/metrics")
    assert answer.status_code == 200
    return answer.text


def value_of(text, sample):
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text, re.M)
    return found and float(found[1])


def test_a_live_run_tells_its_newest_numbers(client, live):
    text = scraped(client)
    last = json.loads(live.metrics.read_text().splitlines()[-1])
    run = f'run="{live.id}"'
    name = "reward/upper_half/mean"
    mean = value_of(text, f'tdmr1_reward_mean{{reward="upper_half",{run}}}')
    assert mean == last[name]
    assert value_of(text, f"tdmr1_train_step{{{run}}}") == 6
    assert value_of(text, f"tdmr1_last_step_timestamp_seconds{{{run}}}") == last["time"]
    step = f'tdmr1_step_reward_mean{{denoise_step="3",reward="upper_half",{run}}}'
    assert value_of(text, step) == last["reward/upper_half/step_3"]
    assert value_of(text, f'tdmr1_worker_up{{role="replay",{run},worker="replay"}}') == 1
    assert value_of(text, f"tdmr1_checkpoint_bytes{{{run}}}") > 0


def test_a_run_that_has_ended_is_not_told_any_more(client, finished):
    assert finished.id not in scraped(client)


def test_what_is_missing_is_absent(client, live):
    about = {"time": 1.0, "step": 7, "policy_version": 7, "surrogate_version": 7}
    with live.metrics.open("a") as file:
        file.write(json.dumps(about | {"reward/upper_half/mean": None}) + "\n")
    assert "tdmr1_reward_mean{" not in scraped(client)


def test_no_prompt_and_no_group_is_a_label(client, live):
    text = scraped(client)
    labels = set(re.findall(r'[{,](\w+)="', text))
    known = {"run", "reward", "denoise_step", "phase", "state", "learner", "role", "worker"}
    assert labels <= known | {"route", "method", "status", "le"}


def test_other_machines_need_the_token(client, settings):
    answer = client.get("/metrics", headers={"X-Forwarded-For": "10.0.0.1"})
    assert answer.json()["code"] == "unauthenticated"


def expressions():
    """Every expression in deploy/."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    found = [rule["expr"] for group in groups for rule in group["rules"]]
    panels = json.loads((DEPLOY / "grafana/tdm_r1.json").read_text())["panels"]
    found += [target["expr"] for panel in panels for target in panel["targets"]]
    return [expr.replace("$__rate_interval", "5m") for expr in found]


def test_rules_and_panels_speak_of_metrics_that_there_are(client, live, tmp_path):
    database = Database.open(f"sqlite:///{tmp_path / 'labels.db'}")
    known = database.read_now(lambda session: known_to_the_store(session, utc_now()))
    database.close()
    text = scraped(client) + Scrape(label_metrics.REGISTRY, known).text().decode()
    told = set(re.findall(r"^# TYPE (\w+)", text, re.M))
    told |= {f"{name}_bucket" for name in told} | {"tdmr1_agreement_alpha"}  # absent without labels
    named = set(re.findall(r"\b(?:tdmr1|node)_\w+", " ".join(expressions())))
    assert len(named) > 15
    assert named - told - ELSEWHERE == set()


def test_every_alert_says_what_helps():
    for group in yaml.safe_load(RULES.read_text())["groups"]:
        for rule in group["rules"]:
            assert set(rule["annotations"]) == {"summary", "remedy"}
            assert rule["labels"]["severity"] in ("warning", "critical")


def test_prometheus_itself_takes_the_rules_and_every_expression(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    rules = [{"record": f"panel:{n}", "expr": e} for n, e in enumerate(expressions())]
    asked = tmp_path / "panels.yml"
    asked.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    config = DEPLOY / "prometheus/prometheus.yml"
    for command in (["rules", RULES], ["rules", asked], ["config", config]):
        done = subprocess.run([promtool, "check", *command], capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
