"""Loading: includes merge, overrides win, and every mistake is named with its file and line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.config import RangeConfig, SearchConfig, load_config, schema, shipped_configs
from dse.config.loader import MAX_FILES, apply_override, load_mapping
from dse.core.errors import ConfigError

MINIMAL = "workload:\n  model: zoo:resnet8\naccelerator:\n  family: systolic\n"


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_the_shipped_configurations_load() -> None:
    configs = {name: load_config(path).config for name, path in shipped_configs().items()}
    assert "edge" in configs
    edge = configs["edge"].search
    assert edge is not None
    assert "rows * columns <= 64" in edge.constraints
    assert edge.trials >= 300
    assert all(len(edge.choices(knob)) >= 2 for knob in edge.space)


def test_defaults_are_those_of_the_contract(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, "c.yaml", MINIMAL + "search: {}\n")).config
    assert config.search is not None
    assert config.search.objectives == ["latency_ms", "energy_uj", "area_mm2", "sqnr_db"]
    assert (config.workload.calibration.images, config.workload.calibration.seed) == (32, 0)
    assert (config.emit.winners, config.emit.verify) == (3, True)
    assert load_config(write(tmp_path, "d.yaml", MINIMAL)).config.search is None


def test_included_files_are_merged_deeply_and_the_including_file_wins(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    write(tmp_path / "base", "net.yaml", "workload:\n  model: net.onnx\n  dims: {N: 1, T: 2}\n")
    write(tmp_path / "base", "acc.yaml", "include: net.yaml\naccelerator:\n  family: systolic\n  hardware: {rows: 4}\n")
    top = write(
        tmp_path,
        "top.yaml",
        "include: [base/acc.yaml]\nworkload:\n  dims: {T: 7}\naccelerator:\n  hardware: {columns: 8}\n",
    )
    loaded = load_config(top)
    assert loaded.config.workload.dims == {"N": 1, "T": 7}
    assert loaded.config.accelerator.hardware == {"rows": 4, "columns": 8}
    assert [path.name for path in loaded.files] == ["top.yaml", "acc.yaml", "net.yaml"]
    # each value keeps the file and line it was written in, and a model is found beside the file that names it
    assert Path(loaded.marks["workload", "dims", "T"].file).name == "top.yaml"
    assert loaded.marks["workload", "dims", "T"].line == 3
    assert Path(loaded.marks["workload", "dims", "N"].file).name == "net.yaml"
    assert loaded.model_folder == tmp_path / "base"
    assert loaded.folder == tmp_path


mappings = st.recursive(
    st.integers(0, 9),
    lambda inner: st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=12,
).filter(lambda value: isinstance(value, dict))


def merged(base: Any, top: Any) -> Any:
    """Deep merge, written the obvious way on copies."""
    if not (isinstance(base, dict) and isinstance(top, dict)):
        return top
    keys = [*base, *(key for key in top if key not in base)]
    return {key: merged(base[key], top[key]) if key in base and key in top else {**base, **top}[key] for key in keys}


def leaves(data: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    if not isinstance(data, dict):
        return {path: data}
    return {item: leaf for key, value in data.items() for item, leaf in leaves(value, (*path, key)).items()}


@settings(max_examples=60, deadline=None)
@given(mappings, mappings, mappings)
def test_merging_equals_the_slow_merge_and_marks_follow_the_winner(
    tmp_path_factory: pytest.TempPathFactory, first: Any, second: Any, top: Any
) -> None:
    folder = tmp_path_factory.mktemp("merge")
    for name, data in (("1.yaml", first), ("2.yaml", second)):
        write(folder, name, yaml.safe_dump(data, default_flow_style=False))
    write(folder, "top.yaml", yaml.safe_dump({"include": ["1.yaml", "2.yaml"], **top}, default_flow_style=False))
    data, marks, _ = load_mapping(folder / "top.yaml")
    expected = merged(merged(first, second), top)
    assert data == expected
    for path in leaves(data):
        if not path:
            continue
        # the last file that has a leaf at the path wrote it
        winner = [name for name, part in (("1", first), ("2", second), ("top", top)) if path in leaves(part)][-1]
        assert Path(marks[path].file).stem == winner
        line = (folder / f"{winner}.yaml").read_text().splitlines()[marks[path].line - 1]
        assert line.strip().startswith(path[-1])


def test_overrides_are_yaml_and_the_last_one_wins(tmp_path: Path) -> None:
    path = write(tmp_path, "c.yaml", MINIMAL + "search:\n  space:\n    hardware.rows: [2, 4]\n")
    loaded = load_config(
        path,
        [
            "search.trials=7",
            "search.trials=9",
            "search.space.hardware.rows=[8, 16]",
            "search.space.hardware.columns={low: 2, high: 6, step: 2}",
            "accelerator.hardware.dataflow=os",
            "workload.dims.N=4",
            "emit.verify=false",
        ],
    )
    search = loaded.config.search
    assert search is not None
    assert search.trials == 9
    assert search.choices("hardware.rows") == (8, 16)
    assert search.choices("hardware.columns") == (2, 4, 6)
    assert loaded.config.accelerator.hardware == {"dataflow": "os"}
    assert loaded.config.workload.dims == {"N": 4}
    assert loaded.config.emit.verify is False


def test_an_override_forgets_the_marks_of_what_it_replaces() -> None:
    from dse.config.marked_yaml import parse

    data, marks = parse("a:\n  b: [1, 2, 3]\n", "f.yaml")
    apply_override(data, marks, "a.b=[5]")
    assert data == {"a": {"b": [5]}}
    assert set(marks) == {(), ("a",), ("a", "b"), ("a", "b", 0)}
    assert marks["a", "b", 0].file == "command line"


def test_a_model_given_on_the_command_line_is_relative_to_the_working_folder(tmp_path: Path) -> None:
    loaded = load_config(write(tmp_path, "c.yaml", MINIMAL), ["workload.model=net.onnx"])
    assert loaded.model_folder == Path.cwd()


@pytest.mark.parametrize(
    ("text", "overrides", "message"),
    [
        (MINIMAL + "serch: {}\n", [], r"c.yaml:5: serch: is not a known key; did you mean 'search'\?"),
        (
            MINIMAL + "search:\n  trails: 5\n",
            [],
            r"c.yaml:6: search.trails: is not a known key; did you mean 'trials'\?",
        ),
        (MINIMAL + "search:\n  trials: -5\n", [], "c.yaml:6: search.trials: must be at least 1, not -5"),
        (MINIMAL + "search:\n  trials: yes\n", [], "c.yaml:6: search.trials: must be an integer, not 'yes'"),
        (MINIMAL + "search:\n  trials: true\n", [], "must be an integer, not true"),
        (MINIMAL + "search:\n  trials: 1.5\n", [], "must be an integer, not 1.5"),
        (MINIMAL + "search:\n  sampler: nsga\n", [], r"'nsga' is not one of its values; did you mean 'nsga2'\?"),
        (MINIMAL + "search:\n  objectives:\n  - area_mm2\n  - latency\n", [], r"c.yaml:8: search.objectives\[1\]: "),
        (MINIMAL + "search:\n  objectives: []\n", [], "must have at least 1 entries"),
        (MINIMAL + "search:\n  constraints: [rows]\n", [], r"c.yaml:6: search.constraints\[0\]: 'rows': expected <="),
        (MINIMAL + "search:\n  space:\n    hardware.rows: []\n", [], "c.yaml:7: .*has no choices"),
        (MINIMAL + "search:\n  space:\n    hardware.rows: [2, 2]\n", [], "c.yaml:7: .*lists a choice twice"),
        (MINIMAL + "search:\n  space:\n    hardware.rows: [[2]]\n", [], "numbers, words, true and false"),
        (MINIMAL + "search:\n  space:\n    rows: [2]\n", [], "c.yaml:7: .*written hardware.NAME"),
        (MINIMAL + "search:\n  space:\n    hardware.rows: 2\n", [], "c.yaml:7: .*must be a list, not 2"),
        (
            MINIMAL + "search:\n  space:\n    hardware.rows: {low: 1, hihg: 2}\n",
            [],
            r"c.yaml:7: search.space.hardware.rows.hihg: .*did you mean 'high'\?",
        ),
        (MINIMAL + "search:\n  space:\n    hardware.rows: {low: 3, high: 2}\n", [], r"high \(2\) lies below low \(3\)"),
        (MINIMAL + "search:\n  space:\n    hardware.rows: {low: 0, high: 9999999}\n", [], "more than 10000 choices"),
        ("workload: {}\naccelerator: {family: systolic}\n", [], "c.yaml:1: workload.model: is missing"),
        ("workload: {model: zoo:resnet8}\n", [], "accelerator: is missing"),
        ("- a\n", [], "c.yaml: holds list"),
        ("", [], "c.yaml: is empty"),
        (MINIMAL + "workload: {}\n", [], r"c.yaml:5: workload: is given twice \(first on line 1\)"),
        ("include: nowhere.yaml\n", [], "c.yaml:1: include: file 'nowhere.yaml' does not exist"),
        ("include: 3\n", [], "c.yaml:1: include: must be a file or a list of files, not 3"),
        ("include: c.yaml\n", [], "includes itself: c.yaml -> c.yaml"),
        ("include: .\n", [], "is not a regular file"),
        (MINIMAL, ["search"], "'search' is not key=value"),
        (MINIMAL, ["=3"], "'=3' is not key=value"),
        (MINIMAL, ["a..b=3"], "is not key=value"),
        (MINIMAL, ["workload.model.x=3"], "workload.model is 'zoo:resnet8', which has no keys"),
        (MINIMAL, ["name=[1"], "command line: name: is not YAML"),
        (MINIMAL, ["workload.dims.N=0"], "command line: workload.dims.N: must lie in 1.."),
        (MINIMAL, ["name=../x"], "command line: name: must match"),
    ],
)
def test_each_mistake_is_named_where_it_stands(tmp_path: Path, text: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(write(tmp_path, "c.yaml", text), overrides)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_cycle_of_includes_is_shown(tmp_path: Path) -> None:
    write(tmp_path, "b.yaml", "include: c.yaml\n")
    write(tmp_path, "c.yaml", "include: a.yaml\n")
    with pytest.raises(ConfigError, match=r"a.yaml -> b.yaml -> c.yaml -> a.yaml"):
        load_config(write(tmp_path, "a.yaml", "include: b.yaml\n"))


def test_includes_cannot_fan_out_without_end(tmp_path: Path) -> None:
    leaf = "x.yaml"
    write(tmp_path, leaf, "name: x\n")
    top = write(tmp_path, "top.yaml", f"include: [{', '.join([leaf] * (MAX_FILES + 1))}]\n")
    with pytest.raises(ConfigError, match=f"more than {MAX_FILES} files"):
        load_config(top)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_is_refused_instead_of_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.yaml")
    with pytest.raises(ConfigError, match="not a regular file"):
        load_config(tmp_path / "pipe.yaml")


def test_files_that_are_no_text_or_too_large_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary.yaml").write_bytes(b"name: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        load_config(tmp_path / "binary.yaml")
    (tmp_path / "large.yaml").write_bytes(b"#" * 600_000)
    with pytest.raises(ConfigError, match="600000 bytes long"):
        load_config(tmp_path / "large.yaml")
    with pytest.raises(ConfigError, match="does not exist"):
        load_config(tmp_path / "absent.yaml")


@given(st.integers(-50, 50), st.integers(0, 60), st.integers(1, 9))
def test_a_range_holds_every_step_up_to_its_upper_bound(low: int, width: int, step: int) -> None:
    choices = RangeConfig(low=low, high=low + width, step=step).choices()
    assert list(choices) == list(range(low, low + width + 1, step))
    assert all(isinstance(choice, int) for choice in choices)


def test_a_real_range_does_not_lose_its_last_step() -> None:
    assert RangeConfig(low=0.1, high=0.7, step=0.1).choices()[-1] == pytest.approx(0.7)


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        SearchConfig().trials = 3  # type: ignore[misc]


def test_the_schema_describes_every_key_and_the_include() -> None:
    document = schema()
    assert set(document["properties"]) == {"name", "workload", "accelerator", "tech", "search", "emit", "include"}
    search = document["$defs"]["SearchConfig"]
    assert search["additionalProperties"] is False
    assert all("description" in rules for rules in search["properties"].values())
