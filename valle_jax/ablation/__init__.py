"""Ablations: named changes to a preset, trained, heard and compared by one command (docs/ablations.md)."""
