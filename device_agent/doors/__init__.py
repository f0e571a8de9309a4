"""Where rows come in. Each door turns its own form of a row into one call of the scorer, and refuses rows that cannot be one.

Read `http/`: requests over HTTP; `oip/`: what requests of the Open Inference Protocol mean, over HTTP or as lines; `stream.py`: a sensor's
file that somebody else appends to; `batch/`: files, pipes and watched directories that are scored as a whole.
"""
