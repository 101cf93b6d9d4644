"""Clips that runs keep to be played, to the page's section of them.

clips.py        the clips that a run folder keeps for pages
section.py      the clips to play
"""
