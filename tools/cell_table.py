"""Train every cell of the DARTS notebook's space once and keep the table in results/.

MINI_DATA=cifar10 python tools/cell_table.py --n-train 8000
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import joblib

from mini import data
from mini.course import notebook
from mini.darts import cell_table, cells
from mini.files import require_writable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n-train", type=int, default=4000, help="training images")
    parser.add_argument("--n-test", type=int, default=2000, help="test images")
    options = parser.parse_args()
    chosen = data.load(n_train=options.n_train, n_test=options.n_test)
    require_writable(cell_table.path_of(chosen).parent)  # not after all cells are trained
    device = notebook.device()
    workers = joblib.cpu_count() if device.type == "cpu" else 1
    table = cell_table.table(chosen, workers=workers, device=str(device))
    for cell in sorted(table, key=lambda cell: -table[cell].mean()):
        accuracies = " ".join(f"{accuracy:.3f}" for accuracy in table[cell])
        print(f"{cells.title(cell):24} {accuracies}")
    print(f"{cell_table.path_of(chosen).name}: {len(table)} cells")


if __name__ == "__main__":
    main()
