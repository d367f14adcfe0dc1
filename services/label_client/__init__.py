"""A typed client of the label service."""
