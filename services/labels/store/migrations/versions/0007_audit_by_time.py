"""An index for the audit log, which is read from its end."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Without it every look at the log sorts all of it."""
    op.create_index("ix_audit_at_seq", "audit", ["at", "seq"])


def downgrade() -> None:
    """Slower again."""
    op.drop_index("ix_audit_at_seq", "audit")
