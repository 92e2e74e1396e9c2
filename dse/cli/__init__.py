"""The `dse` command: one thin module a command, heavy imports inside functions."""
