"""Keras models to fp32 TFLite files; integer files are made from them by `quantize/`.

Read next: `keras.py`, the only file that TensorFlow is imported from, always in a child process.
"""
