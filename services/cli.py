"""The command line, `tdm-r1`: names, options and help; what commands do is in services/commands.

Nothing heavy is imported before a command runs, so that `--help` is quick. A person's mistake
(ValueError) is one message and exit code 2; Ctrl-C is 130; a fault of ours keeps its traceback, 1.
"""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup


class _Group(TyperGroup):
    """Turns errors meant for people into messages."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except ValueError as error:
            typer.echo(f"error: {error}", err=True)
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            typer.echo("interrupted", err=True)
            raise typer.Exit(130) from error


app = typer.Typer(
    name="tdm-r1",
    cls=_Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Reinforce few-step image generators with rewards nobody can differentiate.",
)

ConfigFile = Annotated[str, typer.Argument(help="YAML file, such as configs/demo.yaml")]
Overrides = Annotated[
    list[str] | None, typer.Argument(help="key.subkey=value, over what the file says")
]
Runs = Annotated[Path, typer.Option("--runs", help="folder that holds the run folders")]
Run = Annotated[str, typer.Argument(help="run id, run folder, or `latest`")]
Source = Annotated[
    str, typer.Argument(help="run id, `latest`, `promoted`, or a run, checkpoint, export")
]
AsJson = Annotated[bool, typer.Option("--json", help="for scripts: one JSON document on stdout")]
Wait = Annotated[float, typer.Option(help="seconds to wait until the run has done it; 0 does not")]
Weights = Annotated[
    str,
    typer.Option(help="ema (the moving average, which evaluations score) or generator"),
]
Checkpoint = Annotated[
    str | None, typer.Option(help="step, checkpoint folder or `promoted`; the newest if not given")
]
RUNS = Path("runs")
Data = Annotated[
    Path | None, typer.Option("--data", help="folder of the labels; ./labels if not given")
]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="TDMR1_DATABASE_URL",
        show_envvar=True,
        help="sqlite:///PATH or postgresql+psycopg://...; DATA/labels.db if not given",
    ),
]
SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", help="YAML file of the label service's and dashboard's settings"),
]
Host = Annotated[str | None, typer.Option(help="address to listen on; 127.0.0.1 if not given")]
AllowedHosts = Annotated[
    list[str] | None,
    typer.Option("--allowed-host", help="name that browsers may call it by; repeatable"),
]
TrustedProxies = Annotated[
    list[str] | None,
    typer.Option(
        "--trusted-proxy",
        help="address or network whose X-Forwarded-For and -Proto are believed; repeatable",
    ),
]
ScrapeToken = Annotated[
    str | None,
    typer.Option(envvar="TDMR1_SCRAPE_TOKEN", help="opens /metrics to other machines"),
]


@app.command()
def demo(
    overrides: Overrides = None,
    world: Annotated[
        str, typer.Option(help="stickers, judged by a detector, or words, read by an OCR engine")
    ] = "stickers",
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Train a bundled tiny world on this machine and show what it did to the pictures."""
    from services.commands.demo import demo as run

    raise typer.Exit(run(world, overrides or [], runs, as_json))


