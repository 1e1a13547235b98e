"""The scale `check`: one fresh seed against twenty recorded ones, measure by measure.

A strict test of a notebook trains one seed that no record holds and asks of every scalar measure,
and of the end of every curve, whether it could be the twenty-first. Of the scales on which its own
twenty values pass that question when they are left out one by one, each measure is compared on the
one with the narrowest limits; what passes on none is dropped, by name. A value outside Student's t
at one in a thousand is no finding yet: two more seeds are run, and only three values beyond the
limits on the same side are one. Nothing is compared with a threshold that somebody chose.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import scipy

from mini.course.experiment import Results
from mini.course.records import Measures

SEED, MORE_SEEDS = 20, (21, 22)  # never among the twenty of the record, and never chosen
LEVEL = 1e-3  # of a value beyond the limits, both sides together
DIGIT = 1e-3  # the last one that notebooks print
KINDS = ("share", "positive", "plain")


@dataclass(frozen=True)
class Scale:
    """How a measure is transformed before it is compared; `images` is those a share is of.

    share: logit((k + 1/2) / (N + 1)) for k of N images; positive: log(x + 0.001); plain: x itself.
    """

    kind: str
    images: int

    def forth(self, x: np.ndarray) -> np.ndarray:
        x = np.asarray(x, dtype=np.float64)
        if self.kind == "share":
            return scipy.special.logit((x * self.images + 0.5) / (self.images + 1))
        return np.log(x + DIGIT) if self.kind == "positive" else x

    def back(self, y: np.ndarray) -> np.ndarray:
        y = np.asarray(y, dtype=np.float64)
        if self.kind == "share":
            return (scipy.special.expit(y) * (self.images + 1) - 0.5) / self.images
        return np.exp(y) - DIGIT if self.kind == "positive" else y

    def allows(self, values: np.ndarray) -> np.ndarray:
        """Whether values `[..., n]` of each measure can all be transformed."""
        if self.kind == "plain":
            return np.ones(np.shape(values)[:-1], dtype=bool)
        low, high = np.min(values, axis=-1), np.max(values, axis=-1)
        return (low >= 0) & (high <= 1) if self.kind == "share" else low > -DIGIT / 2

    def narrowest(self, values: np.ndarray) -> np.ndarray:
        """Half the width that limits have at least: two test images, or the printed digit.

        On every scale alike: what may be a share is never known better than that.
        """
        may_be_share = Scale("share", self.images).allows(values)
        return np.where(may_be_share, max(2 / self.images, DIGIT), DIGIT)


def limits(values: np.ndarray, scale: Scale) -> tuple[np.ndarray, np.ndarray]:
    """Between which a fresh value of each measure lies, in 999 of 1,000 cases where the transformed
    ones are normal: `[..., n]` -> low and high, `[...]`.

    The prediction interval of Student's t: mean +- t sqrt(1 + 1/n) deviations, 3.98 for n = 20.
    """
    y = scale.forth(values)
    n, mean = y.shape[-1], y.mean(axis=-1)
    factor = scipy.special.stdtrit(n - 1, 1 - LEVEL / 2) * np.sqrt(1 + 1 / n)
    reach = factor * y.std(axis=-1, ddof=1)
    low, middle, high = (scale.back(end) for end in (mean - reach, mean, mean + reach))
    half = scale.narrowest(values)
    return np.minimum(low, middle - half), np.maximum(high, middle + half)


def beyond(value: np.ndarray, ends: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """-1 below the limits, 1 above them (or no number), 0 between."""
    low, high = ends
    return np.where(value < low, -1, np.where(value <= high, 0, 1))


def kinds_of(values: np.ndarray, images: int) -> np.ndarray:
    """For each measure, of the `KINDS` on which none of its own values `[..., n]` is an alarm for
    the others, that with the narrowest limits, as an index `[...]`; -1 where all give an alarm."""
    values = np.asarray(values, dtype=np.float64)
    n = values.shape[-1]
    others = np.array([[i for i in range(n) if i != left_out] for left_out in range(n)])
    chosen, narrowest = np.full(values.shape[:-1], -1), np.full(values.shape[:-1], np.inf)
    for index, kind in enumerate(KINDS):
        scale = Scale(kind, images)
        possible = scale.allows(values)
        # What a scale does not allow is replaced by something that it does.
        shown = np.where(possible[..., None], values, 0.5)
        alarms = beyond(shown, limits(shown[..., others], scale)) != 0
        low, high = limits(shown, scale)
        is_best = possible & ~alarms.any(axis=-1) & (high - low < narrowest)
        chosen = np.where(is_best, index, chosen)
        narrowest = np.where(is_best, high - low, narrowest)
    return chosen


def scalars(measures: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What is compared of an arm: its scalar measures `[seeds]`, and of a curve its end.

    No map, no text, no timing (a measure whose name begins with "seconds"), and nothing that this
    arm does not have: no number with any seed.
    """
    found = {}
    for name, values in measures.items():
        values = np.asarray(values)
        if values.dtype.kind in "biuf" and not name.startswith("seconds"):
            if values.ndim == 1:
                found[name] = values
            elif values.ndim == 2 and values.shape[1] > 1:
                found[f"{name}, end"] = values[:, -1]
    return {name: values for name, values in found.items() if not np.isnan(values).all()}


