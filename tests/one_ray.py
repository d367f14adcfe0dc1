"""A Ray of this machine for the tests of a module: runs join it and leave it running."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from services.runtime.cluster import leave


@contextmanager
def one_ray(num_cpus: int) -> Iterator[None]:
    """Ray with so many CPUs, real or not, for as long as the `with` lasts."""
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp") as folder:
        ray.init(
            address="local",
            num_cpus=num_cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="error",
            object_store_memory=100_000_000,
            _temp_dir=folder,
        )
        try:
            yield
        finally:
            leave()
