"""A library of sounds: what stands near what among the rows of a table that `embed` wrote.

In: a table of embeddings and, where sounds are compared or copied, the recordings. Out: the rows nearest to a query,
copies of the same recording, a map.

    vectors.py      a table's rows as unit vectors around their mean; the rows nearest to others
    graph.py        a kept index beside a large table
    recordings.py   the audio of rows, and clips written from it
    query.py        a sound to vectors like a table's, by the model that made it
    neighbours.py   the nearest rows of every row
    alignment.py    whether two stretches of sound are the same recording
    search.py       `audiobat search`: the rows nearest to a sound
    duplicates.py   `audiobat duplicates`: recordings that are copies of one another
    atlas.py        `audiobat atlas`: a map on which sounds that are alike lie near each other
"""
