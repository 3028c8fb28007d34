"""Where bytes are kept: DVC's cache, pointers and remotes, and the verified store that sessions are opened from.

Only this package imports dvc, dvc-data and dvc-objects; their API is not promised, so it is met in one place.
"""
