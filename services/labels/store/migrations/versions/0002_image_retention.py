"""Pinned images, what keys have sent, and people's influence on a run."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Rows that are there are pinned by nobody."""
    op.add_column(
        "images", sa.Column("pinned", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_index("ix_images_key_id_removed_at", "images", ["key_id", "removed_at"])
    op.create_index("ix_images_removed_at_created_at", "images", ["removed_at", "created_at"])
    op.add_column("runs", sa.Column("influence", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Forget them."""
    op.drop_column("runs", "influence")
    op.drop_index("ix_images_removed_at_created_at", "images")
    op.drop_index("ix_images_key_id_removed_at", "images")
    op.drop_column("images", "pinned")
