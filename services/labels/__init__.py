"""The label service: people's likes and dislikes become rewards. Imports no torch and no ray."""
