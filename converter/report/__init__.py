"""The conversion report: one HTML file beside the bundle, verdict first, every variant with its reason. Next: `conversion_report.py`."""

from converter.report.conversion_report import Story as Story
from converter.report.conversion_report import report_path as report_path
from converter.report.conversion_report import write_conversion_report as write_conversion_report
