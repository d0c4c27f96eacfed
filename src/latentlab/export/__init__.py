"""A trained decoder away from Python: steps that the browser engine runs, and pages that hold one."""

from latentlab.export.html import export_html, page_html
from latentlab.export.lowering import lower
from latentlab.export.program import PRECISIONS, Program

__all__ = ["PRECISIONS", "Program", "export_html", "lower", "page_html"]
