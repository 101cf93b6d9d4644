"""Masks for M clones of every clip: which patches the encoder sees and which are predicted. Each file is a kind.

base.py     the protocol, seeds, and taking the tokens of visible or masked patches
"""
