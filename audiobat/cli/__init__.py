"""The command `audiobat VERB --flags`: flags over a recipe over the defaults become the arguments of a public function.

verbs.py        what each verb takes
flags.py        a verb's settings as flags; a command line to values
command.py      `main`
"""
