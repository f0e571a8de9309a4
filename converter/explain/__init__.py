"""What a device needs to explain an answer: exact forms for linear models and trees, a student or background rows for everything else.

`building.py` chooses and makes it, in one child process; `treeshap.py`, `linear.py` and `amortised.py` write what `device_agent` evaluates,
`treeshap_onnx.py` the same as a graph for other runtimes. `fidelity.py` measures on the device's own code how true it is. Nothing here
explains a probability: contributions are of the margin, in which far fewer samples are needed. Read next: `building.py`.
"""
