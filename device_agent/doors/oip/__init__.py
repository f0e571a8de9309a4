"""Requests of the Open Inference Protocol v2 as rows, wherever they come from: `tensors.py` reads tensors, `columns.py` puts them in order.

Used by the HTTP door (`http/`) and by lines of requests (`batch/oip.py`); what is refused is a `TensorRefused`, told by each in its form.
"""
