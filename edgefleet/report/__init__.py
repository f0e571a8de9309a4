"""The shared look of terminal tables and HTML reports.

A report is one HTML file without a script: `page` makes it from sections, `parts` holds tables and verdict chips, the charts are inline SVG
(`bars`, `lines`, `points`, `heat`). Everything that comes from outside passes `markup.text`. Read `page.py` next.
"""
