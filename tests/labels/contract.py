"""Schemathesis on one operation: requests that its schema allows, and ones that it does not."""

from collections.abc import Callable
from typing import Any

import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.strategies import one_of
from schemathesis import GenerationMode
from schemathesis.checks import positive_data_acceptance
from schemathesis.config import GenerationConfig, ProjectConfig, ProjectsConfig, SchemathesisConfig

CONFIG = SchemathesisConfig(
    seed=1,
    projects=ProjectsConfig(
        default=ProjectConfig(
            generation=GenerationConfig(deterministic=True, with_security_parameters=False)
        )
    ),
)


def schema_of(app: FastAPI) -> Any:
    """What the app says of itself; an operation is `[path][method]` of it."""
    return schemathesis.openapi.from_asgi("/api/v1/openapi.json", app, config=CONFIG)


def check_operation(
    operation: Any, headers: dict[str, str], num_requests: int, amend: Callable[[Any], None]
) -> None:
    """Send requests, each after `amend`. Not every one that is well-formed can succeed, since only
    the database knows ids, cursors and digests, so that check is left out."""

    @seed(1)
    @settings(
        max_examples=num_requests,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(one_of(operation.as_strategy(generation_mode=mode) for mode in GenerationMode))
    def ask(case: Any) -> None:
        amend(case)
        case.call_and_validate(headers=headers, excluded_checks=[positive_data_acceptance])

    ask()
