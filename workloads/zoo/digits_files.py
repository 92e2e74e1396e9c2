"""The digits as data sets that a run and `dse quantize` read: `python -m workloads.zoo.digits_files FOLDER`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

from workloads.zoo.digits import CNN, MLP, Topology, dataset


def write_datasets(topology: Topology, folder: Path) -> list[Path]:
    """Write NAME_train.npz and NAME_test.npz, each with samples `x` and classes `y`, and return their paths."""
    data, paths = dataset(topology), []
    parts = {"train": (data.train_images, data.train_labels), "test": (data.test_images, data.test_labels)}
    for part, (images, labels) in parts.items():
        paths.append(folder / f"{topology.name}_{part}.npz")
        np.savez_compressed(paths[-1], x=images, y=labels)
    return paths


def main() -> None:
    """Write the data sets of both networks into a folder."""
    parser = argparse.ArgumentParser(prog="python -m workloads.zoo.digits_files", description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write; made when missing")
    folder: Path = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for topology in (CNN, MLP):
        for path in write_datasets(topology, folder):
            sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
