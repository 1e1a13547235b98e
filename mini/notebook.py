"""What every notebook does first and last: settings, seeds, claims judged, results kept.

run = notebook.start("08_sam", paper="SAM", quick={...}, full={...})
run.announce(Claim(...), ...)                 # before anything is measured
results = run.experiment(train_one, arms)     # every arm, every seed
run.judge("C1", results["sam"]["accuracy"], results["sgd"]["accuracy"])
run.finish()
"""

import json
import os
import platform
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace

import joblib
import torch
from IPython.display import Markdown

from mini import claims, data
from mini.experiment import Results, run_all, sources
from mini.files import write_atomically

ROOT = Path(__file__).resolve().parent.parent


def start(name: str, *, paper: str, quick: dict, full: dict) -> "Run":
    """Read MINI_SCALE, MINI_DATA, MINI_SEEDS and MINI_DEVICE, load the data, and begin a run.

    `quick` and `full` hold the same keys, one column of numbers for each scale; both need `seeds`,
    and `n_train`, `n_test` if the data is to be cut. Raises ValueError for a setting that is
    unknown.
    """
    scale = os.environ.get("MINI_SCALE") or "quick"
    columns = {"quick": quick, "full": full}
    if scale not in columns:
        raise ValueError(f"MINI_SCALE={scale!r}: expected 'quick' or 'full'.")
    if set(quick) != set(full) or "seeds" not in quick:
        raise ValueError("quick and full must have the same keys, and 'seeds' among them.")
    config = dict(columns[scale])
    seeds = os.environ.get("MINI_SEEDS") or str(config["seeds"])
    if not seeds.isdecimal() or int(seeds) < 2:
        raise ValueError(f"MINI_SEEDS={seeds!r}: expected a number of at least 2.")
    seeds = int(seeds)
    label = scale if seeds == config.pop("seeds") else f"{scale}-{seeds}seeds"
    # Imported here to spare worker processes, which import this module too, matplotlib.
    from mini import plots

    plots.use_style()
    dataset = data.load(n_train=config.get("n_train"), n_test=config.get("n_test"))
    run = Run(name, paper, scale, label, seeds, SimpleNamespace(**config), dataset, device())
    print(
        f"{dataset.title}: {len(dataset.train.labels):,} training and {len(dataset.test.labels):,}"
        f" test images; scale {scale}, {seeds} seeds, on {run.device} with {run.workers} at a time"
    )
    return run


def device() -> torch.device:
    """MINI_DEVICE, else CUDA, else Apple's MPS, else the CPU; ValueError if it cannot be had."""
    cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    name = os.environ.get("MINI_DEVICE") or ("cuda" if cuda else "mps" if mps else "cpu")
    numbered = [f"cuda:{i}" for i in range(torch.cuda.device_count())]
    available = ["cpu"] + ["cuda", *numbered] * cuda + ["mps"] * mps
    if name not in available:
        raise ValueError(f"MINI_DEVICE={name!r} is not here: use one of {', '.join(available)}.")
    return torch.device(name)


def seeded(seed: int) -> torch.Generator:
    """Seed torch's own generator, which draws the weights, and return one for data and noise."""
    torch.manual_seed(seed)
    return torch.Generator().manual_seed(seed)


