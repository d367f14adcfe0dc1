"""What every HTTP service of ours shares: keys and roles, problems, idempotency, limits."""
