"""Trains an EAGLE-3 draft for a target: its own texts, windows, training-time test, the loop."""