class Run:
    """One notebook's run: its settings, its claims, and what came of them."""

    def __init__(
        self,
        name: str,
        paper: str,
        scale: str,
        label: str,
        seeds: int,
        config: SimpleNamespace,
        dataset: data.Dataset,
        device: torch.device,
    ):
        self.name, self.paper, self.config = name, paper, config
        self.scale, self.label = scale, label  # the label tells of another number of seeds
        self.data, self.device, self.seeds = dataset, device, range(seeds)
        self.workers = joblib.cpu_count() if device.type == "cpu" else 1
        self.claims: dict[str, claims.Claim] = {}
        self.judgements: dict[str, claims.Judgement] = {}
        self._started, self._saved_seconds = time.perf_counter(), 0.0

    def announce(self, *new: claims.Claim) -> None:
        """Write claims down before they are tested; each must be judged before `finish`."""
        for claim in new:
            if claim.id in self.judgements:
                raise ValueError(f"{claim.id} is judged already: a claim comes before its run.")
            if self.claims.get(claim.id, claim) != claim:
                raise ValueError(f"{claim.id} is announced already: give each claim its own id.")
            self.claims[claim.id] = claim
            print(f"{claim.id:4} {claim.text}")

    def experiment(self, function: Callable[..., dict], arms: dict[str, dict]) -> Results:
        """Call `function(seed, **arms[arm])` for every arm and seed: `result[arm][measure][seed]`.

        `function` returns numbers or arrays. On a CPU the calls run in separate processes with one
        thread each, which is faster than threads and gives the same numbers for any count of cores.
        At full scale each call's result is kept in build/progress/ until the function, what it
        calls, or a setting changes, so that a killed run resumes. Raises ValueError if there is no
        source of the function to tell such a change by.
        """
        kept, fingerprint = None, ""
        if self.scale == "full":
            kept = ROOT / "build" / "progress" / f"{self.name}-{self.data.name}"
            fingerprint = self._fingerprint(function)
        results, saved = run_all(
            function, arms, self.seeds, workers=self.workers, kept=kept, fingerprint=fingerprint
        )
        self._saved_seconds += saved
        return results

    def _fingerprint(self, function: Callable) -> str:
        """Changes with the function, what it calls, the settings, the data and all of `mini`."""
        parts = [*sources(function).values(), repr(sorted(vars(self.config).items()))]
        parts += [self.data.name, str(self.data.train.images.shape), str(self.data.mean.tolist())]
        parts += [path.read_text("utf-8") for path in sorted((ROOT / "mini").glob("*.py"))]
        return "".join(parts)

    def judge(
        self, id: str, ours: Sequence[float], baseline: Sequence[float] | None = None
    ) -> claims.Judgement:
        """Judge an announced claim by paired values, one per seed (see `mini.claims.judge`)."""
        if id not in self.claims:
            raise ValueError(f"{id!r} was not announced: expected one of {', '.join(self.claims)}.")
        self.judgements[id] = claims.judge(self.claims[id], ours, baseline)
        return self.judgements[id]

    def exact(self, id: str, *errors: float) -> None:
        """Judge an exact claim by its errors; AssertionError if one is too large."""
        judgement = self.judge(id, errors)
        assert judgement.verdict == "exact", (
            f"{id}: error {judgement.mean:.3g} exceeds {judgement.claim.margin:g}"
        )
        print(f"{id} holds to {judgement.claim.margin:g}: {judgement.claim.text}")

    def table(self, *ids: str) -> Markdown:
        """The judged claims (or those named), with numbers: claim | paper | here | verdict."""
        return Markdown(claims.table([self.judgements[id] for id in ids or self.judgements]))

    def verdicts(self) -> None:
        """Print the verdicts that are safe to compare strictly: exact ones, and those gated."""
        for id, judgement in self.judgements.items():
            if judgement.claim.gated or judgement.claim.kind == "exact":
                print(f"{id:4} {judgement.verdict}")

    def finish(self) -> None:
        """Write the run's JSON; ValueError if an announced claim was never judged.

        It goes to MINI_RESULTS; else a full run's to results/, a quick one's to build/results/.
        """
        if missing := self.claims.keys() - self.judgements.keys():
            raise ValueError(f"Announced but never judged: {', '.join(sorted(missing))}.")
        seconds = time.perf_counter() - self._started + self._saved_seconds
        folder = "results" if self.scale == "full" else "build/results"
        path = ROOT / (os.environ.get("MINI_RESULTS") or folder)
        path = path / f"{self.name}-{self.data.name}-{self.label}.json"
        record = {
            "notebook": self.name,
            "paper": self.paper,
            "dataset": self.data.name,
            "dataset_title": self.data.title,
            "scale": self.scale,
            "seeds": list(self.seeds),
            "config": vars(self.config),
            "seconds": round(seconds, 1),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": {
                "processor": processor(),
                "cores": joblib.cpu_count(),
                "device": str(self.device),
            },
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "torchvision", "numpy", "scipy")},
            "claims": [judgement.as_dict() for judgement in self.judgements.values()],
        }
        write_atomically(path, lambda file: file.write(json.dumps(record, indent=1).encode()))
        print(f"{seconds:.0f} s; {path.name} written to {path.parent.name}/")


def recorded(name: str, dataset: str, scale: str) -> Markdown:
    """The judged table of an earlier run, as `results/` holds it, with its machine and date."""
    path = ROOT / "results" / f"{name}-{dataset}-{scale}.json"
    if not path.exists():
        return Markdown(f"No run of {name} on {dataset} at scale {scale} is recorded yet.")
    record = json.loads(path.read_text())
    judged = [claims.Judgement.from_dict(row) for row in record["claims"]]
    return Markdown(
        f"{record['dataset_title']}, {len(record['seeds'])} seeds, {record['seconds'] / 60:.0f}"
        f" minutes on {record['machine']['cores']} cores ({record['machine']['device']}),"
        f" {record['date']}\n\n" + claims.table([j for j in judged if j.claim.kind != "exact"])
    )


def processor() -> str:
    """The processor's name as people know it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
