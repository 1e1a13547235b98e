"""Claims are data, written down before the run; `judge` decides what the run says about them.

A verdict is read off a 95 % confidence interval of the mean over seeds (Student's t, from scipy),
of paired differences where there is a baseline. With no effect, "reproduced" comes up in 2.5 % of
all runs. A claim is void, whatever its numbers say, where a control that it needs did not hold.
"""

import re
from collections.abc import Iterable, Sequence
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
ROLES = ("paper", "explanation", "control")
VERDICTS = ("exact", "reproduced", "inconclusive", "contradicted", "void")
HELD = ("exact", "reproduced")
FALSE_RATE = (1 - CONFIDENCE) / 2  # of "reproduced", where the truth lies on the line


@dataclass(frozen=True)
class Claim:
    """One sentence that a run can support or contradict.

    `paper` names the table or figure and its number; `measure` says what is computed, in which
    unit. `kind` is the claimed side: the measure is `greater` or `less` than `line`, or
    `equivalent`: within `margin` of `line`; `exact` means that an error stays below `margin`, in
    every case that is tried. `gated`: a single seed must lie on the claimed side in tests, because
    many seeds showed that it does.

    `role`: "paper" (the paper said it, and the comparison is the paper's), "explanation" (ours: it
    tests a "because"), or "control" (must come out so, or the experiment is void). A claim that
    states none has the second if its source is "ours" or in parentheses, and the first otherwise.
    `family` is the id of the family's headline, whose verdict counts for all claims that share
    its arms and its question; `needs` are the ids of the controls without which it is void.
    `share`: the measure is a share of test images, or a difference of two shares; `bounds` are
    those of any other measure that has some. `denies`: for an equivalence the effect, in the unit
    of the measure, whose absence is claimed. `full`: only the full run can judge it.
    Raises ValueError where these do not fit together.
    """

    id: str
    text: str
    paper: str
    measure: str
    kind: str = "greater"
    line: float = 0.0
    margin: float | None = None
    gated: bool = False
    role: str = ""
    family: str = ""
    needs: tuple[str, ...] = ()
    share: bool = False
    bounds: tuple[float, float] | None = None
    denies: float | None = None
    full: bool = False

    def __post_init__(self):
        if self.kind not in KINDS:
            raise ValueError(f"{self.id}: kind={self.kind!r}, expected one of {', '.join(KINDS)}.")
        if self.kind in ("exact", "equivalent") and not (self.margin and self.margin > 0):
            raise ValueError(f"{self.id}: a claim of kind {self.kind!r} must state margin > 0.")
        ours = re.search(r"\bours\b|^\(.*\)$", self.paper, re.IGNORECASE)
        values = {
            "role": self.role or ("explanation" if ours else "paper"),
            "family": self.family or self.id,
            "needs": (self.needs,) if isinstance(self.needs, str) else tuple(self.needs),
            "bounds": self.bounds and tuple(map(float, self.bounds)),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)
        if self.role not in ROLES:
            raise ValueError(f"{self.id}: role={self.role!r}, expected one of {', '.join(ROLES)}.")
        if self.id in self.needs:
            raise ValueError(f"{self.id} cannot need itself: name the controls it rests on.")
        if self.bounds and (
            len(self.bounds) != 2 or not (self.bounds[0] < self.bounds[1] and not self.share)
        ):
            raise ValueError(
                f"{self.id}: bounds={self.bounds}: expected (smallest, largest), and none for a "
                "share, which has its own."
            )
        if self.denies is not None and self.kind != "equivalent":
            raise ValueError(f"{self.id}: only an equivalence denies an effect.")
        if self.denies is not None and self.margin > abs(self.denies) / 2:
            raise ValueError(
                f"{self.id}: a margin of {self.margin:g} is more than half of the effect of "
                f"{self.denies:g} that it denies: take {abs(self.denies) / 2:g} at most."
            )

    @property
    def key(self) -> tuple:
        """What a record's verdict is about: where it differs, the record is of another claim."""
        return (
            *(self.id, self.kind, self.line, self.margin, self.role, self.family, self.needs),
            *(self.share, self.bounds, self.denies),
        )


