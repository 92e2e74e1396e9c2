"""A family's parameters get messages as good as our own keys'."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, model_validator

from dse.config import Mark, validate_choices, validate_hardware
from dse.core.errors import ConfigError


class Hardware(BaseModel):
    """A stand-in for a family's model: every kind of field the families use."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    rows: int = Field(8, ge=2, le=256)
    dataflow: Literal["ws", "os"] = "ws"
    weight_bits: Literal[4, 8] = 8
    buffer_kib: float = Field(16.0, gt=0, le=64)
    sparse: bool = False
    sizes: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _sparse_needs_rows(self) -> Hardware:
        if self.sparse and self.rows < 4:
            raise ValueError(f"sparse needs rows >= 4, not {self.rows}")
        return self


PREFIX = ("accelerator", "hardware")
MARKS = {(*PREFIX, name): Mark("c.yaml", line) for line, name in enumerate(("rows", "row", "dataflow", "sparse"), 10)}
MARKS[PREFIX] = Mark("c.yaml", 9)


def message(data: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        validate_hardware(Hardware, data, MARKS, PREFIX)
    return str(caught.value)


def test_right_parameters_become_the_model() -> None:
    hw = validate_hardware(Hardware, {"rows": 4, "buffer_kib": 2, "sizes": [1, 2]}, MARKS, PREFIX)
    assert (hw.rows, hw.buffer_kib, hw.sizes) == (4, 2.0, (1, 2))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        ({"rows": 1}, "c.yaml:10: accelerator.hardware.rows: must be at least 2, not 1"),
        ({"rows": 300}, "c.yaml:10: accelerator.hardware.rows: must be at most 256, not 300"),
        ({"rows": "8"}, "c.yaml:10: accelerator.hardware.rows: must be an integer, not '8'"),
        ({"rows": True}, "c.yaml:10: accelerator.hardware.rows: must be an integer, not true"),
        ({"rows": None}, "c.yaml:10: accelerator.hardware.rows: must be an integer, not null"),
        ({"row": 4}, "c.yaml:11: accelerator.hardware.row: is not a known key; did you mean 'rows'?"),
        (
            {"dataflow": "sw"},
            "c.yaml:12: accelerator.hardware.dataflow: 'sw' is not one of its values; did you mean 'ws'",
        ),
        # not written anywhere itself (a preset's value): the nearest written ancestor gives the line
        ({"weight_bits": 5}, "c.yaml:9: accelerator.hardware.weight_bits: must be 4 or 8, not 5"),
        ({"buffer_kib": 0}, "c.yaml:9: accelerator.hardware.buffer_kib: must be more than 0.0, not 0"),
        ({"sizes": [1, "x"]}, "c.yaml:9: accelerator.hardware.sizes[1]: must be an integer, not 'x'"),
        ({"sizes": 3}, "c.yaml:9: accelerator.hardware.sizes: must be a list, not 3"),
        ({"sparse": True, "rows": 2}, "c.yaml:9: accelerator.hardware: sparse needs rows >= 4, not 2"),
    ],
)
def test_a_wrong_parameter_is_named_with_value_and_limit(data: dict[str, Any], expected: str) -> None:
    assert message(data).startswith(expected)


def test_an_unknown_key_is_reported_before_what_it_causes() -> None:
    assert "did you mean 'rows'" in message({"rows": 1, "row": 4})


def test_every_choice_of_a_searched_parameter_is_checked() -> None:
    prefix = ("search", "space", "hardware.rows")
    marks = {prefix: Mark("c.yaml", 20), (*prefix, 1): Mark("c.yaml", 22)}
    validate_choices(Hardware, "hardware.rows", [2, 256], marks, prefix)
    with pytest.raises(ConfigError, match=r"c.yaml:22: search.space.hardware.rows\[1\]: must be at most 256, not 512"):
        validate_choices(Hardware, "hardware.rows", [2, 512], marks, prefix)
    with pytest.raises(ConfigError, match=r"c.yaml:20: .*did you mean 'rows'\?"):
        validate_choices(Hardware, "hardware.rwos", [2], {("search",): Mark("c.yaml", 20)}, ("search", "x"))


def test_a_choice_is_judged_by_its_own_field_only() -> None:
    # sparse is invalid with the default of no other field: a cross-field rule is the search's business
    validate_choices(Hardware, "hardware.sparse", [True, False], {}, ("search",))
    with pytest.raises(ConfigError, match="must be true or false, not 1"):
        validate_choices(Hardware, "hardware.sparse", [1], {}, ("search",))
