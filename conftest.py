"""How many tests run at a time, here and in `tests/` and `notebooks/`."""

import os
from pathlib import Path


def pytest_xdist_auto_num_workers(config):
    """One process a core; none for a single file, or where notebooks keep all cores busy."""
    files = [Path(argument.partition("::")[0]) for argument in config.args]
    if os.environ.get("MINI_SCALE") == "quick" or (len(files) == 1 and files[0].is_file()):
        return 0
    import joblib

    return joblib.cpu_count()
