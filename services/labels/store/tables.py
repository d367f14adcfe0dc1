"""Every table of the label service, for SQLite and PostgreSQL alike.

Text keys are ULIDs unless said otherwise; times are aware UTC; JSON holds what is read whole.
Natural keys are unique constraints: the database, not the code, is what keeps a promise.
"""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, cast

import sqlalchemy
from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    UniqueConstraint,
    select,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, column_property, mapped_column
from sqlalchemy.types import TypeDecorator

# SQLite numbers a row by itself only where the key is INTEGER.
Sequence = BigInteger().with_variant(Integer, "sqlite")
# A number whose row was deleted is not given out again: readers remember the last they saw.
NEVER_AGAIN = {"sqlite_autoincrement": True}


class UtcDateTime(TypeDecorator[datetime]):
    """Aware UTC in Python; SQLite forgets the zone, so it is put back."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; a naive time is an error, since nobody can tell what it means."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"time {value.isoformat()} has no zone; give an aware UTC time")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Aware again."""
        if value is None or value.tzinfo is None:
            return value and value.replace(tzinfo=UTC)
        return value.astimezone(UTC)


class Table(DeclarativeBase):
    """What every table shares: names of constraints that a migration can address."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map: ClassVar = {datetime: UtcDateTime, dict[str, Any]: JSON, list[Any]: JSON}


def core(mapped: Any) -> sqlalchemy.Table:
    """The table under a mapped class, for statements that skip the object layer: where it matters,
    that layer takes longer than the database. Flush what is pending first; they do not."""
    return cast(sqlalchemy.Table, mapped.__table__)


# People and keys ---------------------------------------------------------------------------------


class Annotator(Table):
    """A person who labels; created by an admin, or by the first label on behalf of a user."""

    __tablename__ = "annotators"
    id: Mapped[str] = mapped_column(primary_key=True)
    name: Mapped[str]
    state: Mapped[str] = mapped_column(default="active")  # active, excluded, erased
    key_id: Mapped[str | None]  # the service key that speaks for an external user
    external_ref: Mapped[str | None]
    weight: Mapped[float] = mapped_column(default=1.0)  # the gold gate: 1 or 0
    gold_right: Mapped[int] = mapped_column(default=0)
    gold_answered: Mapped[int] = mapped_column(default=0)
    told: Mapped[dict[str, Any] | None]  # habit to when admins were last told of it
    created_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(default=1)
    __table_args__ = (UniqueConstraint("key_id", "external_ref"),)


class ApiKey(Table):
    """A key's public half and the SHA-256 of its secret."""

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)  # the public part of the key itself
    name: Mapped[str]
    role: Mapped[str]  # viewer, annotator, service, admin
    scopes: Mapped[list[Any]]
    annotator_id: Mapped[str | None] = mapped_column(ForeignKey("annotators.id"))
    secret_sha256: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(default=1)


class Invite(Table):
    """A single-use link that starts a browser session."""

    __tablename__ = "invites"
    secret_sha256: Mapped[str] = mapped_column(primary_key=True)
    annotator_id: Mapped[str | None] = mapped_column(ForeignKey("annotators.id"))
    role: Mapped[str]
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class BrowserSession(Table):
    """A cookie's SHA-256 and who it stands for."""

    __tablename__ = "sessions"
    secret_sha256: Mapped[str] = mapped_column(primary_key=True)
    annotator_id: Mapped[str | None] = mapped_column(ForeignKey("annotators.id"))
    role: Mapped[str]
    csrf_token: Mapped[str]
    created_at: Mapped[datetime]
    last_seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    ended_at: Mapped[datetime | None]


# What is asked -----------------------------------------------------------------------------------


class Question(Table):
    """What people are asked of an image, and the guidelines they read."""

    __tablename__ = "questions"
    id: Mapped[str] = mapped_column(primary_key=True)  # chosen by the admin: a slug
    text: Mapped[str]
    guidelines: Mapped[str] = mapped_column(default="")
    guidelines_version: Mapped[int] = mapped_column(default=1)
    state: Mapped[str] = mapped_column(default="active")  # active, closed
    created_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(default=1)


class Image(Table):
    """An uploaded picture; its bytes lie in the image folder under the digest."""

    __tablename__ = "images"
    sha256: Mapped[str] = mapped_column(primary_key=True)  # of the bytes that were sent
    media_type: Mapped[str]
    width: Mapped[int]
    height: Mapped[int]
    num_bytes: Mapped[int]
    key_id: Mapped[str | None]
    created_at: Mapped[datetime]
    pinned: Mapped[bool] = mapped_column(default=False)  # kept however old it is
    removed_at: Mapped[datetime | None]  # its files are gone, its row stays
    withdrawn: Mapped[bool] = mapped_column(default=False)  # by an admin: no service puts it back
    __table_args__ = (Index(None, "key_id", "removed_at"), Index(None, "removed_at", "created_at"))


