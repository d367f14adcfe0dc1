"""How many answers a group has and a lease still owes, so that images are leased, not groups."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

COUNT_ANSWERS = """
    UPDATE groups SET num_answers = COALESCE((
        SELECT SUM(CASE WHEN num > groups.overlap THEN groups.overlap ELSE num END) FROM (
            SELECT labels.group_id, COUNT(*) AS num
            FROM labels JOIN annotators ON annotators.id = labels.annotator_id
            WHERE annotators.weight > 0 AND annotators.state <> 'excluded'
            GROUP BY labels.group_id, labels.image_id
        ) AS answered WHERE answered.group_id = groups.id
    ), 0) WHERE state = 'open'
"""
OWE_ALL = """
    UPDATE assignments SET num_unanswered = (
        SELECT num_images FROM groups WHERE groups.id = assignments.group_id
    ) WHERE state = 'live'
"""


def upgrade() -> None:
    """Count what is open; a live lease owes all of its group until it ends."""
    for table, column in (("groups", "num_answers"), ("assignments", "num_unanswered")):
        op.add_column(table, sa.Column(column, sa.Integer(), nullable=False, server_default="0"))
    op.execute(COUNT_ANSWERS)
    op.execute(OWE_ALL)


def downgrade() -> None:
    """Whole groups again."""
    op.drop_column("assignments", "num_unanswered")
    op.drop_column("groups", "num_answers")
