"""Public data sets, one file each: the layout in which people have it, to a clip table (see `data/catalog.py`)."""
