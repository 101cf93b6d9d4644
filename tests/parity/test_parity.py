"""The package is its sources to rounding, and docs/parity.md says so."""

import re

import pytest

from parity import table


def test_the_page_has_every_table_and_no_other():
    assert re.findall(r"^## (.+)$", table.PAGE.read_text("utf-8"), re.MULTILINE) == list(table.KINDS)


@pytest.mark.parametrize("heading", table.KINDS)
def test_differences_are_those_of_rounding_and_the_page_shows_them(heading: str):
    found = list(table.KINDS[heading].rows())
    assert [row for row in found if not row.holds] == []
    shown = table.cells_of_page(heading)
    assert [cells[:3] for cells in shown] == [table.cells(row)[:3] for row in found], (
        "run `python -m tests.parity --write`"
    )
    for row, (*_, double, single) in zip(found, shown, strict=True):
        assert row._replace(difference=float(double), single=float(single) if single else None).holds
        assert bool(single) == (row.single is not None)
