"""Indexes for the list of all labels, and for receiving rewards of any run."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Without them both read their whole table."""
    op.create_index("ix_labels_received_at_id", "labels", ["received_at", "id"])
    op.create_index(
        "ix_reward_messages_state_visible_at", "reward_messages", ["state", "visible_at"]
    )


def downgrade() -> None:
    """Slower again."""
    op.drop_index("ix_reward_messages_state_visible_at", "reward_messages")
    op.drop_index("ix_labels_received_at_id", "labels")
