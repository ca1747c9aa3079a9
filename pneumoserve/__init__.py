"""Chest X-ray pneumonia detection on KServe and TorchServe. Not cleared for clinical use."""

__version__ = "0.2.0"
