"""Images that an admin took away, told apart from those that grew old."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

FROM_THE_AUDIT = """
    UPDATE images SET withdrawn = true WHERE removed_at IS NOT NULL
        AND sha256 IN (SELECT object FROM audit WHERE action = 'image.remove')
"""


def upgrade() -> None:
    """Those that are gone and that the audit says an admin removed."""
    op.add_column(
        "images", sa.Column("withdrawn", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.execute(FROM_THE_AUDIT)


def downgrade() -> None:
    """Gone is gone."""
    op.drop_column("images", "withdrawn")