def gates(experiments: dict[str, Measures], images: int) -> tuple[dict, list[str]]:
    """The scale of every scalar measure, `[experiment][arm][measure]`, and the names of those that
    no scale suits."""
    kinds, dropped = {}, []
    for name, arms in experiments.items():
        for arm, measures in arms.items():
            for measure, values in scalars(measures).items():
                kind = int(kinds_of(values, images))
                if kind < 0:
                    dropped.append(f"{name} / {arm} / {measure}")
                else:
                    kinds.setdefault(name, {}).setdefault(arm, {})[measure] = KINDS[kind]
    return kinds, dropped


def compare(
    found: Results,
    recorded: Measures,
    kinds: dict[str, dict[str, str]],
    images: int,
    *,
    run: Callable[[int, Iterable[str]], Results],
) -> tuple[int, list[str]]:
    """How many measures of `found`, one seed, were compared, and a sentence for each that fails.

    `recorded[arm][measure]` holds twenty seeds and `kinds` the scale of each measure;
    `run(seed, arms)` runs some arms with another seed, where a value is beyond its limits.
    """
    recorded = {arm: scalars(measures) for arm, measures in recorded.items()}
    here = {arm: scalars(measures) for arm, measures in found.items()}
    findings = [
        f"{arm} / {measure}: is not in the record of twenty seeds"
        for arm, measures in here.items()
        for measure in measures
        if measure not in recorded.get(arm, {})
    ]
    asked = [(arm, measure) for arm in found for measure in kinds.get(arm, {})]
    findings += [
        f"{arm} / {measure}: is in the record of twenty seeds, but was not measured"
        for arm, measure in asked
        if measure not in here.get(arm, {})
    ]
    asked = [(arm, measure) for arm, measure in asked if measure in here.get(arm, {})]
    ends = {
        (arm, measure): limits(recorded[arm][measure], Scale(kinds[arm][measure], images))
        for arm, measure in asked
    }
    values = {(arm, measure): [float(here[arm][measure][0])] for arm, measure in asked}
    sides = {key: beyond(values[key][0], limit) for key, limit in ends.items()}
    for seed in MORE_SEEDS:
        alarmed = {key for key, side in sides.items() if side}
        if not alarmed:
            break
        again = run(seed, sorted({arm for arm, _ in alarmed}))
        for arm, measure in alarmed:
            value = float(scalars(again[arm])[measure][0])
            values[arm, measure].append(value)
            if beyond(value, ends[arm, measure]) != sides[arm, measure]:
                sides[arm, measure] = 0
    for key, side in sides.items():
        if side:
            (low, high), shown = ends[key], ", ".join(f"{value:.4g}" for value in values[key])
            findings.append(
                f"{' / '.join(key)}: {shown} with seeds {SEED}, 21 and 22, "
                f"{'above' if side > 0 else 'below'} {low:.4g} to {high:.4g}, where twenty seeds "
                "have it"
            )
    return len(ends), findings
