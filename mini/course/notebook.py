"""What every notebook does first and last: settings, seeds, claims judged, results kept.

run = notebook.start("08_sam", paper="SAM", quick={...}, full={...})
run.announce(Claim(...), ...)                 # before anything is measured
results = run.experiment(train_one, arms)     # every arm, every seed
run.judge("C1", results["sam"]["accuracy"], results["sgd"]["accuracy"])
run.finish()
"""

import functools
import hashlib
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import joblib
import numpy as np
import torch
from torch import nn

from mini import data
from mini.course import check, claims, records
from mini.course.experiment import Results, keep, options_text, run_all
from mini.course.keys import digest
from mini.data import Dataset
from mini.files import ROOT, require_writable, user_folder, write_atomically

CHANGED = "changed since its full record"
OF_TWENTY_SEEDS = ("config", "gates", "images", "experiments", "dropped")
OF_A_FULL_RECORD = ("dataset", "dataset_title", "seeds", "date", "claims")
OF_A_SITTING = ("seeds", "seconds", "sittings", "experiments", "passed_on", "options", "returned")

if TYPE_CHECKING:  # worker processes import this module too, and show nothing
    from IPython.display import Markdown


def start(
    name: str,
    *,
    paper: str,
    quick: dict,
    full: dict,
    digits: str = "digits",
    full_on: tuple[str, ...] = ("cifar10", "cifar10-jpeg"),
    classes: tuple[int, float] = (2, math.inf),
    a_class: int = 1,
) -> "Run":
    """Read MINI_SCALE, MINI_DATA, MINI_SEEDS and MINI_DEVICE, load the data, and begin a run.

    `quick` and `full` hold the same keys, one column of numbers for each scale; both need `seeds`,
    and `n_train`, `n_test`, `n_validation` if the data is to be cut. The scale `check` has quick's
    settings and one seed, which is compared with recorded ones. Where MINI_DATA names none, the
    data set is `digits`, "digits" or "plain-digits", and at the scale `full` the first of
    `full_on`: those whose full record is the evidence, the better one first. Raises ValueError for
    a setting that is unknown, for a folder of results that cannot be written, and for data that has
    not from the first to the second of `classes`, or fewer than `a_class` training or test images
    of one.
    """
    scale = os.environ.get("MINI_SCALE") or "quick"
    columns = {"quick": quick, "full": full, "check": quick}
    if scale not in columns:
        raise ValueError(f"MINI_SCALE={scale!r}: expected 'quick', 'full' or 'check'.")
    if set(quick) != set(full) or "seeds" not in quick:
        raise ValueError("quick and full must have the same keys, and 'seeds' among them.")
    config = dict(columns[scale])
    seeds = os.environ.get("MINI_SEEDS") or str(config["seeds"])
    if not seeds.isdecimal() or int(seeds) < 1:
        raise ValueError(f"MINI_SEEDS={seeds!r}: expected a number of at least 1.")
    seeds = [check.SEED] if scale == "check" else range(int(seeds))
    usual = config.pop("seeds")
    label = scale if scale == "check" or len(seeds) == usual else f"{scale}-{len(seeds)}seeds"
    # Imported here to spare worker processes, which import this module too, matplotlib.
    from mini.course import plots

    plots.use_style()
    if scale != "check":  # which writes nothing; the others should not fail after hours
        require_writable(results_folder(scale) / name)
    if scale == "full":
        require_writable(ROOT / "build" / "progress" / name)
    source = data.named(full_on[0] if scale == "full" else digits)
    run = Run(
        name, paper, scale, label, seeds, SimpleNamespace(**config), source, device(), full_on
    )  # fmt: skip
    _require_classes(run, classes, a_class)
    parts = f"{len(run.data.train.labels):,} training and {len(run.data.test.labels):,} test images"
    how_many = f"{len(seeds)} seed" + ("s" if len(seeds) > 1 else "")
    print(
        f"{run.data.title}: {parts}; scale {scale}, {how_many}, "
        f"on {run.device} with {run.workers} at a time"
    )
    if source not in data.sets.NAMES:
        print(
            "half of the images are mirrored in training: MINI_MIRROR=no for digits and the like"
            if run.data.mirror
            else "no image is mirrored in training, as MINI_MIRROR=no"
        )
    return run


