"""The way of a new model onto the device: fetched, hashed, self-tested, tried beside the running one, committed by one rename.

It refuses to act before the decision stands in the journal, to run a digest that failed here, to believe a desired state that the director
did not sign, and to give up the last two good models. A crash at any point leaves the old model or the new one, whole.
Read `plan.py` next (the states as a table), then `updater.py` (what is done in each), `store.py` and `disk.py` (how it survives).
"""
