"""fp32 TFLite files to int8 ones with a float interface. Needs no TensorFlow. Read next: `int8.py`."""
