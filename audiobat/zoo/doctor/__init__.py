"""`audiobat doctor`: facts about an installation, a checkpoint file, an encoder.

encoder.py      whether an encoder keeps the rules that probes rely on
file.py         what a checkpoint or a folder is, and whether it is safe
run.py          `audiobat doctor`
"""
