"""Train every cell of the DARTS notebook's space once and keep the table in results/.

    MINI_DATA=cifar10 python tools/cell_table.py --n-train 8000 --n-pool 40000 --n-test 10000 \\
        --n-validation 5000

The notebook makes it by itself where it is not there; defaults are those of its quick run.
"""

import argparse
import sys
from dataclasses import replace
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
    parser.add_argument("--n-pool", type=int, default=8000, help="of so many that are drawn first")
    parser.add_argument("--n-test", type=int, default=2000, help="test images")
    parser.add_argument("--n-validation", type=int, default=1000, help="validation images")
    options = parser.parse_args()
    pool = data.load(
        n_train=options.n_pool, n_test=options.n_test, n_validation=options.n_validation
    )
    chosen = replace(pool, train=data.subset(pool.train, options.n_train, seed=0))
    require_writable(cell_table.path_of(chosen).parent)  # not after all cells are trained
    device = notebook.device()
    workers = joblib.cpu_count() if device.type == "cpu" else 1
    table = cell_table.table(chosen, workers=workers, device=str(device))
    for cell in sorted(table.test, key=lambda cell: -table.test[cell].mean()):
        accuracies = " ".join(f"{accuracy:.3f}" for accuracy in table.test[cell])
        print(f"{cells.title(cell):24} {accuracies}")
    print(f"{cell_table.path_of(chosen).name}: {len(table.test)} cells")


if __name__ == "__main__":
    main()
