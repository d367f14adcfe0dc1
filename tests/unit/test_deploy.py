"""Deployment files, as far as they can be judged without running a container."""

import json
import re
from importlib.resources import files
from pathlib import Path

import jsonschema
import pytest
import yaml
from sqlalchemy import make_url

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SCHEMA = files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
KUBERAY = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "deploy/kuberay").iterdir())]


def clusters():
    for document in KUBERAY:
        yield document["spec"].get("rayClusterSpec", document["spec"])


def groups():
    for cluster in clusters():
        yield cluster["headGroupSpec"]
        yield from cluster["workerGroupSpecs"]


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
    nodes = COMPOSE["services"].keys() - {"labels", "labels-database"}
    for name in nodes:
        service = COMPOSE["services"][name]
        assert service["environment"]["RAY_AUTH_MODE"] == "token", name
        assert service["secrets"] == ["ray_token"], name


def test_the_labels_database_is_reached_through_a_socket_and_no_network():
    labels, database = (COMPOSE["services"][name] for name in ("labels", "labels-database"))
    assert database["network_mode"] == "none"
    assert "ports" not in database
    assert "listen_addresses=" in database["command"]
    url = make_url(labels["environment"]["TDMR1_DATABASE_URL"])
    socket = f"labels-database-socket:{url.query['host']}"
    assert socket in labels["volumes"]
    assert socket in database["volumes"]
    assert url.username == url.database == database["environment"]["POSTGRES_USER"]


def test_no_secret_is_written_into_the_files():
    assert "ray_token" in (ROOT / ".gitignore").read_text()
    text = (ROOT / "docker-compose.yml").read_text()
    assert not re.search(r"RAY_AUTH_TOKEN:|[0-9a-f]{32}", text)


def test_compose_and_kubernetes_name_the_image_that_the_version_does():
    version = re.search(r'version = "([^"]+)"', (ROOT / "pyproject.toml").read_text())[1]
    images = {s["image"] for name, s in COMPOSE["services"].items() if name != "labels-database"}
    for group in groups():
        images |= {c["image"] for c in group["template"]["spec"]["containers"]}
    assert images == {f"tdm-r1:{version}"}


def test_kubernetes_clusters_want_a_token_and_the_locked_ray():
    locked = re.search(r"^ray==(.*)$", (ROOT / "requirements.lock").read_text(), re.M)[1]
    for cluster in clusters():
        assert cluster["authOptions"] == {"mode": "token"}
        assert cluster["rayVersion"] == locked


def test_kubernetes_pods_are_not_root_and_have_limits():
    for group in groups():
        spec = group["template"]["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        for container in spec["containers"]:
            assert container["resources"]["limits"] == container["resources"]["requests"]
        mounted = {mount["name"] for c in spec["containers"] for mount in c["volumeMounts"]}
        assert mounted == {volume["name"] for volume in spec["volumes"]}


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
