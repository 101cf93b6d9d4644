"""Prints the tables of differences; with `--write`, puts them into docs/parity.md, too."""

import sys

from . import table

found = {heading: [] for heading in table.KINDS}
for heading, kind in table.KINDS.items():
    print(heading)
    for row in kind.rows():
        found[heading].append(row)
        what, _, compared, double, single = table.cells(row)
        late = "" if row.holds else "  beyond its tolerance"
        print(f"  {what:44} {compared:40} {double:>8} {single:>8}{late}", flush=True)
if "--write" in sys.argv[1:]:
    table.write_page(found)
sys.exit(not all(row.holds for rows in found.values() for row in rows))