def _require_classes(run: "Run", classes: tuple[int, float], a_class: int) -> None:
    (fewest, most), found = classes, len(run.data.classes)
    if not fewest <= found <= most:
        upwards = " or more" if most == math.inf else f" to {most}"
        wanted = f"{fewest}{upwards if fewest < most else ''}"
        raise ValueError(
            f"{run.name} needs {wanted} classes, and {run.data.title} has {found}: choose other "
            "data by MINI_DATA, such as a folder of so many."
        )
    for part in ("train", "test"):
        counts = getattr(run.data, part).labels.bincount(minlength=found)
        if (fewest := int(counts.min())) < a_class:
            raise ValueError(
                f"{run.name} needs {a_class} {part} images of each class at scale {run.scale}, and "
                f"of {run.data.title} it takes {fewest} of {run.data.classes[counts.argmin()]}: "
                "choose data of fewer classes, or with more images, by MINI_DATA."
            )


def results_folder(scale: str) -> Path:
    """Where a run's record goes: MINI_RESULTS; else results/ if it is full, or build/results/."""
    return user_folder("MINI_RESULTS") or ROOT / ("results" if scale == "full" else "build/results")


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
        seeds: Sequence[int],
        config: SimpleNamespace,
        source: str,
        device: torch.device,
        full_on: tuple[str, ...],
    ):
        self.name, self.paper, self.config = name, paper, config
        self.scale, self.label = scale, label  # the label tells of another number of seeds
        self.source, self.device, self.seeds, self.full_on = source, device, seeds, full_on
        self.precision = "float32"
        self.workers = joblib.cpu_count() if device.type == "cpu" and scale != "check" else 1
        self.claims: dict[str, claims.Claim] = {}
        self.judgements: dict[str, claims.Judgement] = {}
        self.experiments: dict[str, Results] = {}
        self._returned: dict[str, dict[str, set[str]]] = {}  # measures, before a cell adds its own
        self._fingerprints: dict[str, str] = {}
        self._passed_on: dict[str, list[str]] = {}
        self._options: dict[str, dict[str, str]] = {}
        self._sittings: list[dict] = []
        self._compared = 0
        self._started, self._saved_seconds = time.perf_counter(), 0.0

    def counts_as(self) -> object:
        """What of a run moves the numbers of a function that uses it; see `mini.course.keys`."""
        return vars(self.config), self.precision

    def __getstate__(self) -> dict:
        """What a worker process needs: no data, which it loads by itself, and no results."""
        kept = ("name", "paper", "config", "scale", "label", "source", "device", "seeds")
        kept += ("precision",)
        return {name: getattr(self, name) for name in kept}

    @property
    def data(self) -> Dataset:
        """The data of seed 0, for figures, and for experiments whose seeds share their data."""
        return self.data_of(0)

    def data_of(self, seed: int) -> Dataset:
        """The training, validation and test images that `seed` draws from the pool."""
        names = ("n_train", "n_test", "n_validation")
        sizes = ((name, getattr(self.config, name)) for name in names if hasattr(self.config, name))
        return _drawn(self.source, tuple(sizes), seed)

    def choose_precision(self, networks: nn.Module | Sequence[nn.Module], *inputs) -> str:
        """What `networks`, called with `inputs`, train faster in together: "bfloat16" or "float32".

        Measured at full scale only, once, before the experiments, so that all arms and seeds share
        the answer; it is named in the record. The other scales are float32.
        """
        if self.scale == "full":
            from mini.training import precision_for

            note = ROOT / "build" / "progress" / self.name / self.data.name / "precision"
            known = note.read_bytes().decode(errors="replace").strip() if note.exists() else ""
            if known not in ("bfloat16", "float32"):  # what is resumed goes on as it began
                known = precision_for(networks, *inputs)
                write_atomically(note, lambda file: file.write(known.encode()))
            self.precision = known
        print(f"networks are trained in {self.precision}")
        return self.precision

    def announce(self, *new: claims.Claim) -> None:
        """Write claims down before they are tested; each must be judged before `finish`.

        Raises ValueError for an id that is taken, a family whose headline is not announced with
        its first claim, and a control that is unknown or is no control.
        """
        known = {claim.id: claim for claim in new} | self.claims
        for claim in new:
            if known[claim.id] != claim or sum(other.id == claim.id for other in new) > 1:
                raise ValueError(f"{claim.id} is announced already: give each claim its own id.")
            if claim.id not in self.claims and claim.kind != "exact" and self.experiments:
                raise ValueError(
                    f"{claim.id} comes after an experiment: announce it before, in a fresh kernel."
                )
            headline = known.get(claim.family)
            if headline is None or headline.family != headline.id or headline.role != claim.role:
                raise ValueError(
                    f"{claim.id} is of the family {claim.family!r}: expected the id of its "
                    "headline, announced before or together with it, in the same role."
                )
            for id in claim.needs:
                if id not in known or known[id].role != "control":
                    raise ValueError(
                        f"{claim.id} needs {id!r}: announce that control before, or together."
                    )
        for claim in new:
            self.claims[claim.id] = claim
            self.judgements.pop(claim.id, None)  # the cell is run again
            print(f"{claim.id:4} {claim.text}")

    def experiment(
        self,
        function: Callable[..., dict],
        arms: dict[str, dict],
        *,
        given: Results | None = None,
        name: str | None = None,
    ) -> Results:
        """Call `function(seed, **arms[arm])` for every arm and seed: `result[arm][measure][seed]`.

        `function` returns numbers, arrays or text. With `given`, the results of an earlier
        experiment, it is also called with `given={arm: row}`, what that one found with the same
        seed; a measure whose name begins with `_` is passed on like that and not kept, and may be
        a dict of tensors. In the record the experiment has the function's name, or `name`.

        On a CPU the calls run in separate processes with one thread each, which is faster than
        threads and gives the same numbers for any count of cores. At full scale each call's result
        is kept in build/progress/ until the function, what it uses beside it and of `mini`, or a
        setting changes, so that a killed run resumes; seeds of an earlier record made by the same
        code are taken from there. At the scale `check` every scalar measure is compared with the
        twenty seeds of the record: AssertionError names those that are beyond. Raises ValueError if
        there is no source of the function to tell a change by, no record to compare with, or if an
        arm was run under this name with other options (but at quick scale, where cells are run
        again).
        """
        name = name or getattr(function, "__name__", "experiment")
        options = self._options.setdefault(name, {})
        for arm in arms:
            text = options_text(arms[arm])
            if options.get(arm, text) != text and self.scale != "quick":
                raise ValueError(
                    f"{name!r} was run with {arm!r} before, and other options: give this "
                    "experiment a name= of its own."
                )
            options[arm] = text
        kept, fingerprint = None, ""
        if self.scale == "full":
            kept = ROOT / "build" / "progress" / self.name / self.data.name
            fingerprint = self._fingerprint(function) + ("" if given is None else given.fingerprint)
            self._fingerprints[name] = hashlib.sha256(fingerprint.encode()).hexdigest()
            self._take_over(name, arms, kept, fingerprint)

        def once(seeds: Sequence[int], arms: dict, given: Results | None) -> tuple[Results, float]:
            return run_all(
                function, arms, seeds,
                workers=self.workers, kept=kept, fingerprint=fingerprint, given=given,
            )  # fmt: skip

        def again(seed: int, names: Iterable[str] = tuple(arms)) -> Results:
            earlier = None if given is None else given.again(seed)
            return once([seed], {arm: arms[arm] for arm in names}, earlier)[0]

        results, saved = once(self.seeds, arms, given)
        results.again = again
        key = f"{fingerprint}{sorted((arm, options[arm]) for arm in arms)!r}"
        results.fingerprint = hashlib.sha256(key.encode()).hexdigest()
        first = (rows[0] for rows in results.rows.values())
        self._passed_on[name] = sorted({key for row in first for key in row if key[0] == "_"})
        self._saved_seconds += saved
        if self.scale == "check":
            self._compare(name, results)
        self.experiments[name] = self.experiments.get(name, {}) | results
        returned = self._returned.setdefault(name, {})
        returned.update({arm: set(measures) for arm, measures in results.items()})
        return results

    def evidence(self, experiment: str | None = None) -> records.Measures:
        """What the full record holds of an experiment, to draw the same figures from.

        It is that of the first of `full_on` which has one; a full run is its own evidence.
        `experiment` may be left out where there is one. Raises ValueError if none is recorded.
        """
        if self.scale == "full":
            print(f"{self.data.title}, {len(self.seeds)} seeds, this run")
            names = [experiment] if experiment else list(self.experiments)
            if len(names) != 1 or names[0] not in self.experiments:
                known = ", ".join(self.experiments) or "none yet"
                raise ValueError(f"experiment={experiment!r}: expected one of {known}.")
            return self.experiments[names[0]]
        record = self._full_record()
        dataset, folder = record["dataset"], ROOT / "results"
        print(f"{record['dataset_title']}, {len(record['seeds'])} seeds, {record['date']}")
        return records.load(self.name, dataset, "full", experiment, folder=folder)

    def _compare(self, name: str, results: Results) -> None:
        """Hold one seed against the twenty of the record."""
        record = self._record(f"quick-{claims.EVIDENCE}seeds")
        if json.loads(json.dumps(vars(self.config))) != record["config"]:
            raise ValueError(
                f"The settings of {self.name} have changed since its twenty seeds were recorded: "
                f"MINI_SEEDS=20 MINI_RESULTS=results make run NB={self.name} does it again."
            )
        place = (self.name, self.data.name, f"quick-{claims.EVIDENCE}seeds", name)
        count, findings = check.compare(
            results,
            records.load(*place, folder=ROOT / "results"),
            record["gates"].get(name, {}),
            record["images"],
            run=results.again,
        )
        self._compared += count
        if findings:
            raise AssertionError(f"{name}: " + "\n".join(findings))

    def _not_compared(self) -> list[str]:
        """Measures that the record of twenty seeds names as not comparable; AssertionError for an
        experiment or an arm that it has and this run has not."""
        if not self.experiments:
            return []
        record = self._record(f"quick-{claims.EVIDENCE}seeds")
        for name, arms in record["experiments"].items():
            if lost := [arm for arm in arms if arm not in self._returned.get(name, {})]:
                raise AssertionError(f"{name}: twenty seeds have {', '.join(lost)}, this run not.")
        return record["dropped"]

    def _record(self, scale: str) -> dict:
        """A record of this notebook on this data, or the sentence that says how to make it."""
        try:
            needs = ("claims",) if scale == "quick" else OF_TWENTY_SEEDS
            folder = ROOT / "results"
            return records.read(self.name, self.data.name, scale, folder=folder, needs=needs)
        except ValueError as problem:
            raise ValueError(
                f"{problem} The scale `check` needs it: MINI_SEEDS=20 MINI_RESULTS=results make "
                f"run NB={self.name} records twenty seeds, make notebooks NB={self.name} the rest."
            ) from None

    def _take_over(self, name: str, arms: dict, kept: Path, fingerprint: str) -> None:
        """Keep what records of fewer seeds hold of this experiment, if the same code made them."""
        folder = ROOT / "results"
        for path in sorted((folder / self.name).glob(f"{self.data.name}-full-*seeds.json")):
            scale = path.stem.removeprefix(f"{self.data.name}-")
            record = records.read(self.name, self.data.name, scale, folder=folder)
            if record.get("fingerprints", {}).get(name) != self._fingerprints[name]:
                continue
            records.parse(path, OF_A_SITTING)
            if len(record["seeds"]) >= len(self.seeds):
                continue
            found = records.load(self.name, self.data.name, scale, name, folder=folder)
            calls = len(record["seeds"]) * sum(len(a) for a in record["experiments"].values())
            seconds, lost = record["seconds"] * self.workers / calls, record["passed_on"][name]
            for place, seed in enumerate(record["seeds"]):
                for arm in arms.keys() & found.keys():
                    if record["options"][name][arm] != options_text(arms[arm]):
                        continue
                    measures = {k: found[arm].get(k, ()) for k in record["returned"][name][arm]}
                    row = {key: v[place] for key, v in measures.items() if place < len(v)}
                    missing = [*lost, *(measures.keys() - row.keys())]
                    keep((kept, fingerprint, arm, seed, arms[arm]), row, missing, seconds)
            self._sittings += [s for s in record["sittings"] if s not in self._sittings]

    def _fingerprint(self, function: Callable) -> str:
        """Changes with the function and all that it uses, the settings, the data and `mini.data`,
        which draws them; of `mini`, with what the modules do that are used, but `mini.course`,
        which changes no number."""
        parts = [
            digest(function),
            digest(seeded),
            digest(sorted(vars(self.config).items())),
            self.precision,
            self.data.name,
            digest(self.data),  # an object of mini.data, which is met so by every run
            data.pool_digest(self.source),
        ]
        return "\0".join(parts)

    def judge(
        self, id: str, ours: Sequence[float], baseline: Sequence[float] | None = None
    ) -> claims.Judgement:
        """Judge an announced claim by paired values, one per seed, with `mini.course.claims`.

        Controls come first: ValueError for a claim that needs one which is not judged yet. At the
        scale `check` the verdict is the record's, and AssertionError says that the one value of a
        gated claim is not on the claimed side.
        """
        if id not in self.claims:
            raise ValueError(f"{id!r} was not announced: expected one of {', '.join(self.claims)}.")
        claim = self.claims[id]
        if missing := [need for need in claim.needs if need not in self.judgements]:
            raise ValueError(f"{id} needs {', '.join(missing)}: judge controls first.")
        if claim.kind != "exact" and np.shape(ours) != (len(self.seeds),):
            raise ValueError(
                f"{id}: values of shape {np.shape(ours)} for {len(self.seeds)} seed(s): give one "
                "number for each."
            )
        failed = [n for n in claim.needs if self.judgements[n].verdict not in claims.HELD]
        images = len(self.data.test.labels)
        judgement = claims.judge(claim, ours, baseline, images=images, failed=failed)
        if self.scale == "check" and claim.kind != "exact":
            judgement = self._recorded_judgement(judgement)
        self.judgements[id] = judgement
        for other in self.claims.values():  # what rests on it is to be judged again
            if id in other.needs:
                self.judgements.pop(other.id, None)
        return judgement

    def _recorded_judgement(self, judgement: claims.Judgement) -> claims.Judgement:
        """The committed verdict on the same claim, if this seed does not speak against it."""
        claim, value = judgement.claim, judgement.mean
        if claim.gated and not claims.on_claimed_side(claim, value):
            raise AssertionError(
                f"{claim.id} is gated, but with seed {check.SEED} its measure is {value:.4g}: "
                f"claimed is {claim.kind} {claim.line:g} ({claim.measure})."
            )
        rows = {row["id"]: row for row in self._record("quick")["claims"]}
        recorded = rows.get(claim.id) and claims.Judgement.from_dict(rows[claim.id])
        if not recorded or recorded.claim.key != claim.key:
            raise AssertionError(
                f"{claim.id} is not the claim that was recorded: make notebooks NB={self.name} "
                "judges it anew."
            )
        return recorded

    def exact(self, id: str, *errors: float) -> None:
        """Judge an exact claim by its errors; AssertionError if one is too large."""
        judgement = self.judge(id, errors)
        assert judgement.verdict == "exact", (
            f"{id}: error {judgement.mean:.3g} exceeds {judgement.claim.margin:g}"
        )
        print(f"{id} holds to {judgement.claim.margin:g}: {judgement.claim.text}")

    def table(self, *ids: str) -> "Markdown":
        """The judged claims (or those named), with numbers: claim | paper | here | verdict.

        Of a claim that only the full run can judge, the recorded verdict, marked as such.
        """
        from IPython.display import Markdown

        full = [id for id, claim in self.claims.items() if claim.full and self.scale != "full"]
        shown = [
            self._judged_in_full(id) if id in full else self.judgements[id]
            for id in ids or [*self.judgements, *full]
        ]
        return Markdown(claims.table(shown))

    def beside_the_record(self, *ids: str) -> "Markdown":
        """The claims (or those named), exact ones apart, as judged here and in the full record.

        Without what is measured, which `table` says. A full run is shown alone. Raises ValueError
        where no full run is recorded.
        """
        from IPython.display import Markdown

        columns = {f"{self.data.title}, {len(self.seeds)} seeds": list(self.judgements.values())}
        if self.scale != "full":
            record = self._full_record()
            rows = [claims.Judgement.from_dict(row) for row in record["claims"]]
            title = f"{record['dataset_title']}, {len(record['seeds'])} seeds"
            columns[title] = [self._as_recorded(j) for j in rows if j.claim.id in self.claims]
        chosen = [claim for claim in self.claims.values() if not ids or claim.id in ids]
        shown = [claim for claim in chosen if claim.kind != "exact"]
        return Markdown(claims.side_by_side(shown, columns))

    def _judged_in_full(self, id: str) -> claims.Judgement:
        """What the full record says of a claim that only the full run can judge, marked as such."""
        record = self._full_record()
        rows = {row["id"]: row for row in record["claims"]}
        if id not in rows:
            raise ValueError(f"{id} is not in the full record of {self.name}: run it again.")
        found = self._as_recorded(claims.Judgement.from_dict(rows[id]))
        if found.verdict == "void" and found.why == CHANGED:
            return found
        where = f"recorded: {record['dataset_title']}"
        return replace(found, why=f"{found.why}; {where}" if found.why else where)

    def _as_recorded(self, found: claims.Judgement) -> claims.Judgement:
        """A recorded judgement; void if its claim is not any more what it was."""
        if found.claim.key == self.claims[found.claim.id].key:
            return found
        return replace(found, verdict="void", why=CHANGED)

    def _full_record(self) -> dict:
        """The full record of this notebook, on the first of `full_on` that has one."""
        folder = ROOT / "results"
        here = [d for d in self.full_on if (folder / self.name / f"{d}-full.json").exists()]
        dataset = (here or self.full_on)[0]
        return records.read(self.name, dataset, "full", folder=folder, needs=OF_A_FULL_RECORD)

    def verdicts(self) -> None:
        """Print the verdicts that are safe to compare strictly: exact ones, and those gated."""
        for id, judgement in self.judgements.items():
            if judgement.claim.gated or judgement.claim.kind == "exact":
                print(f"{id:4} {judgement.verdict}")

    def finish(self) -> None:
        """Write the run's record; ValueError if an announced claim was never judged.

        It goes to MINI_RESULTS; else a full run's to results/, a quick one's to build/results/.
        The scale `check` writes nothing.
        """
        asked = {id for id, c in self.claims.items() if not c.full or self.scale == "full"}
        if missing := asked - self.judgements.keys():
            raise ValueError(f"Announced but never judged: {', '.join(sorted(missing))}.")
        seconds = time.perf_counter() - self._started + self._saved_seconds
        if self.scale == "check":
            left = self._not_compared()
            print(
                f"{seconds:.0f} s; {self._compared} measures are within what twenty seeds gave"
                + (f"; not compared: {', '.join(left)}" if left else "")
            )
            return
        folder = results_folder(self.scale)
        path = folder / self.name / f"{self.data.name}-{self.label}.json"
        machine = {
            "processor": processor(),
            "cores": joblib.cpu_count(),
            "device": str(self.device),
        }
        today = datetime.now(UTC).date().isoformat()
        before = [seed for sitting in self._sittings for seed in sitting["seeds"]]
        here = {"seeds": [seed for seed in self.seeds if seed not in before], "date": today}
        record = {
            "notebook": self.name,
            "paper": self.paper,
            "dataset": self.data.name,
            "dataset_title": self.data.title,
            "scale": self.scale,
            "seeds": list(self.seeds),
            "images": len(self.data.test.labels),
            "config": vars(self.config),
            "precision": self.precision,
            "seconds": round(seconds, 1),
            "date": today,
            "machine": machine,
            "sittings": [*self._sittings, here | {"machine": machine}],
            "versions": {"python": platform.python_version()}
            | {name: version(name) for name in ("torch", "torchvision", "numpy", "scipy")},
            "claims": [judgement.as_dict() for judgement in self.judgements.values()],
            "fingerprints": self._fingerprints,
            "passed_on": self._passed_on,
            "options": self._options,
            "returned": {
                name: {arm: sorted(keys) for arm, keys in arms.items()}
                for name, arms in self._returned.items()
            },
        }
        if len(self.seeds) >= claims.EVIDENCE:
            measured = {
                name: {
                    arm: {key: values for key, values in arms[arm].items() if key in returned}
                    for arm, returned in self._returned[name].items()
                }
                for name, arms in self.experiments.items()
            }
            kinds, dropped = check.gates(measured, record["images"])
            record |= {"gates": kinds, "dropped": dropped}
            if dropped:
                print(f"Not compared at the scale check, as their own seeds differ: {dropped}")
        record = records.save(path, record, self.experiments)
        if record["left_out"]:
            print(f"Too large to be kept: {', '.join(record['left_out'])}")
        print(f"{seconds:.0f} s; {path.name} written to {folder.name}/{self.name}/")


@functools.lru_cache(maxsize=2)  # seed 0, and the one that a worker is at
def _drawn(source: str, sizes: tuple[tuple[str, int], ...], seed: int) -> Dataset:
    return data.load(source, **dict(sizes), seed=seed)


def recorded(name: str, dataset: str, scale: str) -> "Markdown":
    """The judged table of an earlier run, as `results/` holds it, with its machine and date."""
    from IPython.display import Markdown

    needs = ("dataset_title", "seeds", "seconds", "machine", "date", "claims")
    try:
        return Markdown(records.verdicts(records.read(name, dataset, scale, needs=needs)))
    except ValueError as problem:
        return Markdown(str(problem))


def processor() -> str:
    """The processor's name as people know it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
