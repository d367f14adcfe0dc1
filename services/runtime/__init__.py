"""Where workers live and how they are called: in this process, or on a Ray cluster."""
