"""NVDLA's sheet: the rows of its three networks, and the seven published ResNet-50 rates."""

import csv
from pathlib import Path

import pytest

from dse.core.errors import UsageError
from dse.peers.nvdla_sheet import PRIMER, NvdlaConfiguration, SheetLayer, images_per_s, layer_cycles

REFERENCE = Path(__file__).parents[3] / "shared" / "reference"
ROWS = REFERENCE / "seeds" / "nvdla_perf_per_layer.csv"
pytestmark = pytest.mark.skipif(not ROWS.exists(), reason="reference data is not beside the checkout")

#: Sheet defaults, as the rows were evaluated: 2048 MACs, 512 KiB, 10 GB/s.
GRANULE = {"AlexNet": 16, "GoogLeNet": 16, "ResNet50": 128}
DENSE_BATCH = {"AlexNet": 16, "GoogLeNet": 1, "ResNet50": 1}
#: Winograd rows whose weights the sheet counts untransformed, against its own other rows.
UNTRANSFORMED = {f"inception {block} 3x3" for block in ("3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b")}
SHEET_SLIPS = {("GoogLeNet", "Inception 5b 1x1 (combined)")}


def rows():
    with ROWS.open() as file:
        return list(csv.DictReader(file))


def layer(row):
    number = {
        key: int(float(row[key] or 1))
        for key in ("C", "H", "W", "K", "R", "S", "stride_v", "stride_h", "pool_h", "pool_sv")
    }
    return SheetLayer(
        row["layer"], number["C"], number["H"], number["W"], number["K"], number["R"], number["S"],
        padded=row["pad"] == "True", stride_height=number["stride_v"], stride_width=number["stride_h"],
        pool_window=number["pool_h"] if row["pool"] == "True" else 1,
        pool_stride=number["pool_sv"] if row["pool"] == "True" else 1, dense=row["type"] == "fc",
        dense_batch=DENSE_BATCH[row["net"]], elementwise="elwise" in row["type"],
        transformed_weights=row["layer"] not in UNTRANSFORMED,
    )  # fmt: skip


def compared():
    for row in rows():
        configuration = NvdlaConfiguration(2048, 512, 10, kernel_granule=GRANULE[row["net"]])
        result = layer_cycles(layer(row), configuration)
        for quantity, value in (
            ("mac_cycles_noSRAM", result.mac_cycles),
            ("dram_traffic_KB_noSRAM", result.dram_kib),
            ("max_cycles_noSRAM", result.cycles),
        ):
            if row[quantity]:
                yield row["net"], row["layer"], quantity, value, float(row[quantity])


def test_every_row_of_the_sheet_is_met_within_a_percent_but_the_one_that_reads_its_inputs_twice():
    off = {
        (net, name): (quantity, round(value), round(recorded))
        for net, name, quantity, value, recorded in compared()
        if abs(value - recorded) > 0.01 * recorded
    }
    assert set(off) == SHEET_SLIPS, off
    # what the slip is: the 40 KiB of inputs counted once more though they fit
    assert off[("GoogLeNet", "Inception 5b 1x1 (combined)")] == ("max_cycles_noSRAM", 57667, 61649)


def test_totals_of_the_sheets_networks_are_met():
    for net, total in (("AlexNet", 895_443.56), ("ResNet50", 7_113_691)):
        cycles = sum(value for n, _, quantity, value, _ in compared() if n == net and quantity == "max_cycles_noSRAM")
        assert cycles == pytest.approx(total, rel=1e-3)


def test_the_seven_published_rates_are_met_within_three_percent():
    layers = [layer(row) for row in rows() if row["net"] == "ResNet50"]
    with (REFERENCE / "npu" / "nvdla_primer_table.csv").open() as file:
        published = {int(row["macs"]): float(row["resnet50_int8_fps"]) for row in csv.DictReader(file)}
    errors = {}
    for configuration in PRIMER:
        rate = images_per_s(layers, configuration)
        errors[configuration.macs] = rate / published[configuration.macs] - 1
    assert len(errors) == 7
    assert max(map(abs, errors.values())) < 0.03, errors


def test_a_larger_buffer_or_a_faster_memory_is_never_slower():
    for row in rows():
        one = layer(row)
        for small, large in zip(PRIMER[1:], PRIMER, strict=False):
            assert layer_cycles(one, large).cycles <= layer_cycles(one, small).cycles


def test_a_size_that_is_not_positive_is_refused():
    with pytest.raises(UsageError, match="dram_gb_per_s = 0 must be positive"):
        layer_cycles(layer(rows()[0]), NvdlaConfiguration(2048, 512, 0))