@app.command()
def train(
    config: ConfigFile,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="show the resolved config, placement and memory")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Train a config to its end, on Ray or in this process."""
    from services.commands.train import dry_run as show_plan
    from services.commands.train import train as run

    if dry_run:
        show_plan(config, overrides or [], as_json)
    else:
        raise typer.Exit(run(config, overrides or [], as_json))


@app.command()
def submit(
    config: ConfigFile,
    overrides: Overrides = None,
    address: Annotated[str, typer.Option(help="Ray's jobs address")] = "http://127.0.0.1:8265",
    working_dir: Annotated[Path, typer.Option(help="folder that travels to the cluster")] = Path(),
    follow: Annotated[bool, typer.Option(help="show the job's log until it ends")] = False,
) -> None:
    """Hand a config to a Ray cluster as a job (wraps `ray job submit`)."""
    from services.commands.submit import submit as run

    raise typer.Exit(run(config, overrides or [], address, working_dir, follow))


@app.command()
def status(
    run: Annotated[
        str | None, typer.Argument(help="run id, folder or `latest`; all if none")
    ] = None,
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """What runs are doing: state, iteration, newest rewards, age of that news."""
    from services.commands.status import status as show_status

    show_status(run, runs, as_json)


@app.command()
def logs(
    run: Run = "latest",
    runs: Runs = RUNS,
    lines: Annotated[int, typer.Option("--lines", "-n", help="newest lines; 0 is all")] = 50,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="until the run ends")] = False,
    metrics: Annotated[bool, typer.Option(help="metrics.jsonl instead of events.log")] = False,
) -> None:
    """What a run has said."""
    from services.commands.status import logs as show_logs

    show_logs(run, runs, lines, follow, metrics)


@app.command()
def pause(run: Run = "latest", runs: Runs = RUNS, wait: Wait = 60, as_json: AsJson = False) -> None:
    """Let a run finish its iteration and wait."""
    _control("pause", run, runs, wait, as_json)


@app.command()
def unpause(
    run: Run = "latest", runs: Runs = RUNS, wait: Wait = 60, as_json: AsJson = False
) -> None:
    """Let a paused run go on."""
    _control("unpause", run, runs, wait, as_json)


@app.command()
def stop(run: Run = "latest", runs: Runs = RUNS, wait: Wait = 60, as_json: AsJson = False) -> None:
    """End a run after its iteration, with a checkpoint."""
    _control("stop", run, runs, wait, as_json)


@app.command("set")
def set_(
    run: Run,
    values: Annotated[list[str], typer.Argument(help="key=value, such as checkpoint.every=50")],
    runs: Runs = RUNS,
    wait: Wait = 60,
    as_json: AsJson = False,
) -> None:
    """Change live parameters of a run, such as a learning rate; it refuses others."""
    from services.commands.control import values_of

    _control("set", run, runs, wait, as_json, values_of(values))


@app.command()
def scale(
    run: Run,
    pool: Annotated[str, typer.Argument(help="rollout, or a reward's name")],
    workers: Annotated[str, typer.Argument(help="how many; of a reward also `auto`, by its queue")],
    runs: Runs = RUNS,
    wait: Wait = 60,
    as_json: AsJson = False,
) -> None:
    """Have so many workers generate, or judge by a reward, on Ray, within the config's bounds."""
    _control("scale", run, runs, wait, as_json, {"pool": pool, "workers": workers})


