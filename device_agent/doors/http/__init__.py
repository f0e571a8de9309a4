"""The HTTP door: Open Inference Protocol v2, MLflow's `/invocations`, Prometheus' `/metrics` and one page, on the standard library.

It refuses to listen beyond this machine without TLS and a token, to read what is larger than its limits, and to lose count: of all rows
offered, `offered = scored + rejected + shed`. It imports no web framework; `mount.py` offers the same application to a WSGI server.
Read `application.py` next: wire -> application -> (inference | explaining | invocations) -> rows -> models.
"""
