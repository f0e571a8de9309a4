"""What devices say, into the database: receive, decode, one transaction, then acknowledge.

A message is acknowledged to the broker only after it is stored or put aside; a device frees its spool only up to what `acked` says.
So a killed server loses nothing and stores nothing twice. What cannot be understood is counted and put aside, and never blocks what
comes behind it. Nothing here decides anything about rollouts; it marks them as worth a look.

Read `batch.py` next (what one transaction does), then `link.py` (the connection).
"""
