"""What the documents show is true: their configurations load and their commands exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from dse.cli.main import COMMANDS, cli
from dse.config.loader import load_mapping
from dse.config.models import DesignConfig, RunConfig
from dse.config.validation import validate

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


YAML_BLOCKS = [
    pytest.param(text, id=f"{path.name}-{index}")
    for path in DOCUMENTS
    for index, text in enumerate(blocks(path, "yaml"))
]
COMMAND_LINES = sorted(
    {
        line.split("#")[0].strip()
        for path in DOCUMENTS
        for block in blocks(path, "")
        for line in block.splitlines()
        if line.startswith("dse ") and not line.startswith("dse: ")
    }
)


@pytest.mark.parametrize("text", YAML_BLOCKS)
def test_every_configuration_shown_is_valid(text: str, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text, encoding="utf-8")
    if text.startswith("include:"):
        for name in ("my_network.yaml", "my_space.yaml"):
            (tmp_path / name).write_text("workload: {model: zoo:mlp}\naccelerator: {family: systolic}\n")
    data, marks, _ = load_mapping(tmp_path / "c.yaml")
    validate(DesignConfig if "family" in data else RunConfig, data, marks)


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_shown_parses(line: str) -> None:
    _, name, *arguments = shlex.split(line)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    command.make_context(name, arguments)  # raises for unknown options or missing arguments


def test_the_readme_lists_every_command() -> None:
    text = DOCUMENTS[0].read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `dse (\w+)", text, re.MULTILINE)) == set(COMMANDS)


def test_links_between_documents_lead_somewhere() -> None:
    for path in DOCUMENTS:
        for target in re.findall(r"\]\(([^)#:]+)\)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).is_file(), f"{path.name}: {target}"


def test_the_readme_has_exactly_the_two_set_up_commands() -> None:
    lines = [line for line in DOCUMENTS[0].read_text(encoding="utf-8").splitlines() if "python3 -m venv" in line]
    assert len(lines) == 2
    assert ".venv/bin/dse run configs/edge.yaml" in lines[0]
    assert lines[1].endswith(".venv/bin/pytest")
