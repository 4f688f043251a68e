"""Verdict + OnnxModel -> Package; one file per package format."""

from edgekit.package.manifest import Package, open_package
from edgekit.package.write import Contents, seal, write_package

__all__ = ["Contents", "Package", "open_package", "seal", "write_package"]
