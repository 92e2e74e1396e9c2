"""The configurations that come with the package, wherever it is installed."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from dse.core.errors import ConfigError, nearest


def shipped_configs() -> dict[str, Path]:
    """Shipped run configurations by name, such as {"edge": .../edge.yaml}.

    Raises
    ------
    ConfigError: the package was unpacked without its data.
    """
    package = Path(str(resources.files("dse")))
    # a wheel carries them inside the package; a checkout (editable install) has them beside it
    for folder in (package / "_configs", package.parent / "configs"):
        if folder.is_dir():
            return {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    raise ConfigError("the shipped configurations are missing from this installation", file=str(package))


def find_config(spec: str) -> Path:
    """The file that `spec` means: a path, or the name of a shipped configuration.

    Raises
    ------
    ConfigError: neither.
    """
    path = Path(spec)
    if path.exists():
        return path
    shipped = shipped_configs()
    if spec in shipped:
        return shipped[spec]
    raise ConfigError(f"is neither a file nor a shipped configuration{nearest(path.stem, shipped)}", file=spec)
