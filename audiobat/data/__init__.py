"""Clip tables, datasets and the order in which clips are drawn."""
