"""docs/labels.md: its curl examples run, in order, against a live service."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from services.labels.settings import Settings
from tests.labels.live import png
from tests.labels.people import make_key

pytestmark = pytest.mark.integration
DOC = Path(__file__).parents[2] / "docs" / "labels.md"


@pytest.fixture
def database_url(one_database_url):
    return one_database_url


@pytest.fixture
def settings(tmp_path, database_url):
    return Settings(data_dir=tmp_path / "data", database_url=database_url, gold_rate=0)


def test_every_curl_example_runs(live_server, keys, database, clock, tmp_path):
    if not (shutil.which("curl") and shutil.which("jq")):
        pytest.skip("curl or jq is not installed")
    (tmp_path / "picture.png").write_bytes(png(1))
    blocks = re.findall(r"```bash\n(.*?)```", DOC.read_text(), flags=re.DOTALL)
    assert len(blocks) == 9
    app = make_key(database, "service", clock(), "labels:on_behalf")
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\necho\n".join(blocks)],
        cwd=tmp_path,
        env={**os.environ, "URL": f"{live_server}/api/v1", "ADMIN": keys["admin"], "APP": app},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = done.stdout
    assert '"status":404' in said  # the label on no such image
    assert '"value":"unsure"' in said
    assert '"answer":"dislike"' in said
    assert '"state": "ready"' in said
    assert '"results":[{"receipt"' in said
    assert 'data: {"seq":' in said
    assert '"image_index": 0' in said
