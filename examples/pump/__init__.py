"""Condition of a water pump from windows of its signals: a project folder with a time series."""
