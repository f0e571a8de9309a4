"""The shared look of terminal tables and reports."""
