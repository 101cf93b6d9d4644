"""The command `audiobat VERB --flags`: flags over a recipe over the defaults become the arguments of a public function.

verbs.py        the table of verbs, and what a command line has that their functions have not
flags.py        a function's arguments and a config's fields as flags
parse.py        a command line to the arguments of a function; help
command.py      `main`
"""
