"""Policies written in the language of other systems, run over the same virtual fleets, to compare.

`documents.py` reads what those systems' interfaces take (hawkBit's rollout, a job of AWS IoT, a phased deployment of Mender), `rules.py`
`documents.py` reads what the interfaces of those systems take (a rollout of hawkBit, a job of AWS IoT, a deployment of Mender), `rules.py`
installed, an error whenever it can say so, and silence is nothing.
"""

from fleet_server.simulate.reference.documents import LANGUAGES, AwsJob, HawkbitRollout, MenderDeployment, Reference, read_reference
from fleet_server.simulate.reference.rules import simulate_reference

__all__ = ["LANGUAGES", "AwsJob", "HawkbitRollout", "MenderDeployment", "Reference", "read_reference", "simulate_reference"]
