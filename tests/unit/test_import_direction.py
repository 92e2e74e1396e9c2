"""The house keeps its shape: import direction, no cycles, sizes. Found by parsing, not by importing."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

#: Rooms of `dse`, innermost first; rooms of one line do not import each other.
LAYERS = (
    ("core",),
    ("config", "tech"),
    ("ir",),
    ("arch",),
    ("mapping", "program", "metrics"),
    ("backend",),
    ("compiler",),
    ("sim",),
    ("search", "rtl", "peers"),
    ("validate", "report"),
    ("flow", "testing"),
    ("cli",),
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}
PACKAGES = ("dse", "accelerators", "workloads")
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES_P95 = 50


def source_files(*tops: str) -> list[Path]:
    return sorted(path for top in tops for path in (ROOT / top).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(tree: ast.Module, module: str, *, is_package: bool = False, executed_only: bool = False) -> Iterator[str]:
    """Dotted names that `tree` imports, absolute; with `executed_only` those at module level when it is imported.

    Imports under `if TYPE_CHECKING:` never run and are left out.
    """

    def walk(node: ast.AST) -> Iterator[str]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.orelse:
                yield from walk(child)
            return
        if executed_only and isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parents = module.split(".") if is_package else module.split(".")[:-1]
                base = ".".join([*parents[: len(parents) - node.level + 1], *([base] if base else [])])
            # `name` of `from package import name` is a module or something in one: `owner` tells which
            yield from (f"{base}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            yield from walk(child)

    yield from walk(tree)


def room_of(module: str) -> str | None:
    """The room of a module of `dse`; the package itself and its entry point stand outside all rooms."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "dse" and parts[1] != "__main__" else None


def violation(importer: str, imported: str) -> str | None:
    """Why `importer` may not import `imported`, or None when it may."""
    top, target = importer.split(".")[0], imported.split(".")[0]
    if target not in PACKAGES:
        return None
    if top == "dse" and target != "dse":
        return f"{importer} imports {imported}: dse reaches plug-ins through entry points only"
    if {top, target} == {"accelerators", "workloads"}:
        return f"{importer} imports {imported}: plug-in packages do not know each other"
    if top == target == "accelerators":
        own, other = importer.split(".")[1:2], imported.split(".")[1:2]
        if own and other and own != other:
            return f"{importer} imports {imported}: families do not know each other"
    here, there = room_of(importer), room_of(imported)
    if top != "dse" and there == "cli":
        return f"{importer} imports {imported}: a plug-in does not use the command line"
    if here is None or there is None or here == there or there not in RANK:
        return None
    if RANK[there] >= RANK[here]:
        return f"{importer} imports {imported}: room {there!r} is not to the left of {here!r}"
    return None


def owner(imported: str, modules: Collection[str]) -> str | None:
    """The module that importing a dotted name runs: the name itself, or the module it is taken from."""
    return next((name for name in (imported, imported.rpartition(".")[0]) if name in modules), None)


def all_imports(*, executed_only: bool = False) -> Iterator[tuple[str, str]]:
    for path in source_files(*PACKAGES):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = module_name(path)
        is_package = path.name == "__init__.py"
        for imported in imports(tree, module, is_package=is_package, executed_only=executed_only):
            yield module, imported


def find_cycle(graph: dict[str, set[str]]) -> list[str] | None:
    """One cycle of a directed graph as a list of nodes, or None. Depth first, three colours."""
    state: dict[str, int] = {}

    def visit(node: str, stack: list[str]) -> list[str] | None:
        state[node] = 1
        for following in sorted(graph.get(node, ())):
            if state.get(following) == 1:
                return [*stack[stack.index(following) :], following]
            if following not in state:
                found = visit(following, [*stack, following])
                if found:
                    return found
        state[node] = 2
        return None

    for node in sorted(graph):
        if node not in state:
            found = visit(node, [node])
            if found:
                return found
    return None


