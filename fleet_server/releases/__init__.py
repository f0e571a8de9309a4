"""Releases: a bundle that was pushed, its files by content, its number in its project.

A release is refused unless its manifest is valid and every file that it lists has arrived with the right sha256. The server does not
open models: what a bundle is worth was judged where it was made, and is judged again on each device.

Read `blobs.py` next, then `push.py`.
"""
