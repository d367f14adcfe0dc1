"""Writes docs/openapi.json anew (`make openapi`); its diff says what clients will notice."""

import json
import tempfile
from pathlib import Path
from typing import Any

from services.labels.app import create_app
from services.labels.settings import Settings

PATH = Path(__file__).parents[2] / "docs/openapi.json"


def document() -> dict[str, Any]:
    """What the app says of itself."""
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(Settings(data_dir=Path(folder)))
        try:
            return app.openapi()
        finally:
            app.state.database.close()


if __name__ == "__main__":
    PATH.write_text(json.dumps(document(), indent=1, sort_keys=True) + "\n")
