"""Decoders: visible tokens and masks to predictions at the masked cells (Section 5.3, Table 4). Each file is a kind.

The cls token never enters a decoder (Section 3: it takes z_m only).

    base.py     the protocol
"""