@app.command()
def promote(
    run: Run,
    checkpoint: Annotated[str, typer.Argument(help="its step, or its folder's name")],
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Mark the checkpoint of a run that you stand by; the run never removes it."""
    from services.commands.promote import promote as mark

    mark(run, runs, checkpoint, as_json)


def _control(
    command: str,
    run: str,
    runs: Path,
    wait: float,
    as_json: bool,
    arguments: dict[str, Any] | None = None,
) -> None:
    from services.commands.control import control

    control(command, run, runs, wait, as_json, arguments)


@app.command()
def sample(
    source: Source = "latest",
    prompt: Annotated[
        list[str] | None, typer.Option("--prompt", "-p", help="may be given several times")
    ] = None,
    prompts: Annotated[Path | None, typer.Option(help="file of prompts, .txt or .jsonl")] = None,
    num_images: Annotated[int, typer.Option("--num-images", "-n", help="images a prompt")] = 1,
    seed: Annotated[int, typer.Option(help="key of the noise")] = 0,
    out: Annotated[Path, typer.Option(help="folder for the PNG files")] = Path("samples"),
    weights: Weights = "ema",
    checkpoint: Checkpoint = None,
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Draw images from a run, a checkpoint or an export."""
    from services.commands.sample import sample as run

    run(
        source,
        runs,
        prompt or [],
        prompts,
        num_images,
        seed,
        out,
        weights,
        checkpoint,
        as_json,
    )


@app.command(name="eval")
def evaluate(
    run: Run = "latest",
    num_images: Annotated[
        int | None, typer.Option("--num-images", "-n", help="the config's number if not given")
    ] = None,
    weights: Annotated[
        str, typer.Option(help="ema, generator, start (before training) or teacher")
    ] = "ema",
    checkpoint: Checkpoint = None,
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Score a run's generator on its held-out prompts by its rewards."""
    from services.commands.evaluate import evaluate as run_evaluation

    run_evaluation(run, runs, num_images, weights, checkpoint, as_json)


@app.command()
def export(
    source: Source = "latest",
    out: Annotated[Path | None, typer.Option(help="new folder; RUN/export if not given")] = None,
    weights: Weights = "ema",
    checkpoint: Checkpoint = None,
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Write a run's generator as diffusers loads it: a LoRA, or a whole pipeline."""
    from services.commands.export import export as run

    run(source, runs, out, weights, checkpoint, as_json)


@app.command()
def prune(
    run: Run,
    last_iterations: Annotated[
        int | None, typer.Option(help="iterations whose images stay, the newest included")
    ] = None,
    max_bytes: Annotated[
        int | None, typer.Option(help="bytes of images at most; the oldest groups go")
    ] = None,
    only_count: Annotated[
        bool, typer.Option("--dry-run", help="say what would go, and remove nothing")
    ] = False,
    runs: Runs = RUNS,
    as_json: AsJson = False,
) -> None:
    """Remove old rollout images of a run that has ended; evaluations and labelled ones stay."""
    from services.commands.prune import prune as remove

    remove(run, runs, last_iterations, max_bytes, only_count, as_json)


@app.command()
def distill(
    config: ConfigFile,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(help="folder to write the student into")] = Path("student"),
    guidance: Annotated[
        float | None,
        typer.Option(help="the teacher's guidance scale that the student absorbs"),
    ] = None,
    fake_score_updates: Annotated[
        int, typer.Option(help="fake-score updates before each of the student")
    ] = 1,
) -> None:
    """Make a few-step student from the config's teacher (TDM), stored in bfloat16."""
    from services.commands.distill import distill as run

    run(config, overrides or [], out, guidance, fake_score_updates)


@app.command()
def reward(
    name: Annotated[
        str, typer.Argument(help="a kind, python:module:Class, or with --config a reward's name")
    ],
    images: Annotated[Path, typer.Option(help="folder of PNG, JPEG or WebP files")],
    options: Annotated[
        list[str] | None, typer.Argument(help="key=value, as under the reward's `options`")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help=".txt or .jsonl, a line an image; the PNGs' own text if not given"),
    ] = None,
    images_per_prompt: Annotated[
        int, typer.Option(help="images that follow one another under one line of --prompts")
    ] = 1,
    config: Annotated[
        str | None, typer.Option(help="YAML file of a run, to take the reward NAME from")
    ] = None,
    out: Annotated[Path, typer.Option(help="table, .csv or .jsonl")] = Path("rewards.csv"),
    format: Annotated[str | None, typer.Option(help="csv or jsonl; by --out's suffix")] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="picture of all by reward; --out as .png if not given")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="images a call of the reward")] = None,
    deadline_s: Annotated[float | None, typer.Option(help="seconds a call may take")] = None,
    as_json: AsJson = False,
) -> None:
    """Score a folder of images by a reward: a table, and a sheet of the best and the worst."""
    from services.commands.reward import reward as run

    settings = {"batch_size": batch_size, "deadline_s": deadline_s}
    code = run(
        name,
        options or [],
        config,
        images,
        prompts,
        images_per_prompt,
        out,
        format,
        sheet,
        settings,
        as_json,
    )
    raise typer.Exit(code)


@app.command()
def doctor(
    configs: Annotated[list[Path] | None, typer.Argument(help="configs to check too")] = None,
    as_json: AsJson = False,
) -> None:
    """Find what is wrong with this machine or a config, and say what helps."""
    from services.commands.doctor import doctor as run

    raise typer.Exit(run(configs or [], as_json))


@app.command()
def serve(
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="8321 if not given; 0 is any")] = None,
    data: Data = None,
    database_url: DatabaseUrl = None,
    settings: SettingsFile = None,
    allowed_host: AllowedHosts = None,
    trusted_proxy: TrustedProxies = None,
    scrape_token: ScrapeToken = None,
    runs: Annotated[
        Path | None, typer.Option(help="folder of run folders: starts `tdm-r1 dashboard` beside")
    ] = None,
    dashboard_port: Annotated[
        int | None, typer.Option(help="of that dashboard; 8322 if not given, 0 is any")
    ] = None,
) -> None:
    """Serve the label API and the labelling page; with --runs the dashboard too."""
    from services.commands.serve import serve as run
    from services.commands.settings import load

    web = _web(host, allowed_host, trusted_proxy, scrape_token)
    own = {"port": port, "data_dir": data, "database_url": database_url}
    found = load(settings, web | own, web | {"port": dashboard_port, "runs": runs})
    run(*found, beside=runs is not None)


