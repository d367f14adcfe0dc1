"""`tdm-r1 dashboard`: the runs of a folder, under uvicorn, until Ctrl-C; a process of its own, so
that nothing it does delays a label."""

from services.commands.label_store import opened
from services.commands.listening import check_bind, listen
from services.dashboard.app import create_app
from services.dashboard.label_admin import LabelAdmin
from services.dashboard.label_admin_database import AdminDatabase
from services.dashboard.label_admin_service import AdminService
from services.dashboard.label_source import (
    TIMEOUT_S,
    LabelDatabase,
    LabelService,
    LabelSource,
    SharedSource,
)
from services.label_client.client import LabelClient
from services.labels.authentication import Directory
from services.labels.settings import Settings as LabelSettings
from services.labels.store.database import Database
from services.runs_api.settings import Settings
from services.web.clock import utc_now
from services.web.hosts import LOOPBACK
from services.web.limits import RateLimiter
from services.web.logs import log_to_stderr


def dashboard(label_settings: LabelSettings, settings: Settings) -> None:
    """Serve until a signal; keys are those of the label service. ValueError where the address must
    not or cannot be listened on, or what they name is not there."""
    if not settings.runs.is_dir():
        raise ValueError(
            f"--runs {settings.runs} is no folder; give the one that holds run folders"
        )
    with opened(label_settings, _may_make(label_settings)) as database:
        check_bind(database, settings.host, label_settings.data_dir)
        log_to_stderr()
        limiter = RateLimiter(dict(label_settings.rates), utc_now)
        keys = Directory(database, utc_now, limiter)
        source, admin = label_service(label_settings, settings, database)
        app = create_app(settings, keys, SharedSource(source), admin)
        what = "runs at {address}/"
        if settings.host in LOOPBACK:
            what += f"login#invite={app.state.sessions.invite()} (opens one browser, once)"
        listen(app, settings.host, settings.port, settings.trusted_proxies, what)


def _may_make(settings: LabelSettings) -> bool:
    """Who names a database means one that is there, and its keys: in a new one nobody has any. The
    folder that nobody named is made, so that a first look needs no preparation; so are the tables
    of an empty PostgreSQL database, where services start in any order."""
    is_named = {"data_dir", "database_url"} & settings.model_fields_set
    return not is_named or not settings.url.startswith("sqlite")


def label_service(
    label_settings: LabelSettings, settings: Settings, database: Database
) -> tuple[LabelSource, LabelAdmin]:
    """The label service that the settings name; without one, what is in its database here."""
    own = AdminDatabase(database, utc_now, f"http://127.0.0.1:{label_settings.port}")
    url, key = settings.labels_url, settings.labels_key
    if url is None or key is None:
        return LabelDatabase(database, utc_now), own
    client = LabelClient(url, key, timeout_s=TIMEOUT_S, retries=0)
    return LabelService(url, client), AdminService(url, key, client, own, utc_now)
