"""The run-side API: what runs have written, read as it grows, and commands to them. No torch, no
ray: it reads run folders, finished or live, and writes nothing but commands and thumbnails."""
