"""The status page of the allocator: what every address is used for, who waits and why, read-only.

Off unless `--web` is given. Everything is read from the local copies that the allocator has anyway; nothing here writes
to the API server, and nothing of the allocator knows of it.
"""
