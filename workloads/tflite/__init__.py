"""TFLite: reading int8 and 16x8 networks into a Graph, state of streaming networks included."""

from workloads.tflite.frontend import TfliteFrontend
from workloads.tflite.reader import State, TfliteModel, read_model, read_streaming

__all__ = ["State", "TfliteFrontend", "TfliteModel", "read_model", "read_streaming"]
