"""What a device needs to explain an answer: exact arrays for trees, background rows for everything else.

`treeshap.py` compiles, `fidelity.py` measures on the device's own code how well it adds up. Read next: `treeshap.py`.
"""
