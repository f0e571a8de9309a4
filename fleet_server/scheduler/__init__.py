"""What happens without anybody asking: due rollouts are decided, the outbox is published, drift rounds are run, old rows go.

Correctness is the database's: an action is saved together with its consequences under a version that nobody else has changed, and only
then published. A scheduler may die at any instant and any number of them may run; leases only save work. It refuses to guess: an
exception pauses the rollout that caused it and leaves the others alone.

Read `steering.py` next (one decision, one transaction), then `relay.py` (after the commit), then `loop.py`.
"""
