"""Writes docs/http_reward.json anew (`make openapi`); its diff says what scorers will notice."""

import json
from pathlib import Path

from services.reward.http_wire import wire_schema

PATH = Path(__file__).parents[2] / "docs/http_reward.json"

if __name__ == "__main__":
    PATH.write_text(json.dumps(wire_schema(), indent=1, sort_keys=True) + "\n")
