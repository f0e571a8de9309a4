"""The batch door: rows of a file, of a directory that is watched, or of a pipe, each answered once and in order.

Whatever the size of the input, memory is bounded by one chunk of rows. A file's answers grow in OUT.partial beside a journal, OUT.journal:
a run that was killed goes on where its journal stands, and the result has the bytes of a run that nobody disturbed. Bad rows are answered
in their place and never end the run; an input that cannot be read as a whole (no header, not Parquet) does, before the first row.
It refuses to guess: formats come from the name or an option, and a column that is missing is an error, not a missing value.

Read `run.py` next: source -> answerer -> sink -> journal. `text.py` and `parquet.py` are sources, `sinks.py` and `parquet_sink.py` sinks,
`answers.py` asks the scorer, `windows.py` makes windows of single rows, `folder.py` watches a directory, `oip.py` takes requests of the
Open Inference Protocol as lines.
"""
