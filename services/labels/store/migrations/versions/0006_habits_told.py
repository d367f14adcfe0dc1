"""What admins have been told of somebody's habits, and when."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing so far."""
    op.add_column("annotators", sa.Column("told", sa.JSON(), nullable=True))


def downgrade() -> None:
    """Forgotten."""
    op.drop_column("annotators", "told")
