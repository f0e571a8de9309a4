"""A virtual fleet over the real engine: what a policy would do, before any device is touched.

`availability.py` says who is heard when, `fleet.py` how a release fares on each device and what the server would have counted of it,
`run.py` asks the very engine that steers real rollouts, tick by tick. Nothing here decides anything. Seeded: the same seed, the same story.
"""
