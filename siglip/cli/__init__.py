"""The command line: words -> calls; results on stdout, everything else on stderr.

Each command is a module of its name: its docstring is its help page, `configure(parser)` declares its arguments,
`run(arguments)` returns the exit code.
"""
