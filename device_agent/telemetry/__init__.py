"""What a device tells about its work: additive statistics per window, spooled on disk until the server has stored them.

It refuses to send payload: rows leave the device only as counts, unless the operator and the device's own configuration both allow more.
Read `windows.py` next (what is counted), then the spool (how it survives an outage).
"""