class Run(Table):
    """What the groups and labels of a run tell together, kept so that no label counts them all."""

    __tablename__ = "runs"
    id: Mapped[str] = mapped_column(primary_key=True)
    newest_policy: Mapped[int]  # highest policy version of its groups
    like_rate: Mapped[float] = mapped_column(default=0.5)  # m0, over its last labels
    rate_labels: Mapped[int] = mapped_column(default=0)  # how many those were
    rate_seq: Mapped[int] = mapped_column(BigInteger, default=0)  # newest label among them
    prior: Mapped[dict[str, Any] | None]  # refitted: k, and a and b of the proxy reward
    influence: Mapped[dict[str, Any] | None]  # annotator to a factor, of those above the cap


class Group(Table):
    """The images of one prompt, labelled and rewarded together."""

    __tablename__ = "groups"
    id: Mapped[str] = mapped_column(primary_key=True)  # chosen by the sender
    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id"))
    prompt_id: Mapped[str]
    prompt_text: Mapped[str]
    question_id: Mapped[str] = mapped_column(ForeignKey("questions.id"))
    policy_version: Mapped[int]
    checkpoint_id: Mapped[str | None]
    sampler: Mapped[dict[str, Any]]
    auto_rewards: Mapped[dict[str, Any]]
    num_images: Mapped[int]
    overlap: Mapped[int] = mapped_column(default=1)
    priority: Mapped[int] = mapped_column(default=0)
    deadline_at: Mapped[datetime | None]
    content_warning: Mapped[str | None]
    is_gold: Mapped[bool] = mapped_column(default=False)
    body_sha256: Mapped[str]  # of the whole PUT body: same again is 200, other is 409
    state: Mapped[str] = mapped_column(default="open")  # open ready consumed expired retired
    aggregate: Mapped[dict[str, Any] | None]
    reward_revision: Mapped[int] = mapped_column(default=0)
    num_skips: Mapped[int] = mapped_column(default=0)
    num_labels: Mapped[int] = mapped_column(default=0)
    num_answers: Mapped[int] = mapped_column(default=0)  # that count, up to overlap an image
    order_weight: Mapped[float] = mapped_column(default=0.0)  # log2(1-P0) + policy_version / 4
    created_at: Mapped[datetime]
    ready_at: Mapped[datetime | None]
    consumed_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(default=1)
    __table_args__ = (
        Index(None, "question_id", "state", "is_gold"),
        Index(None, "run_id", "state"),
        Index(None, "state", "deadline_at"),
        Index(None, "created_at", "id"),
    )


class DueRefresh(Table):
    """A group whose aggregate is to be made again: a person's votes began or ceased to count."""

    __tablename__ = "due_refreshes"
    group_id: Mapped[str] = mapped_column(ForeignKey("groups.id"), primary_key=True)


class GroupImage(Table):
    """One image's place in its group."""

    __tablename__ = "group_images"
    id: Mapped[str] = mapped_column(primary_key=True)
    group_id: Mapped[str] = mapped_column(ForeignKey("groups.id"))
    index: Mapped[int]
    sha256: Mapped[str] = mapped_column(ForeignKey("images.sha256"), index=True)
    seed: Mapped[int | None] = mapped_column(BigInteger)
    gold_answer: Mapped[str | None]  # like or dislike, on gold groups
    gold_reason: Mapped[str | None]
    if TYPE_CHECKING:  # the image's own, attached below: it needs both tables
        removed_at: Mapped[datetime | None]
    __table_args__ = (UniqueConstraint("group_id", "index"),)


GroupImage.removed_at = column_property(
    select(Image.removed_at).where(Image.sha256 == GroupImage.sha256).scalar_subquery()
)


# What people do ----------------------------------------------------------------------------------


class Assignment(Table):
    """A lease: these images to this person until then; the token fences late submits."""

    __tablename__ = "assignments"
    id: Mapped[str] = mapped_column(primary_key=True)
    group_id: Mapped[str] = mapped_column(ForeignKey("groups.id"))
    annotator_id: Mapped[str] = mapped_column(ForeignKey("annotators.id"))
    state: Mapped[str] = mapped_column(default="live")  # and as services/labels/leases.py says
    token: Mapped[str]
    positions: Mapped[list[Any]]  # ids of the images asked for, in the order shown
    num_unanswered: Mapped[int]  # of them, while it is live
    reason: Mapped[str | None]
    granted_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    __table_args__ = (
        Index(None, "group_id", "annotator_id"),
        Index(None, "annotator_id", "state"),
        Index(None, "state", "expires_at"),
    )


