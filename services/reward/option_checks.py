"""Checks of options that several rewards have; a ValueError says what is allowed."""

import math
import os
from typing import Any


def check_seconds(**options: Any) -> None:
    """Each is a number of seconds above 0."""
    for name, value in options.items():
        if type(value) not in (int, float) or not 0 < value < math.inf:
            raise ValueError(f"option {name}={value!r}: allowed are seconds above 0")


def check_whole(least: int, **options: Any) -> None:
    """Each is a whole number from `least`."""
    for name, value in options.items():
        if type(value) is not int or value < least:
            raise ValueError(f"option {name}={value!r}: allowed is a whole number from {least}")


def api_key(variable: str | None) -> str:
    """The key that an environment variable of the worker's machine holds; empty without a name.

    ValueError, which does not show the key, where there is none or no header could carry it.
    """
    if variable is None:
        return ""
    key = os.environ.get(variable, "").strip()
    if not key:
        raise ValueError(
            f"option api_key_env={variable!r}: that environment variable is not set; "
            "export it where the job starts, or leave the option out"
        )
    if not all("!" <= letter <= "~" for letter in key):
        raise ValueError(
            f"option api_key_env={variable!r}: the key in that environment variable has characters "
            "other than visible ASCII (a space, a line break, a letter with an accent); export the "
            "key alone"
        )
    return key