@app.command()
def dashboard(
    runs: Annotated[
        Path | None, typer.Option(help="folder that holds the run folders; ./runs if not given")
    ] = None,
    host: Host = None,
    port: Annotated[int | None, typer.Option(help="8322 if not given; 0 is any")] = None,
    data: Data = None,
    database_url: DatabaseUrl = None,
    settings: SettingsFile = None,
    allowed_host: AllowedHosts = None,
    trusted_proxy: TrustedProxies = None,
    scrape_token: ScrapeToken = None,
    labels_url: Annotated[
        str | None,
        typer.Option(
            help="label service to show, where its database is not here: http://HOST:PORT"
        ),
    ] = None,
    labels_key: Annotated[
        str | None,
        typer.Option(envvar="TDMR1_LABELS_KEY", help="key of role viewer or admin there"),
    ] = None,
) -> None:
    """Serve the runs of a folder, finished or live; keys are those of the label service."""
    from services.commands.dashboard import dashboard as run
    from services.commands.settings import load

    web = _web(host, allowed_host, trusted_proxy, scrape_token)
    keys = {"data_dir": data, "database_url": database_url}
    own = {"port": port, "runs": runs, "labels_url": labels_url, "labels_key": labels_key}
    run(*load(settings, keys, web | own))


def _web(
    host: str | None, hosts: list[str] | None, proxies: list[str] | None, token: str | None
) -> dict[str, Any]:
    """What is said on the command line of either service's surroundings."""
    from services.web.hosts import LOOPBACK

    return {
        "host": host,
        "allowed_hosts": (*LOOPBACK, *hosts) if hosts else None,
        "trusted_proxies": proxies or None,
        "scrape_token": token,
    }


keys = typer.Typer(help="API keys and invites of the label service.", no_args_is_help=True)
app.add_typer(keys, name="keys")


@keys.command("create")
def create_key(
    name: Annotated[str, typer.Option(help="what or whom it is for")],
    role: Annotated[str, typer.Option(help="viewer, annotator, service or admin")],
    scope: Annotated[
        list[str] | None, typer.Option(help="labels:on_behalf (service), labels:push (annotator)")
    ] = None,
    annotator: Annotated[
        str | None, typer.Option(help="id of the person it labels as; a new one if not given")
    ] = None,
    days: Annotated[float, typer.Option(help="until it expires; 0 is never")] = 90,
    data: Data = None,
    database_url: DatabaseUrl = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a key; it is shown once."""
    from services.commands.keys import create

    found = _label_settings(settings, data, database_url)
    create(found, name, role, scope or [], annotator, days or None, as_json)


@keys.command("list")
def list_keys(
    data: Data = None,
    database_url: DatabaseUrl = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Show all keys but not their secrets."""
    from services.commands.keys import list_keys as run

    run(_label_settings(settings, data, database_url), as_json)


@keys.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="the part after tdmr1_, up to the next _")],
    data: Data = None,
    database_url: DatabaseUrl = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """End a key at once."""
    from services.commands.keys import revoke

    revoke(_label_settings(settings, data, database_url), key_id, as_json)


