"""Kills gitmodel at every k-th system call that changes something, fills its disk, breaks its reads, and looks for losses."""
