"""The tables' history; `alembic revision --autogenerate -m "what changes"` adds to it."""
