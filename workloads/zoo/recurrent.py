"""Networks with LSTM and GRU layers, which stay whole: time steps are never unrolled. Weights are seeded."""

from __future__ import annotations

import onnx
from onnx import TensorProto

from workloads.zoo.builder import ModelBuilder

#: 49 frames of 10 MFCCs, as for DS-CNN; 12 keywords.
_FRAMES, _COEFFICIENTS, _KEYWORDS = 49, 10, 12


def build_lstm_kws(seed: int = 0) -> onnx.ModelProto:
    """Keyword spotter: one LSTM of 96 units over (1, 49, 10), its last state to 12 logits."""
    return _spotter("lstm_kws", seed, "LSTM", 96, layers=1)


def build_gru_kws(seed: int = 0) -> onnx.ModelProto:
    """Keyword spotter: two GRU layers of 96 units over (1, 49, 10), the last state to 12 logits."""
    return _spotter("gru_kws", seed, "GRU", 96, layers=2)


def build_bilstm_kws(seed: int = 0) -> onnx.ModelProto:
    """Keyword spotter: two bidirectional LSTM layers of 48 units over (1, 49, 10), mean over time to 12 logits."""
    return _spotter("bilstm_kws", seed, "LSTM", 48, layers=2, bidirectional=True)


def _spotter(
    name: str, seed: int, kind: str, hidden: int, *, layers: int, bidirectional: bool = False
) -> onnx.ModelProto:
    model = ModelBuilder(name, seed, (1, _FRAMES, _COEFFICIENTS))
    x, inside = model.transpose(model.input, "time_first", (1, 0, 2)), _COEFFICIENTS
    for number in range(1, layers + 1):
        x = _sequence(model, kind, x, f"{kind.lower()}{number}", (inside, hidden), bidirectional=bidirectional)
        inside = (1 + bidirectional) * hidden
    if bidirectional:
        x = model.node("ReduceMean", [x], "mean", axes=[0], keepdims=0)
    else:
        last = model.integers("last.index", (_FRAMES - 1,))
        # a step of a sequence is what Slice is for; Gather would do, but reads as an embedding
        end, axis = model.integers("last.end", (_FRAMES,)), model.integers("last.axis", (0,))
        x = model.reshape(model.node("Slice", [x, last, end, axis], "last"), "last.state", (1, hidden))
    return model.model(model.dense(x, "dense", (inside, _KEYWORDS)), (1, _KEYWORDS))


def _sequence(
    model: ModelBuilder, kind: str, x: str, name: str, features: tuple[int, int], *, bidirectional: bool = False
) -> str:
    """A recurrent layer and its output as (steps, batch, features), both directions side by side."""
    x = model.recurrent(kind, x, name, features, bidirectional=bidirectional)
    if bidirectional:
        x = model.transpose(x, f"{name}.batch_first", (0, 2, 1, 3))
        return model.reshape(x, f"{name}.joined", (0, 0, 2 * features[1]))
    return model.node("Squeeze", [x, model.integers(f"{name}.axes", (1,))], f"{name}.sequence")


def build_lstm_lm(seed: int = 0) -> onnx.ModelProto:
    """Word language model, the small one of Zaremba et al. (2014): 35 tokens of 10,000 words, two LSTMs of 200."""
    steps, words, features = 35, 10_000, 200
    model = ModelBuilder("lstm_lm", seed, (steps, 1), input_type=TensorProto.INT64)
    x = model.embedding(model.input, "embedding", words, features)
    for number in (1, 2):
        x = _sequence(model, "LSTM", x, f"lstm{number}", (features, features))
    x = model.dense(model.reshape(x, "states", (steps, features)), "words", (features, words))
    return model.model(x, (steps, words))


def build_crnn(seed: int = 0) -> onnx.ModelProto:
    """CRNN text reader (Shi et al. 2015): (1, 1, 32, 100), seven convs, two BiLSTMs of 256, 26 steps of 37 classes."""
    model = ModelBuilder("crnn", seed, (1, 1, 32, 100))
    x, inside = model.input, 1
    widths = (64, 128, 256, 256, 512, 512, 512)
    for number, width in enumerate(widths, start=1):
        name, kernel = f"conv{number}", 2 if number == 7 else 3
        x = model.conv(x, name, (inside, width), kernel, bias=True, padding=0 if number == 7 else 1)
        if number in (3, 5, 7):
            x = model.batch_norm(x, f"{name}.bn", width)
        x, inside = model.relu(x, f"{name}.relu"), width
        if number in (1, 2):
            x = model.max_pool(x, f"pool{number}", 2)
        if number in (4, 6):
            # halves the rows but keeps the columns, which become the time steps
            x = model.max_pool(x, f"pool{number}", 2, stride=(2, 1), pads=[0, 1, 0, 1])
    x = model.node("Squeeze", [x, model.integers("columns.axes", (2,))], "columns")
    x = model.transpose(x, "time_first", (2, 0, 1))
    steps = 26
    x = model.reshape(_sequence(model, "LSTM", x, "lstm1", (512, 256), bidirectional=True), "flat1", (steps, 512))
    x = model.reshape(model.dense(x, "between", (512, 256)), "sequence", (steps, 1, 256))
    x = model.reshape(_sequence(model, "LSTM", x, "lstm2", (256, 256), bidirectional=True), "flat2", (steps, 512))
    return model.model(model.dense(x, "classes", (512, 37)), (steps, 37))
