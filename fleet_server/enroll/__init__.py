"""Enrolment: a device gets a name, labels, a token, the director's key and its broker password, once.

The device's private key never comes here. Enrolling a name again is refused unless it is said, because it would lock the other one out.

Read `enrolment.py` next; `credentials.py` writes Mosquitto's password file.
"""
