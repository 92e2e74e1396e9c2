"""An Arch in YAML: what loads, and one clear sentence with file and line for what does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.arch.arch import load_arch
from dse.core.errors import ConfigError

GOOD = """name: small
clock_mhz: 100
levels:
  - {name: dram, word_bits: 8, energy_class: dram}
  - {name: buffer, word_bits: 8, capacity_bytes: 100, holds: [input, weight]}
axes:
  - {name: row, size: 4, below: buffer, multicast: [input]}
  - {name: column, size: 3, below: buffer, reduces: true}
compute: {macs_per_cycle: 2}
"""


def write(folder: Path, text: str | bytes) -> Path:
    path = folder / "arch.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_a_plain_yaml_is_an_arch(tmp_path: Path) -> None:
    arch = load_arch(write(tmp_path, GOOD))
    assert (arch.units, arch.peak_macs_per_cycle) == (12, 24)
    assert arch.levels[1].holds == {"input", "weight"}
    assert arch.levels[0].capacity_bytes is None
    assert arch.axes[0].multicast == {"input"}


def test_node_supply_and_prices_of_a_file_are_where_prices_are_taken(tmp_path: Path) -> None:
    text = GOOD.replace("clock_mhz: 100", "clock_mhz: 100\nnode_nm: 28\nvdd: 0.7\nprices: {register_energy: 0.004}")
    tech = load_arch(write(tmp_path, text)).technology
    assert (tech.node_nm, tech.device, tech.vdd) == (28, "HP", 0.7)
    assert tech.value("register_energy") == 0.004
    assert hash(load_arch(write(tmp_path, text))) == hash(load_arch(write(tmp_path, text)))


@pytest.mark.parametrize("name", ["eyeriss_like", "gemmini_like", "vector_unit"])
def test_the_shipped_examples_load(name: str) -> None:
    arch = load_arch(Path(__file__).parents[3] / "examples" / f"{name}.yaml")
    assert arch.peak_macs_per_cycle >= 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("word_bits: 8, cap", "word_bit: 8, cap", r"arch.yaml:5: levels\[1\].word_bit: .*did you mean 'word_bits'"),
        ("below: buffer, mul", "below: bufer, mul", "axis 'row' lies below 'bufer', which is not a level of"),
        ("size: 4", "size: 0", r"arch.yaml:7: axes\[0\].size: must be more than 0, not 0"),
        ("size: 4", "size: four", r"arch.yaml:7: axes\[0\].size: must be an integer, not 'four'"),
        ("clock_mhz: 100", "clock_mhz: .inf", "arch.yaml:2: clock_mhz: must be a number"),
        ("clock_mhz: 100", "clock_mhz: -1", "arch.yaml:2: clock_mhz: must be more than 0.*, not -1"),
        ("[input, weight]", "[inputs]", r"arch.yaml:5: levels\[1\].holds\[0\]: .*did you mean 'input'"),
        ("name: buffer", "name: dram", "memory levels must have distinct names"),
        ("name: column", "name: row", "axes must have distinct names"),
        ("energy_class: dram", "energy_class: drum", "arch.yaml:4: .*did you mean 'dram'"),
        ("capacity_bytes: 100", "capacity_bytes: 0", "capacity_bytes: must be more than 0, not 0"),
        ("name: small", "name: small\nname: big", "arch.yaml:2: name: is given twice"),
        ("levels:", "levels: []\nlayers:", "layers"),
        ("clock_mhz: 100", "clock_mhz: 100\nnode_nm: 5", "arch.yaml:3: node_nm: 5 nm lies outside 7 to 180 nm"),
        ("clock_mhz: 100", "clock_mhz: 100\nvdd: 1.3", "arch.yaml:3: vdd: 1.3 V lies outside 0.6 to 0.94 V"),
        ("clock_mhz: 100", "clock_mhz: 100\ndevice: LV", "arch.yaml:3: device: .*did you mean 'LP'"),
        (
            "clock_mhz: 100",
            "clock_mhz: 100\nprices:\n  registr_energy: 1",
            "arch.yaml:4: prices.registr_energy: .*did you mean 'register_energy'",
        ),
        ("clock_mhz: 100", "clock_mhz: 100\nprices: {register_energy: -1}", "must be a positive number, not -1"),
        ("clock_mhz: 100", "clock_mhz: 100\nprices: {register_energy: low}", "must be a positive number, not 'low'"),
        ("energy_class: dram", "energy_class: dram, standard: lpdr4", "arch.yaml:4: .*did you mean 'lpddr4'"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert GOOD.count(old) == 1
    with pytest.raises(ConfigError, match=message) as caught:
        load_arch(write(tmp_path, GOOD.replace(old, new)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "is empty"),
        ("[1, 2]", "holds list"),
        ("name: {a: [", "is not YAML"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
        ("name: x\nclock_mhz: 1\nlevels: []\n", "levels: must have at least 1 entries"),
        ("name: x\nclock_mhz: 1\n", "levels"),
    ],
)
def test_files_that_are_no_arch_are_refused_in_one_sentence(tmp_path: Path, content: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_arch(write(tmp_path, content))
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        load_arch(tmp_path / "nowhere.yaml")
