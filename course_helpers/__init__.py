"""Helpers of the course on training image classifiers."""
__version__ = "0.1.0"
