"""Makes dse/tech/data/sram_cacti.csv anew: runs CACTI 7 over capacities, widths and nodes.

    python benchmarks/sram_table.py CACTI_FOLDER DEFAULT_CFG > sram_cacti.csv

CACTI_FOLDER holds the built program (`make opt` in the `cacti` folder of the hwcomponents-cacti wheel), DEFAULT_CFG is
that wheel's default_cfg.cfg. 1,125 runs, about three minutes on one core.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import tempfile
from pathlib import Path

NODES_NM = (22, 32, 45, 65, 90)
WIDTHS = (16, 32, 64, 128, 256)
#: Quarter octaves from 1 KiB to 2 MiB, in whole words of every width.
CAPACITIES = tuple(round(1024 * 2 ** (step / 4) / 32) * 32 for step in range(45))
HEADER = (
    "# CACTI 7 as hwcomponents-cacti 1.0.40 ships it and with its default settings (itrs-lstp cells and periphery, "
    "300 K, one read/write port, one bank), built from that source and run\n"
    "node_nm,capacity_bytes,word_bits,read_pj,write_pj,access_ns,area_um2,leakage_mw"
)


def run(program: Path, settings: str, node_nm: int, capacity: int, width: int) -> str:
    """One line of the table."""
    asked = {
        "-size (bytes)": capacity,
        "-read-write port ": 1,
        "-block size (bytes)": width // 8,
        "-technology (u)": node_nm / 1000,
        "-output/input bus width ": width,
        "-UCA bank": 1,
        "-cache type": '"ram"',
        "-tag size (b)": 0,
        "-associativity": 1,
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run.cfg"
        path.write_text(settings + "\n" + "".join(f"{key} {value}\n" for key, value in asked.items()))
        subprocess.run(["./cacti", "-infile", str(path)], cwd=program, check=True, capture_output=True)
        with path.with_name(path.name + ".out").open() as stream:
            row = list(csv.DictReader(stream))[-1]
    read, write = (float(row[f" Dynamic {kind} energy (nJ)"]) * 1e3 for kind in ("read", "write"))
    access, area = float(row[" Access time (ns)"]), float(row[" Area (mm2)"]) * 1e6
    leakage = float(row[" Standby leakage per bank(mW)"])
    figures = ",".join(f"{value:.6g}" for value in (read, write, access, area, leakage))
    return f"{node_nm},{capacity},{width},{figures}"


def main() -> None:
    """Write the table to standard output."""
    program, settings = Path(sys.argv[1]), Path(sys.argv[2]).read_text()
    sys.stdout.write(HEADER + "\n")
    for node_nm in NODES_NM:
        for capacity in CAPACITIES:
            for width in WIDTHS:
                sys.stdout.write(run(program, settings, node_nm, capacity, width) + "\n")


if __name__ == "__main__":
    main()
