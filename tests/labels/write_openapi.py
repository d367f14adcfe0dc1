"""Writes docs/openapi*.json anew (`make openapi`); their diff says what clients will notice."""

import json
import tempfile
from pathlib import Path
from typing import Any

from services.labels.app import create_app
from services.labels.settings import Settings
from services.runs_api import app as runs_api
from services.runs_api.settings import Settings as RunsSettings
from tests.runs_api.people import Keys

DOCS = Path(__file__).parents[2] / "docs"
LABELS, RUNS = DOCS / "openapi.json", DOCS / "openapi_runs.json"


def document(path: Path = LABELS) -> dict[str, Any]:
    """What the app whose document that is says of itself."""
    if path == RUNS:
        return runs_api.create_app(RunsSettings(), Keys(())).openapi()
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder)))
        try:
            return app.openapi()
        finally:
            app.state.database.close()


if __name__ == "__main__":
    for path in (LABELS, RUNS):
        path.write_text(json.dumps(document(path), indent=1, sort_keys=True) + "\n")
