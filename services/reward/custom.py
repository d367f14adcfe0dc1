"""Your own code as a reward: `python:module:Class`, found from the job's working directory."""

import importlib
import inspect
import os
import sys
from typing import Any


def load_attribute(kind: str) -> Any:
    """What `python:module:name` names; ValueError where there is no such module or name."""
    prefix, _, rest = kind.partition(":")
    module_name, _, name = rest.partition(":")
    if prefix != "python" or not module_name or not name or ":" in name:
        raise ValueError(f"{kind!r} names no code; write python:my_module:MyReward")
    # A console script does not have the working directory on its path. Last, so that no file
    # there hides an installed package.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # the module is there; something that it imports is not
        raise ValueError(
            f"{kind!r}: no module {error.name!r} in {os.getcwd()} or among the installed packages; "
            "start the job in the folder that holds it"
        ) from error
    if not hasattr(module, name):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise ValueError(
            f"{kind!r}: module {module_name!r} has no {name!r}; "
            f"its classes are {', '.join(classes) or 'none'}"
        )
    return getattr(module, name)


def load_class(kind: str) -> type:
    """The class that `python:module:Class` names; ValueError where it is not one."""
    found = load_attribute(kind)
    if not inspect.isclass(found):
        raise ValueError(f"{kind!r} is {found!r}, not a class; name a class that has evaluate()")
    return found