@dataclass(frozen=True)
class Judgement:
    """A claim, what was measured, and the verdict: `mean` and its 95 % interval over `n` seeds.

    One seed has no interval: `low` and `high` are None. `why` names the controls that make it void.
    """

    claim: Claim
    verdict: str
    mean: float
    low: float | None
    high: float | None
    values: tuple[float, ...]
    why: str = ""

    @property
    def n(self) -> int:
        return len(self.values)

    def as_dict(self) -> dict:
        """Flat, JSON-ready: the claim's fields, then the judgement's own and `n`."""
        numbers = asdict(self)
        return numbers.pop("claim") | numbers | {"n": self.n}

    @classmethod
    def from_dict(cls, row: dict) -> "Judgement":
        """The inverse of `as_dict`; what an older record does not name has its default."""
        claim = Claim(**{f.name: row[f.name] for f in fields(Claim) if f.name in row})
        numbers = {name: row[name] for name in ("verdict", "mean", "low", "high")}
        return cls(claim, **numbers, values=tuple(row["values"]), why=row.get("why", ""))


def judge(
    claim: Claim,
    ours: Sequence[float],
    baseline: Sequence[float] | None = None,
    *,
    images: int | None = None,
    failed: Iterable[str] = (),
) -> Judgement:
    """Judge `claim` by one value per seed in `ours`, less those of the same seeds in `baseline`.

    Reproduced: the whole interval lies on the claimed side of the line (or within the margin);
    contradicted: it lies wholly on the other; inconclusive: it spans the line, or there is one
    seed. Void: a control in `failed` did not hold. An `exact` claim takes errors, and the largest
    decides. The interval of a share lies in [0, 1] (a difference's in [-1, 1]) and is at least as
    wide as one of `images` test images.

    Raises ValueError for no value, unequal lengths, a value that is not a finite number or lies
    outside the bounds, or a share without `images`.
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
    if values.ndim != 1 or len(values) < 1:
        raise ValueError(f"{claim.id}: expected a list of at least one value, one per seed.")
    if not np.isfinite(values).all():
        raise ValueError(f"{claim.id}: a value is not a finite number: {values.tolist()}.")
    bounds = ((0.0, 1.0) if baseline is None else (-1.0, 1.0)) if claim.share else claim.bounds
    if bounds and not (bounds[0] <= values.min() and values.max() <= bounds[1]):
        raise ValueError(f"{claim.id}: {values.tolist()} are not all within {list(bounds)}.")
    if claim.share and not images:
        raise ValueError(f"{claim.id} is a share: say of how many test images.")

    if claim.kind == "exact":
        low, high = float(np.abs(values).min()), float(np.abs(values).max())
        mean, verdict = high, "exact" if high <= claim.margin else "contradicted"
    elif len(values) == 1:
        mean, low, high, verdict = float(values[0]), None, None, "inconclusive"
    else:
        width = 1 / images if claim.share else 0.0
        low, high = _within(*interval(values), width, bounds)
        mean, verdict = float(values.mean()), verdict_of(claim, low, high)
    failed = [id for id in claim.needs if id in set(failed)]
    why = f"needs {', '.join(failed)}" if failed else ""
    return Judgement(
        claim, "void" if failed else verdict, mean, low, high, tuple(values.tolist()), why
    )


def _within(
    low: float, high: float, width: float, bounds: tuple[float, float] | None
) -> tuple[float, float]:
    """The interval, made at least `width` wide, then cut to `bounds`, where it keeps that width."""
    short = max(0.0, width - (high - low)) / 2
    low, high = float(low - short), float(high + short)
    if bounds:
        low, high = max(low, bounds[0]), min(high, bounds[1])
        low, high = min(low, bounds[1] - width), max(high, bounds[0] + width)
    return low, high


def interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both ends of the 95 % confidence interval (Student's t) of the mean over the last axis.

    Values that all agree give an interval of width zero.
    """
    values = np.asarray(values, dtype=np.float64)
    mean, error = values.mean(axis=-1), scipy.stats.sem(values, axis=-1)
    scale = np.where(error > 0, error, 1.0)  # scipy has no interval for a standard error of zero
    low, high = scipy.stats.t.interval(CONFIDENCE, values.shape[-1] - 1, loc=mean, scale=scale)
    return np.where(error > 0, low, mean), np.where(error > 0, high, mean)


