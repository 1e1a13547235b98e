"""Claims are data, written down before the run; `judge` decides what the run says about them.

A verdict is read off a 95 % confidence interval of the mean over seeds (Student's t, from scipy),
of paired differences where there is a baseline. With no effect, "reproduced" comes up in 2.5 % of
all runs.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields

import numpy as np
import scipy

CONFIDENCE = 0.95
EVIDENCE = 20  # seeds without which no verdict counts as safe
# Of a mean from its line, in standard errors of a three-seed mean. The interval is 4.3 of them to
# each side: at 4, fresh seeds would come out on the claimed side only half of the time, at 8 in 96
# of 100 (noncentral t).
SAFE_DISTANCE = 8
KINDS = ("exact", "greater", "less", "equivalent")


@dataclass(frozen=True)
class Claim:
    """One sentence of a paper that a run can support or contradict.

    `paper` names the table or figure and its number; `measure` says what is computed, in which
    unit. `kind` is the claimed side: the measure is `greater` or `less` than `line`, or
    `equivalent`: within `margin` of `line`; `exact` means that an error stays below `margin`, in
    every case that is tried. `gated`: the verdict is compared strictly in tests, because many
    seeds showed that it is safe.
    """

    id: str
    text: str
    paper: str
    measure: str
    kind: str = "greater"
    line: float = 0.0
    margin: float | None = None
    gated: bool = False

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"{self.id}: kind={self.kind!r}, expected one of {', '.join(KINDS)}.")
        if self.kind in ("exact", "equivalent") and not (self.margin and self.margin > 0):
            raise ValueError(f"{self.id}: a claim of kind {self.kind!r} must state margin > 0.")


@dataclass(frozen=True)
class Judgement:
    """A claim, what was measured, and the verdict: `mean` and its 95 % interval over `n` seeds."""

    claim: Claim
    verdict: str
    mean: float
    low: float
    high: float
    values: tuple[float, ...]

    @property
    def n(self) -> int:
        return len(self.values)

    def as_dict(self) -> dict:
        """Flat, JSON-ready: the claim's fields, then the judgement's own and `n`."""
        numbers = asdict(self)
        return numbers.pop("claim") | numbers | {"n": self.n}

    @classmethod
    def from_dict(cls, row: dict) -> "Judgement":
        """The inverse of `as_dict`."""
        claim = Claim(**{field.name: row[field.name] for field in fields(Claim)})
        numbers = {name: row[name] for name in ("verdict", "mean", "low", "high")}
        return cls(claim, **numbers, values=tuple(row["values"]))


def judge(
    claim: Claim, ours: Sequence[float], baseline: Sequence[float] | None = None
) -> Judgement:
    """Judge `claim` by one value per seed in `ours`, less those of the same seeds in `baseline`.

    Reproduced: the whole interval lies on the claimed side of the line (or within the margin);
    contradicted: it lies wholly on the other; inconclusive: it spans the line. An `exact` claim
    takes errors, and the largest decides. Raises ValueError for fewer than two seeds (exact: one),
    unequal lengths, or a value that is not a finite number.
    """
    values = np.atleast_1d(np.asarray(ours, dtype=np.float64))
    if baseline is not None:
        other = np.atleast_1d(np.asarray(baseline, dtype=np.float64))
        if other.shape != values.shape:
            raise ValueError(
                f"{claim.id}: {len(values)} values but {len(other)} of the baseline: "
                "pair them seed by seed."
            )
        values = values - other
    needed = 1 if claim.kind == "exact" else 2
    if values.ndim != 1 or len(values) < needed:
        raise ValueError(f"{claim.id}: expected a list of at least {needed} values, one per seed.")
    if not np.isfinite(values).all():
        raise ValueError(f"{claim.id}: a value is not a finite number: {values.tolist()}.")

    if claim.kind == "exact":
        low, high = float(np.abs(values).min()), float(np.abs(values).max())
        mean, verdict = high, "exact" if high <= claim.margin else "contradicted"
    else:
        low, high = (float(end) for end in interval(values))
        mean, verdict = float(values.mean()), verdict_of(claim, low, high)
    return Judgement(claim, verdict, mean, low, high, tuple(values.tolist()))


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the 95 % confidence interval (Student's t) of the mean over the last axis.

    Values that all agree give an interval of width zero.
    """
    values = np.asarray(values, dtype=np.float64)
    mean, error = values.mean(axis=-1), scipy.stats.sem(values, axis=-1)
    scale = np.where(error > 0, error, 1.0)  # scipy has no interval for a standard error of zero
    low, high = scipy.stats.t.interval(CONFIDENCE, values.shape[-1] - 1, loc=mean, scale=scale)
    return np.where(error > 0, low, mean), np.where(error > 0, high, mean)


def verdict_of(claim: Claim, low: float, high: float) -> str:
    """The verdict on a claim (not an exact one) whose measure has the interval `low` to `high`."""
    inside, outside = {
        "greater": (low > claim.line, high < claim.line),
        "less": (high < claim.line, low > claim.line),
        "equivalent": (
            max(abs(low - claim.line), abs(high - claim.line)) < (claim.margin or 0),
            low > claim.line + (claim.margin or 0) or high < claim.line - (claim.margin or 0),
        ),
    }[claim.kind]
    return "reproduced" if inside else "contradicted" if outside else "inconclusive"


def distance(judgement: Judgement) -> float:
    """How far inside the claimed side the mean lies, in standard errors of a three-seed mean.

    From `SAFE_DISTANCE` on, a run with three fresh seeds finds it there too.
    """
    claim, values = judgement.claim, np.asarray(judgement.values)
    beyond = values.mean() - claim.line
    inside = {
        "greater": beyond,
        "less": -beyond,
        "equivalent": (claim.margin or 0) - abs(beyond),
    }[claim.kind]
    error = values.std(ddof=1) / np.sqrt(3)
    return float(inside / error) if error > 0 else float(np.copysign(np.inf, inside))


def safe(judgements: Sequence[Judgement]) -> list[str]:
    """The ids of the claims that may be gated by this evidence; none with too few seeds."""
    return [
        j.claim.id
        for j in judgements
        if j.claim.kind != "exact" and j.n >= EVIDENCE and distance(j) >= SAFE_DISTANCE
    ]


def table(judgements: Sequence[Judgement]) -> str:
    """A Markdown table: claim | paper | here (mean, 95 % interval, n seeds) | verdict."""
    rows = ["| | claim | paper | here | verdict |", "|-|:-|:-|:-|:-|"]
    for j in judgements:
        c = j.claim
        if c.kind == "exact":
            here = f"largest error {j.mean:.1e}, allowed {c.margin:.0e}"
        else:
            side = {"greater": "above", "less": "below", "equivalent": f"within {c.margin} of"}[
                c.kind
            ]
            here = (
                f"{j.mean:+.3f} [{j.low:+.3f}, {j.high:+.3f}], n = {j.n}<br>"
                f"({c.measure}; claimed: {side} {c.line:g})"
            )
        rows.append(f"| {c.id} | {c.text} | {c.paper} | {here} | **{j.verdict}** |")
    return "\n".join(rows)
