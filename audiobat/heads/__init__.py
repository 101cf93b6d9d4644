"""Probes: one file each, one signature, LayerFeatures to logits."""