class Label(Table):
    """A person's present verdict on one image; earlier ones are in `label_revisions`."""

    __tablename__ = "labels"
    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    id: Mapped[str] = mapped_column(unique=True)
    image_id: Mapped[str] = mapped_column(ForeignKey("group_images.id"))
    group_id: Mapped[str] = mapped_column(ForeignKey("groups.id"))
    run_id: Mapped[str]
    question_id: Mapped[str]
    annotator_id: Mapped[str] = mapped_column(ForeignKey("annotators.id"))
    assignment_id: Mapped[str | None]
    guidelines_version: Mapped[int]
    value: Mapped[str]  # like dislike unsure skip
    note: Mapped[str | None]
    flags: Mapped[list[Any]]
    position: Mapped[int | None]
    latency_ms: Mapped[int | None]
    shown_at: Mapped[datetime | None]
    received_at: Mapped[datetime]
    source: Mapped[str]  # web api import
    client_ref: Mapped[str | None]
    policy_version: Mapped[int]
    is_gold: Mapped[bool] = mapped_column(default=False)
    retracted_at: Mapped[datetime | None]
    revision: Mapped[int] = mapped_column(default=1)
    __table_args__ = (
        UniqueConstraint("image_id", "annotator_id", "question_id"),
        Index(None, "group_id", "annotator_id"),
        Index(None, "annotator_id", "seq"),
        Index(None, "run_id", "seq"),
        Index(None, "received_at", "id"),
        NEVER_AGAIN,
    )


class LabelRevision(Table):
    """What a label said before it was amended or retracted; append-only."""

    __tablename__ = "label_revisions"
    label_id: Mapped[str] = mapped_column(ForeignKey("labels.id"), primary_key=True)
    revision: Mapped[int] = mapped_column(primary_key=True)
    value: Mapped[str]
    note: Mapped[str | None]
    retracted_at: Mapped[datetime | None]
    actor: Mapped[str]
    at: Mapped[datetime]


# What leaves -------------------------------------------------------------------------------------


class RewardMessage(Table):
    """A group's aggregate on its way to the trainer, at least once."""

    __tablename__ = "reward_messages"
    group_id: Mapped[str] = mapped_column(ForeignKey("groups.id"), primary_key=True)
    reward_revision: Mapped[int] = mapped_column(primary_key=True)
    run_id: Mapped[str]
    state: Mapped[str] = mapped_column(default="pending")  # pending inflight acked dead
    payload: Mapped[dict[str, Any]]
    receipt: Mapped[str | None] = mapped_column(unique=True)
    visible_at: Mapped[datetime]
    receive_count: Mapped[int] = mapped_column(default=0)
    reason: Mapped[str | None]
    created_at: Mapped[datetime]
    acked_at: Mapped[datetime | None]
    __table_args__ = (
        Index(None, "run_id", "state", "visible_at"),
        Index(None, "state", "visible_at"),
    )


class Event(Table):
    """What happened, in the order of commit; SSE and webhooks read it."""

    __tablename__ = "events"
    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    topic: Mapped[str]  # labels groups rewards annotators system
    type: Mapped[str]
    data: Mapped[dict[str, Any]]
    audience: Mapped[str]  # viewer: everybody with a key; admin; annotator:<id>
    at: Mapped[datetime]
    __table_args__ = NEVER_AGAIN


class Webhook(Table):
    """Where events are sent."""

    __tablename__ = "webhooks"
    id: Mapped[str] = mapped_column(primary_key=True)
    url: Mapped[str]
    topics: Mapped[list[Any]]
    secret: Mapped[str]  # signs deliveries, so it must be known; shown to its admin once
    state: Mapped[str] = mapped_column(default="active")  # active disabled
    num_failures: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    revision: Mapped[int] = mapped_column(default=1)


class Delivery(Table):
    """One event on its way to one webhook: the transactional outbox."""

    __tablename__ = "deliveries"
    id: Mapped[str] = mapped_column(primary_key=True)
    webhook_id: Mapped[str] = mapped_column(ForeignKey("webhooks.id"))
    event_seq: Mapped[int] = mapped_column(Sequence)
    state: Mapped[str] = mapped_column(default="pending")  # pending delivered failed
    attempts: Mapped[int] = mapped_column(default=0)
    next_at: Mapped[datetime]
    last_status: Mapped[int | None]
    last_error: Mapped[str | None]
    created_at: Mapped[datetime]
    delivered_at: Mapped[datetime | None]
    __table_args__ = (Index(None, "state", "next_at"), Index(None, "webhook_id", "created_at"))


class Export(Table):
    """A file of labels, made on request."""

    __tablename__ = "exports"
    id: Mapped[str] = mapped_column(primary_key=True)
    state: Mapped[str] = mapped_column(default="pending")  # pending done failed
    format: Mapped[str]
    filters: Mapped[dict[str, Any]]
    manifest: Mapped[dict[str, Any] | None]
    error: Mapped[str | None]
    created_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]


# What is remembered of requests ------------------------------------------------------------------


class IdempotencyRecord(Table):
    """The answer that a repeated request gets again."""

    __tablename__ = "idempotency"
    key_id: Mapped[str] = mapped_column(primary_key=True)
    route: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    body_sha256: Mapped[str]
    status: Mapped[int]
    headers: Mapped[dict[str, Any]]
    body: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(index=True)


class AuditEntry(Table):
    """Who changed what; append-only."""

    __tablename__ = "audit"
    seq: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    actor: Mapped[str]
    action: Mapped[str]
    object: Mapped[str]
    before_sha256: Mapped[str | None]
    after_sha256: Mapped[str | None]
    ip_sha256: Mapped[str | None]
    at: Mapped[datetime]
    __table_args__ = (Index(None, "at", "seq"), NEVER_AGAIN)
