"""One file a page: what it loads (in a thread), and how its panels show that."""