def function_lengths(tree: ast.Module) -> list[int]:
    """Lines of every function, signature and docstring included."""
    return [
        (node.end_lineno or node.lineno) - node.lineno + 1
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


def test_every_import_follows_the_direction_of_the_rooms() -> None:
    broken = sorted({found for pair in all_imports() if (found := violation(*pair))})
    assert not broken, "\n".join(broken)


def test_every_room_of_dse_has_its_place_in_the_order() -> None:
    rooms = {path.parent.name for path in (ROOT / "dse").glob("*/__init__.py")}
    assert rooms == set(RANK)


def test_no_modules_import_each_other_in_a_cycle() -> None:
    modules = {module_name(path) for path in source_files(*PACKAGES)}
    graph: dict[str, set[str]] = {}
    for importer, imported in all_imports(executed_only=True):
        target = owner(imported, modules)
        if target is not None and target != importer:
            graph.setdefault(importer, set()).add(target)
    cycle = find_cycle(graph)
    assert cycle is None, " -> ".join(cycle or [])


def test_no_file_is_longer_than_one_job() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in source_files(*PACKAGES, "tests")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_FILE_LINES
    }
    assert not long, f"files above {MAX_FILE_LINES} lines: {long}"


def test_functions_stay_short() -> None:
    lengths = [
        length
        for path in source_files(*PACKAGES)
        for length in function_lengths(ast.parse(path.read_text(encoding="utf-8")))
    ]
    assert statistics.quantiles(lengths, n=20)[-1] < MAX_FUNCTION_LINES_P95


def test_no_library_module_prints_or_ends_the_process() -> None:
    found = []
    for path in source_files(*PACKAGES):
        if path == ROOT / "dse" / "__main__.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "exit", "sys.exit"):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node.func)}")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("dse.core.errors", "dse.config.models"),
        ("dse.sim.level_a", "dse.flow"),
        ("dse.metrics.metrics", "dse.program.taskgraph"),
        ("dse.flow.run", "dse.testing.conformance"),
        ("dse.flow.run", "accelerators.systolic"),
        ("dse.cli.list", "workloads"),
        ("accelerators.systolic.lower", "workloads.zoo"),
        ("accelerators.systolic.lower", "accelerators.npu.timing"),
        ("workloads.onnx", "accelerators"),
        ("accelerators.systolic.lower", "dse.cli.main"),
    ],
)
def test_the_rule_catches_a_wrong_import(importer: str, imported: str) -> None:
    assert violation(importer, imported) is not None


@pytest.mark.parametrize(
    ("importer", "imported"),
    [
        ("dse.cli.run", "dse.config"),
        ("dse.config.loader", "dse.config.models"),
        ("dse.__main__", "dse.cli.main"),
        ("accelerators.systolic.lower", "dse.sim"),
        ("accelerators.systolic.lower", "accelerators.systolic.hardware"),
        ("workloads.onnx.reader", "dse.ir"),
        ("dse.sim.level_c", "simpy"),
    ],
)
def test_the_rule_lets_a_right_import_pass(importer: str, imported: str) -> None:
    assert violation(importer, imported) is None


def test_imports_are_found_wherever_they_stand() -> None:
    tree = ast.parse(
        "import a.b\n"
        "from c import d\n"
        "from . import sibling\n"
        "from ..other import thing\n"
        "if TYPE_CHECKING:\n    import never\nelse:\n    import always\n"
        "def f():\n    import inside\n"
    )
    everything = set(imports(tree, "dse.room.module"))
    assert {"a.b", "c.d", "dse.room.sibling", "dse.other.thing", "always", "inside"} <= everything
    assert "never" not in everything
    assert "inside" not in set(imports(tree, "dse.room.module", executed_only=True))
    assert "dse.room.sibling" in set(imports(tree, "dse.room", is_package=True))


def test_a_cycle_is_found_and_a_diamond_is_none() -> None:
    assert find_cycle({"a": {"b"}, "b": {"c"}, "c": {"a"}}) == ["a", "b", "c", "a"]
    assert find_cycle({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}}) is None
