"""Deployment files, as far as they can be judged without running a container."""

import json
import re
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml
from sqlalchemy import make_url
from typer.main import get_command

from services.cli import app
from services.labels.settings import Settings as LabelSettings
from services.runs_api.settings import Settings as RunsSettings
from services.web.hosts import LOOPBACK

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SCHEMA = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
PEOPLE = ("labels", "dashboard")
"""Services that people reach."""
DATABASE = "labels-database"
DASHBOARD = list(yaml.safe_load_all((ROOT / "deploy/kubernetes/dashboard.yaml").read_text()))
KUBERAY = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "deploy/kuberay").iterdir())]


def clusters():
    for document in KUBERAY:
        yield document["spec"].get("rayClusterSpec", document["spec"])


def groups():
    for cluster in clusters():
        yield cluster["headGroupSpec"]
        yield from cluster["workerGroupSpecs"]


def pods():
    yield from (group["template"]["spec"] for group in groups())
    yield DASHBOARD[0]["spec"]["template"]["spec"]


def test_the_compose_file_follows_the_compose_specification():
    # The schema does not know that `x-` keys are merged; the loader has merged them already.
    jsonschema.validate(COMPOSE, json.loads(SCHEMA.read_text()))


def test_the_schema_would_notice_a_mistake():
    broken = COMPOSE | {"services": {"head": {"imge": "x"}}}
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, json.loads(SCHEMA.read_text()))


def test_every_published_port_is_on_the_loopback():
    ports = [port for service in COMPOSE["services"].values() for port in service.get("ports", [])]
    assert ports
    assert [port for port in ports if not str(port).startswith("127.0.0.1:")] == []


def test_every_service_is_without_rights():
    for name, service in COMPOSE["services"].items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service.get("privileged") is None, name


def test_every_node_of_the_cluster_speaks_ray_with_a_token():
    nodes = COMPOSE["services"].keys() - {*PEOPLE, DATABASE}
    for name in nodes:
        service = COMPOSE["services"][name]
        assert service["environment"]["RAY_AUTH_MODE"] == "token", name
        assert service["secrets"] == ["ray_token"], name


@pytest.mark.parametrize("name", PEOPLE)
def test_the_labels_database_is_reached_through_a_socket_and_no_network(name):
    service, database = (COMPOSE["services"][each] for each in (name, DATABASE))
    assert database["network_mode"] == "none"
    assert "ports" not in database
    assert "listen_addresses=" in database["command"]
    url = make_url(service["environment"]["TDMR1_DATABASE_URL"])
    socket = f"labels-database-socket:{url.query['host']}"
    assert socket in service["volumes"]
    assert socket in database["volumes"]
    assert url.username == url.database == database["environment"]["POSTGRES_USER"]
    assert service["depends_on"] == {DATABASE: {"condition": "service_healthy"}}


@pytest.mark.parametrize("name", PEOPLE)
def test_what_people_reach_is_a_command_with_these_options_at_the_port_that_it_publishes(name):
    service = COMPOSE["services"][name]
    (line,) = service["command"]
    called, _, more = line.partition(" ${")
    assert more == f"{name.upper()}_OPTIONS:-}}"
    words = called.split()
    assert words[:2] == ["exec", "tdm-r1"]
    command = get_command(app).commands[words[2]]
    given = command.make_context(words[2], words[3:], resilient_parsing=True).params
    assert given["host"] == "0.0.0.0"
    assert given["allowed_host"] == [name]
    folders = [volume.partition(":")[2] for volume in service["volumes"]]
    assert str(given["data" if name == "labels" else "runs"]) in folders
    port = {"labels": LabelSettings, "dashboard": RunsSettings}[name]().port
    assert service["ports"] == [f"127.0.0.1:{port}:{port}"]
    assert f"http://localhost:{port}/" in service["healthcheck"]["test"][1]


def test_the_dashboard_has_the_runs_of_the_cluster():
    services = COMPOSE["services"]
    assert "runs:/runs" in services["dashboard"]["volumes"]
    assert all("runs:/runs" in services[name]["volumes"] for name in ("head", "worker", "train"))


def test_no_secret_is_written_into_the_files():
    assert "ray_token" in (ROOT / ".gitignore").read_text()
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"RAY_AUTH_TOKEN:|[0-9a-f]{32}", text)


def test_compose_and_kubernetes_name_the_image_that_the_version_does():
    version = re.search(r'version = "([^"]+)"', (ROOT / "pyproject.toml").read_text())[1]
    images = {s["image"] for name, s in COMPOSE["services"].items() if name != DATABASE}
    for spec in pods():
        images |= {c["image"] for c in spec["containers"]}
    assert images == {f"tdm-r1:{version}"}


def test_kubernetes_clusters_want_a_token_and_the_locked_ray():
    locked = re.search(r"^ray==(.*)$", (ROOT / "requirements.lock").read_text(), re.M)[1]
    for cluster in clusters():
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["rayVersion"] == locked


def test_kubernetes_pods_are_not_root_and_have_limits():
    for spec in pods():
        assert spec["securityContext"]["runAsNonRoot"]
        for container in spec["containers"]:
            assert container["resources"]["limits"] == container["resources"]["requests"]
        mounted = {mount["name"] for c in spec["containers"] for mount in c["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


def test_the_dashboards_pod_is_reached_and_asked_by_the_names_that_it_answers_to():
    deployment, service = DASHBOARD
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    (line,) = container["args"]
    command = get_command(app).commands["dashboard"]
    given = command.make_context("dashboard", line.split()[3:], resilient_parsing=True).params
    hosts, port = (*LOOPBACK, *given["allowed_host"]), RunsSettings().port
    for probe in (container["readinessProbe"], container["livenessProbe"]):
        assert probe["httpGet"]["port"] == container["ports"][0]["containerPort"] == port
        (header,) = probe["httpGet"]["httpHeaders"]
        assert header["name"] == "Host"
        assert header["value"] in hosts
    assert service["metadata"]["name"] in hosts
    assert service["spec"]["ports"][0]["port"] == port
    assert service["spec"]["selector"] == deployment["spec"]["template"]["metadata"]["labels"]


def test_the_image_installs_what_is_locked_and_runs_without_root():
    lines = (ROOT / "deploy/docker/Dockerfile").read_text()
    assert "torch==2.13.0" in lines
    assert "-c requirements.lock" in lines
    assert re.search(r"^USER (?!root)", lines, re.M)


def test_configs_that_the_files_name_are_there():
    texts = [(ROOT / "docker-compose.yml").read_text()]
    texts += [path.read_text() for path in (ROOT / "deploy").rglob("*") if path.is_file()]
    named = {name for text in texts for name in re.findall(r"configs/\w+\.yaml", text)}
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []
