"""Entry of `dse` and `python -m dse`."""