@keys.command("invite")
def invite(
    name: Annotated[str, typer.Argument(help="the person; seen by admins only")],
    role: Annotated[str, typer.Option(help="annotator, viewer or admin")] = "annotator",
    data: Data = None,
    database_url: DatabaseUrl = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Make a link that logs a new person's browser in, once."""
    from services.commands.keys import invite as run

    run(_label_settings(settings, data, database_url), name, role, as_json)


labels = typer.Typer(
    help="Labels to files and back; a crowd to try it with. The key is in TDMR1_LABELS_KEY.",
    no_args_is_help=True,
)
app.add_typer(labels, name="labels")

LabelUrl = Annotated[
    str, typer.Option("--url", envvar="TDMR1_LABELS_URL", help="where the label service is")
]
LABEL_URL = "http://127.0.0.1:8321"


@labels.command("import")
def import_labels(
    file: Annotated[Path, typer.Argument(help="labels.jsonl of an export")],
    url: LabelUrl = LABEL_URL,
    as_json: AsJson = False,
) -> None:
    """Push the rows of an export (a service key with labels:on_behalf). Doing it again is fine."""
    from services.commands.labels import import_labels as run

    raise typer.Exit(run(url, file, as_json))


@labels.command("export")
def export_labels(
    out: Annotated[Path, typer.Option(help="folder for the file and manifest.json")],
    format: Annotated[str, typer.Option(help="jsonl or csv")] = "jsonl",
    run: Annotated[str | None, typer.Option(help="only this run's")] = None,
    question: Annotated[str | None, typer.Option(help="only answers to this question")] = None,
    since_seq: Annotated[int | None, typer.Option(help="only labels after this number")] = None,
    gold: Annotated[bool, typer.Option(help="gold groups' labels too")] = False,
    retracted: Annotated[bool, typer.Option(help="retracted labels too")] = False,
    url: LabelUrl = LABEL_URL,
    as_json: AsJson = False,
) -> None:
    """Fetch labels as a file (an admin's key); people go by pseudonyms."""
    from services.commands.labels import export_labels as fetch

    filters = {
        "run_id": run,
        "question_id": question,
        "since_seq": since_seq,
        "include_gold": gold,
        "include_retracted": retracted,
    }
    fetch(url, out, format, filters, as_json)


@labels.command("stats")
def label_stats(url: LabelUrl = LABEL_URL, as_json: AsJson = False) -> None:
    """Count groups, labels and people, and look at the reward queue (an admin's key)."""
    from services.commands.labels import stats

    stats(url, as_json)


@labels.command("simulate")
def simulate(
    people: Annotated[int, typer.Option(help="how many")],
    taste: Annotated[
        str, typer.Option(help="python:module:function, pixels (H, W, 3) to P(like)")
    ] = "python:services.demo.taste:like_rate",
    seed: Annotated[int, typer.Option(help="key of everything that is drawn")] = 0,
    leniency: Annotated[float, typer.Option(help="sd over people, in logits")] = 0,
    spammers: Annotated[float, typer.Option(help="share who toss a coin")] = 0,
    quitters: Annotated[float, typer.Option(help="share who leave in the middle")] = 0,
    unsure: Annotated[float, typer.Option(help="share of answers that are unsure")] = 0,
    judged: Annotated[float, typer.Option(help="share of a group's images not skipped")] = 1,
    seconds: Annotated[float, typer.Option(help="median time an image takes")] = 0,
    question: Annotated[str | None, typer.Option(help="only this question's groups")] = None,
    idle: Annotated[float, typer.Option(help="seconds without work until they leave")] = 10,
    url: LabelUrl = LABEL_URL,
    as_json: AsJson = False,
) -> None:
    """Let simulated people label over HTTP (an admin's key), each with a key of a day."""
    from services.commands.labels import simulate as run
    from services.labels.crowd import CrowdConfig

    crowd = CrowdConfig(
        num_people=people,
        seed=seed,
        leniency_sd=leniency,
        spammers=spammers,
        quitters=quitters,
        judged=judged,
        unsure=unsure,
        median_s=seconds,
    )
    run(url, crowd, taste, question, idle, as_json)


@labels.command("backup")
def backup_labels(
    file: Annotated[Path, typer.Argument(help="new file; its manifest goes beside it")],
    data: Data = None,
    database_url: DatabaseUrl = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Copy the SQLite database while it is in use. Copy the folder of images after it."""
    from services.commands.labels import backup

    backup(_label_settings(settings, data, database_url), file, as_json)


@labels.command("restore")
def restore_labels(
    file: Annotated[Path, typer.Argument(help="what `labels backup` wrote")],
    verify: Annotated[bool, typer.Option(help="hold sums and counts against the manifest")] = True,
    data: Data = None,
    database_url: DatabaseUrl = None,
    settings: SettingsFile = None,
    as_json: AsJson = False,
) -> None:
    """Put a backup where no database is."""
    from services.commands.labels import restore

    restore(_label_settings(settings, data, database_url), file, verify, as_json)


def _label_settings(settings: Path | None, data: Path | None, database_url: str | None) -> Any:
    from services.commands.settings import load

    found, _ = load(settings, {"data_dir": data, "database_url": database_url})
    return found


def main() -> None:
    """What the installed command `tdm-r1` calls."""
    app()


if __name__ == "__main__":
    main()
