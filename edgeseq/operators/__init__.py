"""Operators that stay one node from the PyTorch model to the phone, with batch and time symbolic."""
