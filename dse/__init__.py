"""silicon-dse: from a neural network and a parameterised accelerator to measured designs and verified RTL."""

__version__ = "0.1.0"
