"""Reports of the trainer: what the data are, what a run found, how runs compare, and the model card.

`record.py` says what a report knows; nothing here computes a metric again or reads a model. Read `run_report.py` next.
"""
