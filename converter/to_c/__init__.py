"""A model as portable C99: no heap, no library but math.h, every constant in read-only memory.

Three files: model.c, model.h, and selftest.c, a program that checks golden rows. Trees, linear models, small dense networks, support vector
machines and distances, with the cleaning steps, the link and the calibrator. Networks of Keras and imported graphs are refused by name.

Read next: `source.py` (the whole file), then `make.py` (the writer), `running.py` (compiles and proves it).
"""
