"""A report as one HTML file: no script, nothing loaded, the same bytes from the same run."""

from edgequant.report.html.page import page as page
