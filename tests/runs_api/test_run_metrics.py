"""Live runs for Prometheus, and what deploy/ makes of their metrics: alert rules and panels."""

import json
import re
import shutil
import subprocess
import time
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


AGREEMENT = "surrogate/agreement/step_3"


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
    lines = [json.loads(line) for line in live.metrics.read_text().splitlines()]
    told = [each[AGREEMENT] for each in lines if AGREEMENT in each]
    agreement = f'tdmr1_surrogate_agreement_ratio{{denoise_step="3",{run}}}'
    assert told
    assert value_of(text, agreement) == told[-1]
    assert value_of(text, f'tdmr1_worker_up{{role="replay",{run},worker="replay"}}') == 1
    assert value_of(text, f"tdmr1_checkpoint_bytes{{{run}}}") > 0


def test_what_a_run_told_line_by_line_adds_up(client, live):
    text, run = scraped(client), f'run="{live.id}"'
    lines = [json.loads(line) for line in live.metrics.read_text().splitlines()]
    images = sum(line.get("rollout/images", 0) for line in lines)
    assert value_of(text, f"tdmr1_images_generated_total{{{run}}}") == images > 0
    asked = f'tdmr1_remote_reward_requests_total{{outcome="ready",reward="upper_half",{run}}}'
    assert value_of(text, asked) == images
    assert value_of(text, f"tdmr1_train_step_seconds_count{{{run}}}") == 6
    took = sum(line["seconds/generator"] for line in lines if "seconds/generator" in line)
    phase = f'tdmr1_phase_seconds_sum{{phase="generator",{run}}}'
    assert value_of(text, phase) == pytest.approx(took)
    fresh = f'tdmr1_staleness_steps_bucket{{le="0.0",learner="generator",{run}}}'
    assert value_of(text, fresh) == 6 * 4  # groups, on-policy
    batches = sum(line["reward/upper_half/batches"] for line in lines if "rollout/images" in line)
    judged = f'tdmr1_remote_reward_seconds_count{{reward="upper_half",{run}}}'
    assert value_of(text, judged) == batches
    assert value_of(text, f"tdmr1_weight_sync_seconds_count{{{run}}}") >= 6


def test_a_scrape_reads_only_what_is_new(client, live):
    scraped(client)
    run = client.app.state.library.find(live.id)
    with run.tally.looked_at() as tally:
        position = tally.position
    assert position == live.metrics.stat().st_size
    last = json.loads(live.metrics.read_text().splitlines()[-1])
    with live.metrics.open("a") as file:
        file.write(json.dumps(last | {"step": 7, "rollout/images": 5}) + "\n")
    before = live.metrics.read_bytes()[:position]
    live.metrics.write_bytes(b" " * (position - 1) + b"\n" + live.metrics.read_bytes()[position:])
    images = sum(json.loads(line).get("rollout/images", 0) for line in before.splitlines())
    text = scraped(client)
    assert value_of(text, f'tdmr1_images_generated_total{{run="{live.id}"}}') == images + 5


def test_the_disk_and_heartbeats_are_told(client, live):
    text, now = scraped(client), time.time()
    usage = shutil.disk_usage(live.path)
    assert value_of(text, "tdmr1_disk_size_bytes") == usage.total
    heard_at = live.status()["workers"]["replay"]["heard_at"]
    sample = f'tdmr1_worker_heartbeat_age_seconds{{role="replay",run="{live.id}",worker="replay"}}'
    assert value_of(text, sample) == pytest.approx(now - heard_at, abs=5)


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
    assert labels <= known | {"reason", "outcome", "route", "method", "status", "le"}


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
    parts = {f"{name}_{part}" for name in told for part in ("bucket", "sum", "count")}
    told |= parts | {"tdmr1_agreement_alpha"}  # absent without labels
    named = set(re.findall(r"\btdmr1_\w+", " ".join(expressions())))
    assert len(named) > 15
    assert named - told == set()


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


RUN = 'run="toy"'
FIRING = {
    "NoIteration": [
        ("tdmr1_last_step_timestamp_seconds", RUN, "0x60"),
        ("tdmr1_train_step_seconds_bucket", f'{RUN},le="5"', "0x60"),
        ("tdmr1_train_step_seconds_bucket", f'{RUN},le="10"', "20x60"),
        ("tdmr1_train_step_seconds_bucket", f'{RUN},le="+Inf"', "20x60"),
    ],
    "WorkerSilent": [("tdmr1_worker_heartbeat_age_seconds", f'{RUN},worker="a"', "0+60x60")],
    "RewardQueueGrows": [("tdmr1_remote_reward_queue_depth", f'{RUN},reward="ocr"', "0+100x60")],
    "DiskAlmostFull": [
        ("tdmr1_disk_free_bytes", "", "5x60"),
        ("tdmr1_disk_size_bytes", "", "100x60"),
    ],
}
"""Alert to series that raise it, a value a minute."""
CALM = [
    ("tdmr1_last_step_timestamp_seconds", RUN, "0+60x60"),
    ("tdmr1_train_step_seconds_bucket", f'{RUN},le="100"', "20x60"),
    ("tdmr1_train_step_seconds_bucket", f'{RUN},le="+Inf"', "20x60"),
    ("tdmr1_worker_heartbeat_age_seconds", f'{RUN},worker="a"', "5x60"),
    ("tdmr1_remote_reward_queue_depth", f'{RUN},reward="ocr"', "200x60"),
    ("tdmr1_disk_free_bytes", "", "50x60"),
    ("tdmr1_disk_size_bytes", "", "100x60"),
]


def test_alerts_fire_when_they_should_and_not_otherwise(tmp_path):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed")
    calm = [_case(CALM, f"ALERTS{{alertname='{name}'}}", 0) for name in FIRING]
    firing = [
        _case(series, f"ALERTS{{alertname='{name}',alertstate='firing'}}", 1)
        for name, series in FIRING.items()
    ]
    asked = {"rule_files": [str(RULES)], "evaluation_interval": "1m", "tests": calm + firing}
    path = tmp_path / "tests.yml"
    path.write_text(yaml.safe_dump(asked))
    done = subprocess.run([promtool, "test", "rules", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def _case(series, expr, count):
    samples = [{"labels": "{}", "value": count}] if count else []
    return {
        "interval": "1m",
        "input_series": [{"series": f"{n}{{{labels}}}", "values": v} for n, labels, v in series],
        "promql_expr_test": [
            {"expr": f"count({expr})", "eval_time": "40m", "exp_samples": samples}
        ],
    }
