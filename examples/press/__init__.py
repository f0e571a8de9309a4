"""Predictive maintenance of hydraulic presses: a project folder with a table of hourly readings, text and missing values among them."""
