"""The MQTT door: rows on one topic, answers on another, or on the topic that the caller names (MQTT 5).

It refuses to answer on topics that are not a caller's to name, to hold more than its queue, and to lose count: of all rows offered,
`offered = scored + rejected + shed`. Its connection is its own; the fleet's link does not notice it.
Read `door.py` next: connection -> queue -> worker -> request -> models -> reply.
"""
