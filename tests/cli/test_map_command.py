"""`dse map` from end to end: small zoo networks on every example architecture, JSON by its schema, rules, sparsity."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any, Literal

import pytest
from click.testing import CliRunner
from pydantic import BaseModel, ConfigDict, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from dse.cli.map import command
from dse.core.errors import UsageError

EXAMPLES = sorted((Path(__file__).parents[2] / "examples").glob("*.yaml"))
SMALL = ("mlp", "digits_cnn", "tiny_cnn", "resnet8", "ds_cnn", "lstm_kws", "gru_kws", "bilstm_kws", "encoder_tiny")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Traffic(_Strict):
    level: str
    tensor: str
    role: Literal["input", "weight", "output"]
    tile_words: PositiveInt
    instances: PositiveInt
    reads: NonNegativeFloat
    fills: NonNegativeFloat
    updates: NonNegativeFloat
    energy_pj: NonNegativeFloat


class Level(_Strict):
    level: str
    loops: list[tuple[str, PositiveInt]]
    bypass: list[str]


class Part(_Strict):
    repeat: PositiveInt
    kept: dict[str, str] | None
    extra_pj: NonNegativeFloat
    extra_cycles: NonNegativeInt
    value: PositiveFloat
    gap: NonNegativeFloat
    cycles: PositiveInt
    compute_cycles: PositiveInt
    limit: str
    utilization: PositiveFloat
    energy_pj: PositiveFloat
    mac_energy_pj: PositiveFloat
    temporal: list[Level]
    spatial: dict[str, list[tuple[str, PositiveInt]]]
    traffic: list[Traffic]


class Layer(Part):
    name: str
    op: str
    kind: str
    same_as: str | None
    bounds: dict[str, PositiveInt]


class Totals(_Strict):
    energy_pj: PositiveFloat
    cycles: PositiveInt
    outer_bits: PositiveFloat


class Resting(_Strict):
    model_config = ConfigDict(extra="forbid", strict=True)
    value: str
    level: str
    bytes: PositiveInt
    to: str
    begin: str


class Step(_Strict):
    op: str
    kind: str
    resident: dict[str, str]
    energy_pj: NonNegativeFloat
    cycles: NonNegativeInt
    outer_bits: NonNegativeFloat
    parts: list[Part]


class ResidencyData(_Strict):
    exact: bool
    weights_stay_in: str | None
    value: PositiveFloat
    bound: PositiveFloat
    resting: list[dict[str, str | int]]
    steps: list[Step]


class Data(_Strict):
    schema_version: Literal[1]
    workload: str
    accelerator: str
    objective: Literal["energy", "latency", "edp", "ed2p", "traffic"]
    mode: Literal["native", "timeloop"]
    energy_pj: PositiveFloat
    network_pj: NonNegativeFloat
    cycles: PositiveInt
    macs: PositiveInt
    gap: NonNegativeFloat
    unmapped: dict[str, PositiveInt]
    unmapped_reasons: dict[str, str]
    layers: list[Layer]
    residency: ResidencyData | None


def run(*arguments: str) -> str:
    return CliRunner().invoke(command, list(arguments), catch_exceptions=False).stdout


def data_of(*arguments: str) -> tuple[Data, dict[str, Any]]:
    """The printed JSON by its schema, which knows every key and no other, and the plain data."""
    plain = json.loads(run(*arguments, "--json"))
    checked = json.loads(json.dumps(plain))
    checked["schema_version"] = checked.pop("schema")
    residency = checked["residency"]
    if residency is not None:
        for key in ("without", "with"):
            Totals.model_validate_json(json.dumps(residency.pop(key)))
        for item in residency["resting"]:
            Resting.model_validate_json(json.dumps({**{k: v for k, v in item.items() if k != "from"},
                                                    "begin": item["from"]}))  # fmt: skip
    return Data.model_validate_json(json.dumps(checked)), plain


@pytest.mark.parametrize("model", SMALL)
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_small_networks_map_on_every_example(model: str, path: Path) -> None:
    data, plain = data_of(f"zoo:{model}", "--accelerator", str(path))
    assert data.gap == 0
    layers = data.layers
    assert data.cycles == sum(layer.repeat * layer.cycles + layer.extra_cycles for layer in layers)
    assert data.energy_pj == pytest.approx(sum(layer.repeat * layer.energy_pj + layer.extra_pj for layer in layers))
    assert set(data.unmapped) == set(data.unmapped_reasons)
    residency = data.residency
    assert residency is not None
    assert residency.exact
    without, within = plain["residency"]["without"], plain["residency"]["with"]
    for key in ("cycles", "energy_pj", "outer_bits"):
        assert within[key] == pytest.approx(sum(getattr(step, key) for step in residency.steps))
    assert within["energy_pj"] * within["cycles"] <= without["energy_pj"] * without["cycles"] * (1 + 1e-12)
    assert without["cycles"] >= data.cycles


def test_drawings_are_written_as_files_that_parse(tmp_path: Path) -> None:
    arguments = ("zoo:tiny_cnn", "--accelerator", str(EXAMPLES[0]), "--alone")
    run(*arguments, "--svg", str(tmp_path / "all"))
    data, _ = data_of(*arguments)
    files = sorted((tmp_path / "all").iterdir())
    assert len(files) == sum(layer.same_as is None for layer in data.layers)
    name = data.layers[1].name
    run(*arguments, "--layer", name, "--svg", str(tmp_path / "one.svg"))
    titles = [ElementTree.fromstring(p.read_text(encoding="utf-8"))[0].text or "" for p in files]
    assert all(title.endswith("eyeriss_like_14x12") for title in titles)
    assert (tmp_path / "one.svg").read_text(encoding="utf-8").count(f">{name}<") == 1
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    with pytest.raises(UsageError, match="cannot write drawings there"):
        run(*arguments, "--svg", str(tmp_path / "file" / "below"))


def test_sparsity_saves_energy_when_gated_and_cycles_when_skipped() -> None:
    arguments = ("zoo:tiny_cnn", "--accelerator", str(EXAMPLES[0]), "--alone", "--objective", "energy")
    dense, _ = data_of(*arguments)
    gated, _ = data_of(*arguments, "--density", "weight=0.5", "--gate", "weight")
    skipped, _ = data_of(*arguments, "--density", "weight=0.5", "--skip", "weight")
    packed, _ = data_of(*arguments, "--density", "weight=0.5", "--skip", "weight", "--compress", "weight")
    assert gated.energy_pj < dense.energy_pj
    assert sum(layer.mac_energy_pj for layer in gated.layers) == pytest.approx(
        0.5 * sum(layer.mac_energy_pj for layer in dense.layers)
    )
    assert skipped.cycles < gated.cycles
    assert packed.energy_pj < skipped.energy_pj
    for bad, message in (
        (("--density", "weight"), "is not NAME=SHARE"),
        (("--density", "weight=x"), "is not NAME=SHARE"),
        (("--density", "weigth=0.5"), "neither input, weight, output nor a tensor"),
        (("--gate", "weigth"), "did you mean 'weight'"),
    ):
        with pytest.raises(UsageError, match=message):
            run(*arguments, *bad)


def test_rules_of_a_file_bind_and_the_command_line_adds_to_them(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text("forbid: {columns: [Q]}\nstationary: {RF: weight}\n", encoding="utf-8")
    arguments = ("zoo:tiny_cnn", "--accelerator", str(EXAMPLES[0]), "--alone", "--constraints", str(rules))
    data, _ = data_of(*arguments, "--forbid", "rows=C")
    for layer in data.layers:
        assert "Q" not in dict(layer.spatial["columns"])
        assert "C" not in dict(layer.spatial["rows"])
        assert {item.role for item in layer.traffic if item.level == "RF"} == {"weight"}
    rules.write_text("require: {rows: [Z]}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="'Z' is not a dim of any layer"):
        run(*arguments)


def test_tables_say_what_rests_and_what_is_not_mapped() -> None:
    text = run("zoo:tiny_cnn", "--accelerator", str(EXAMPLES[0]))
    assert "what rests on the chip between layers" in text
    assert "nothing rests" in text
    assert "not mapped: softmax" in text
    assert "(normalization)" in text
    split = run("zoo:tiny_cnn", "--accelerator", str(EXAMPLES[1]))
    assert "no level of one instance holds both outputs and inputs" in " ".join(split.split())
