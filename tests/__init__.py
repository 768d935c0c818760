"""Tests: one file per module, and one contract test per folder."""
