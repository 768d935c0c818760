"""Tokenizers: from text to integers, the same on the training machine and in the app."""
