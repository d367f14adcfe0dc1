"""Commands to a run, through its durable inbox, and what became of them."""

from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response

from services.run_store import commands
from services.run_store.arguments import RefusedError, checked
from services.run_store.commands import Command
from services.run_store.run_folder import ENDED
from services.runs_api.library import OpenRun
from services.runs_api.routes.access import WATCHER, Run
from services.runs_api.schemas.commands import CommandIn, CommandList, CommandView
from services.web import etags
from services.web.answers import answer
from services.web.auth import Principal, require
from services.web.idempotency import IDEMPOTENT, own_key
from services.web.problems import Problem, problems

router = APIRouter(prefix="/runs/{run_id}/commands", tags=["commands"])


@router.post(
    "",
    operation_id="command_run",
    status_code=202,
    response_model=CommandView,
    responses=problems(409),
    dependencies=[IDEMPOTENT],
)
def command_run(
    *, principal: Principal = require("admin"), run: Run, body: CommandIn, request: Request
) -> Response:
    """Ask a run to do something. 202: it is on the disk, and the run answers between iterations;
    GET the Location for how far it has come. The same Idempotency-Key is the same command."""
    command = request_once(run, body, principal.actor, own_key(request, principal))
    location = f"{request.url.path}/{command.id}"
    return answer(CommandView.of(command), 202, location=location)


def request_once(run: OpenRun, body: CommandIn, by: str, key: str) -> Command:
    """The command under this key, asked for now if it was not before."""
    with run.commanding():
        return _request(run, body, by, key)


def _request(run: OpenRun, body: CommandIn, by: str, key: str) -> Command:
    try:
        arguments = checked(body.type, body.arguments)
    except RefusedError as refusal:
        raise Problem(422, "not-allowed", "The command cannot be meant", str(refusal)) from None
    known = next((each for each in commands.history(run.folder.path) if each.key == key), None)
    if known is not None:
        if not _is_same(known, body, arguments):
            detail = (
                f"this Idempotency-Key came with type {known.type}{_arguments(known)} and "
                f"timeout_s {_timeout_s(known):g} before; use a fresh key"
            )
            raise Problem(422, "idempotency-key-reused", "Another body under this key", detail)
        return known
    state = run.facts()["state"]
    if state in ENDED:
        detail = f"run {run.id} is {state}; nobody is there to {body.type}"
        raise Problem(409, "run-ended", "The run has ended", detail)
    identity = commands.request(
        run.folder.path, body.type, arguments, timeout_s=body.timeout_s, by=by, key=key
    )
    return commands.read(run.folder.path, identity)


def _is_same(known: Command, body: CommandIn, arguments: Mapping[str, Any]) -> bool:
    is_same = known.type == body.type and known.arguments == arguments
    return is_same and abs(_timeout_s(known) - body.timeout_s) < 1e-3


def _arguments(command: Command) -> str:
    return f" of {dict(command.arguments)}" if command.arguments else ""


def _timeout_s(command: Command) -> float:
    """As it was asked for, but for the rounding of its two times."""
    return command.times["expires"] - command.times["requested"]


@router.get("", operation_id="list_commands", response_model=CommandList, responses=problems())
def list_commands(*, _: Principal = WATCHER, run: Run) -> Response:
    """Every command that the run was ever given, the newest first."""
    found = commands.history(run.folder.path)
    return answer(CommandList(items=[CommandView.of(command) for command in found]))


@router.get(
    "/{command_id}",
    operation_id="get_command",
    response_model=CommandView,
    responses={304: {"description": "You have it"}, **problems()},
)
def get_command(
    *,
    _: Principal = WATCHER,
    run: Run,
    request: Request,
    command_id: Annotated[str, Path(pattern=r"^[0-9]{20}-[0-9a-f]{8}$")],
) -> Response:
    """A command as it stands."""
    known = {command.id: command for command in commands.history(run.folder.path)}
    if command_id not in known:
        detail = f"run {run.id} was never given command {command_id}"
        raise Problem(404, "command-not-found", "No such command", detail)
    return etags.by_content(request, answer(CommandView.of(known[command_id])))