def read_off(name: str, ours: np.ndarray, other: np.ndarray | float = 0.0) -> None:
    """Print a contrast that no claim asked for: the mean over seeds of ours - other, its interval.

    `ours` and `other` have one number a seed; without `other`, ours alone. Raises ValueError for
    arrays of other shapes, which would be spread over each other.
    """
    ours, other = np.asarray(ours, dtype=np.float64), np.asarray(other, dtype=np.float64)
    if ours.ndim != 1 or other.shape not in ((), ours.shape):
        raise ValueError(f"{name!r}: {ours.shape} and {other.shape}, expected one number a seed.")
    low, high = interval(ours - other)
    print(f"{name:50} {(ours - other).mean():+.3f} [{low:+.3f}, {high:+.3f}]")


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


def on_claimed_side(claim: Claim, value: float) -> bool:
    """Whether a single value supports `claim`, as each seed of a gated one must."""
    return verdict_of(claim, value, value) == "reproduced"


def headlines(judgements: Iterable[Judgement]) -> list[Judgement]:
    """Those whose verdict counts: of every family its headline; exact claims are left out."""
    return [j for j in judgements if j.claim.kind != "exact" and j.claim.family == j.claim.id]


def expected_false(judgements: Iterable[Judgement]) -> float:
    """How many verdicts "reproduced" the chance of the seeds alone lets one expect, if every truth
    lay just on the edge of its claim (its line, or its line and margin) and the noise is normal.

    The draw of the data, where all seeds share one, comes on top.
    """
    return FALSE_RATE * sum(j.claim.kind != "exact" and j.verdict != "void" for j in judgements)


def safe(judgements: Sequence[Judgement]) -> list[str]:
    """The ids of the claims that may be gated by this evidence; none with too few seeds."""
    return [
        j.claim.id
        for j in judgements
        if j.claim.kind != "exact" and j.n >= EVIDENCE and distance(j) >= SAFE_DISTANCE
    ]


def table(judgements: Sequence[Judgement]) -> str:
    """A Markdown table: claim | paper | here (mean, 95 % interval, n seeds) | verdict.

    A claim begins with its role where its source does not tell it; one of a family names the
    headline.
    """
    rows = ["| | claim | paper | here | verdict |", "|-|:-|:-|:-|:-|"]
    for j in judgements:
        c = j.claim
        is_told = c.role == Claim(c.id, c.text, c.paper, c.measure).role
        text = c.text if is_told else f"*{c.role}:* {c.text}"
        if c.family != c.id:
            text += f" (family {c.family})"
        verdict = f"**{j.verdict}**" + (f"<br>({j.why})" if j.why else "")
        rows.append(f"| {c.id} | {text} | {c.paper} | {_here(j)} | {verdict} |")
    return "\n".join(rows)


def side_by_side(rows: Iterable[Claim], columns: dict[str, Sequence[Judgement]]) -> str:
    """A Markdown table of what several runs, by title, said of the claims in `rows`.

    claim | paper | a column a run: verdict, mean and interval, or a dash where it was not judged.
    """
    judged = {title: {j.claim.id: j for j in found} for title, found in columns.items()}
    lines = [f"| | claim | paper | {' | '.join(judged)} |", "|-|:-|:-|" + ":-|" * len(judged)]
    for claim in rows:
        cells = [_found(found.get(claim.id)) for found in judged.values()]
        text = f"*control:* {claim.text}" if claim.role == "control" else claim.text
        lines.append(f"| {claim.id} | {text} | {claim.paper} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _found(j: Judgement | None) -> str:
    """A verdict and its interval, in a cell of a table of several runs."""
    if j is None:
        return "–"
    found = f"{j.mean:+.3f}" if j.low is None else f"{j.mean:+.3f} [{j.low:+.3f}, {j.high:+.3f}]"
    return f"**{j.verdict}** {found}" + (f" ({j.why})" if j.why else "")


def _here(judgement: Judgement) -> str:
    """What was measured, in a table's cell."""
    j, c = judgement, judgement.claim
    if c.kind == "exact":
        return f"largest error {j.mean:.1e}, allowed {c.margin:.0e}"
    sides = {"greater": "above", "less": "below", "equivalent": f"within {c.margin} of"}
    found = "one seed" if j.low is None else f"[{j.low:+.3f}, {j.high:+.3f}], n = {j.n}"
    return f"{j.mean:+.3f} {found}<br>({c.measure}; claimed: {sides[c.kind]} {c.line:g})"
