"""A measured number beside the predicted one: how far apart, and which single change of the run would make it.

Every suspect is a change that ``explain --compare`` takes, predicted anew: its number can be had again by hand.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError, by_nearness
from perfmodel.files.catalog import load, load_techniques
from perfmodel.files.folders import names
from perfmodel.planning import inputs
from perfmodel.planning.changes import Change, hardware_changes, technique_changes
from perfmodel.planning.pool_run import PoolRun, other_than
from perfmodel.planning.pools import Pool, Run
from perfmodel.planning.software import stacks_that_fit
from perfmodel.planning.step_uncertainty import client_intervals, step_intervals
from perfmodel.prediction.layouts import LARGEST_BATCH
from perfmodel.prediction.uncertainty import Interval, pool_intervals
from perfmodel.service.setup import ranks_of
from perfmodel.specs.evidence import RATE, RATES

#: suspects of one number that are told, each with one change, two changes, and what an amount would have to be
MOST_ALONE, MOST_PAIRS = 8, 3
#: part of a gap that a change closes at least, to be worth a look
LEAST_CLOSED = 0.05
#: suspects that are tried two by two, those that go farthest alone: 28 pairs
PAIRED = 8
#: clients up to which requests are replayed to see what prefill in between does: some ten thousand, about a second
MOST_CLIENTS = 1024

#: where to see what no technique's file says how to see
CHECKS = {
    "stack": "versions of driver, toolkit and engine, as the engine logs them at its start, against 'moeplan show "
    "STACK'",
    "chip": "name of the chip as the driver's tool prints it, against the aliases of 'moeplan show CHIP'",
    "acceptance": "accepted length in the engine's log or in the benchmark's result; prompts of random tokens are "
    "seldom guessed",
    "serving": "prefill tokens in the log of the decode instance; whether it was started for decode alone, as with "
    "kv_role kv_consumer or --disaggregation-mode decode",
    "batch": "running requests of a dp rank in the engine's log, between the first wave and the last answers",
    "isl": "input and output tokens as the engine counts them, with the chat template and what is in the cache",
    "concurrency": "requests under way as the client counts them",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """A number that a run predicts, and how sure it is."""

    value: float
    interval: Interval


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """One change, two, or one amount that would have to be another: what it would make of a number."""

    #: as ``explain --compare`` takes them, each alone
    changes: tuple[str, ...]
    #: all that has to be said to have its number by hand: what was chosen for the run comes first
    compare: str
    kind: Literal["change", "pair", "amount"]
    value: float
    #: part of the gap that it closes, in logarithms: 1 all of it, more is too much
    closes: float
    #: distance of what was measured from its value over the half 90 % interval on that side: up to 1 lies inside
    off: float
    #: what the run says of each now
    stated: tuple[str, ...]
    #: change -> where to look on a running system whether it is so
    checks: Mapping[str, str]

    @property
    def reaches(self) -> bool:
        """Whether what was measured lies inside the 90 % interval about its value."""
        return self.off <= 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A measured number beside the predicted one, and what could make the difference, the likeliest first."""

    quantity: str
    unit: str
    measured: float
    predicted: Predicted
    suspects: tuple[Suspect, ...] = ()

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured / self.predicted.value

    @property
    def inside(self) -> bool:
        """Whether the measured number lies in the 90 % interval of the prediction."""
        return self.predicted.interval.contains(self.measured)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidate:
    """A change to try: as ``--compare`` takes it, what it is a setting of, and how to see whether it is so."""

    word: str
    check: str
    #: what the run says now
    stated: str
    #: names and keys that it sets; changes that share one exclude each other
    sets: frozenset[str] = field(default_factory=frozenset)


def figures_of(run: PoolRun) -> dict[str, float]:
    """Return the numbers of a run that a user may have measured, in SI units; those that ``explain`` tells."""
    found = {"step": as_float(run.resolved.point.step_time)}
    if run.clients is not None:
        known = run.clients.values
        cards = run.resolved.plan.layout.dies / run.resolved.scenario.case.rates.dies_per_package
        found |= {name: value for name, value in known.items() if value > 0}
        found[RATE] = known["requests_per_s"] * run.conditions.osl / cards
        return found
    if run.conditions.phase == "decode":
        found["tpot"] = run.resolved.tpot
    return {**found, RATE: run.resolved.tokens_per_s_per_card}


def unit_of(quantity: str) -> str:
    """Return the unit of a quantity: rates are of requests or tokens a second, all others are times."""
    return "1/s" if quantity in RATES else "s"


def read_measured(words: Sequence[str], run: PoolRun) -> dict[str, float]:
    """Return what was measured of a run, by quantity, from words like 'tpot=120ms,ttft=1.8s'.

    Raises ``UsageError`` for a quantity that is none of this run's, naming those it has, nearest first, and for a value
    that is none.
    """
    known = figures_of(run)
    found = {}
    for name, text in inputs.measured(words).items():
        if name not in known:
            nearest = ", ".join(by_nearness(name, known))
            more = "" if run.clients is not None else "; what clients see, as ttft, needs --serving mixed and a load"
            raise UsageError(f"--measured: {name!r} is not predicted here; allowed, nearest first: {nearest}{more}")
        option = f"--measured {name}"
        read = inputs.rate(text, option) if unit_of(name) == "1/s" else inputs.quantity(text, "s", option)
        assert read is not None
        found[name] = read
    return found


def predicted_of(run: PoolRun) -> dict[str, Predicted]:
    """Return the numbers of a run with their 90 % intervals."""
    values, plan, case = figures_of(run), run.resolved.plan, run.resolved.scenario.case
    ends: dict[str, Interval] = {}
    if run.clients is None:
        intervals = step_intervals(run)
        cards = plan.layout.dies / case.rates.dies_per_package
        ends = {"tpot": intervals.tpot, RATE: _times(intervals.tokens_per_s, 1 / cards)}
    else:
        ends = client_intervals(run)
        rate = ends["requests_per_s"]
        ends[RATE] = _times(rate, values[RATE] / values["requests_per_s"])
    ends["step"] = pool_intervals(run.machine, plan.layout, plan.family, case, measured_on=run.measured_on).step_time
    return {name: Predicted(value=value, interval=ends[name]) for name, value in values.items() if name in ends}


def _times(ends: Interval, factor: float) -> Interval:
    return Interval(**{name: value * factor for name, value in ends.as_dict().items()})


def gaps_of(run: PoolRun, measured: Mapping[str, float]) -> list[Gap]:
    """Return each measured number beside the predicted one; suspects of those outside their 90 % interval."""
    known = predicted_of(run)
    found = [
        Gap(quantity=name, unit=unit_of(name), measured=value, predicted=known[name])
        for name, value in measured.items()
    ]
    if all(gap.inside for gap in found):
        return found
    tried = Trials(run)
    return [gap if gap.inside else replace(gap, suspects=suspects_of(tried, gap)) for gap in found]


class Trials:
    """A run predicted again with changes, each set of changes once."""

    def __init__(self, run: PoolRun) -> None:
        """Take a run as it is: a batch or an overlap that was chosen for it stays as chosen."""
        self.chosen = _chosen(run)
        self.run = other_than(run, ",".join(self.chosen)) if self.chosen else run
        self.candidates = tuple(_candidates(self.run))
        self._known: dict[tuple[str, ...], PoolRun | None] = {}

    def words(self, changes: Sequence[str]) -> str:
        """Return all that has to be said to have the run with some changes by hand."""
        return ",".join((*self.chosen, *changes))

    def with_changes(self, changes: Sequence[str]) -> PoolRun | None:
        """Return the run with changes, or none where they cannot be made or do not fit memory as it does."""
        key = tuple(changes)
        if key not in self._known:
            try:
                found = other_than(self.run, ",".join(key), responses=False)
            except UsageError:
                found = None
            fits = found is not None and (found.fits or not self.run.fits)
            self._known[key] = found if fits else None
        return self._known[key]

    def value(self, quantity: str, changes: Sequence[str]) -> float | None:
        """Return a number of the run with changes; none where they cannot be made or leave no such number."""
        found = self.with_changes(changes)
        return None if found is None else figures_of(found).get(quantity)


def _chosen(run: PoolRun) -> tuple[str, ...]:
    """Return what was left open of a run and chosen for it, as ``--compare`` takes it."""
    if run.clients is not None:
        return ()
    layout = run.resolved.plan.layout
    given = run.conditions.layout
    taken = ("batch", "overlap", "attention_cores")
    return tuple(f"{key}={getattr(layout, key)}" for key in taken if getattr(given, key) != getattr(layout, key))


def suspects_of(tried: Trials, gap: Gap) -> tuple[Suspect, ...]:
    """Return what could make a gap, changes before amounts, and of each kind the nearest to what was measured first.

    A change is a suspect where with it the prediction lies nearer to what was measured than without, in logarithms.
    Two together are tried where none reaches it alone.  An amount, as the batch that really ran, is told last: one that
    is free to be anything fits most gaps.
    Assumes that the relative 90 % interval is with a change as it is without: errs narrow for changes to what is less
    well known.
    """
    alone = []
    for one in tried.candidates:
        suspect = _suspect(tried, gap, (one,), "change")
        if suspect is not None:
            alone.append((one, suspect))
    singles = sorted((suspect for _, suspect in alone), key=_rank)
    pairs: list[Suspect] = []
    if not any(suspect.reaches for suspect in singles):
        far = sorted((each for each in alone if each[1].closes < 1), key=lambda each: -each[1].closes)[:PAIRED]
        both = [
            _suspect(tried, gap, (one, two), "pair")
            for (one, _), (two, _) in combinations(far, 2)
            if not one.sets & two.sets
        ]
        nearest = singles[0].off if singles else math.inf
        pairs = sorted((pair for pair in both if pair is not None and pair.off < nearest), key=_rank)
    amounts = sorted(_amounts(tried, gap), key=_rank)
    return (*singles[:MOST_ALONE], *pairs[:MOST_PAIRS], *amounts)


def _rank(suspect: Suspect) -> tuple[float, float, tuple[str, ...]]:
    """Return what suspects are sorted by: of a prediction without doubt all are equally far off."""
    return suspect.off, abs(1 - suspect.closes), suspect.changes


def _apart(one: float, other: float) -> float:
    """Return the logarithm of one number over another, of numbers whose ratio is none too."""
    return math.log(one) - math.log(other)


def _suspect(tried: Trials, gap: Gap, changes: Sequence[_Candidate], kind: Any) -> Suspect | None:
    """Return what changes make of a gap; none where they cannot be made or come hardly nearer to what was measured."""
    words = tuple(change.word for change in changes)
    value = tried.value(gap.quantity, words)
    if value is None:
        return None
    whole, left = _apart(gap.measured, gap.predicted.value), _apart(gap.measured, value)
    if abs(left) >= abs(whole):
        return None
    closes = 1 - left / whole
    if closes < LEAST_CLOSED:
        return None
    ends = gap.predicted.interval
    half = abs(_apart(ends.high90 if left > 0 else ends.low90, gap.predicted.value))
    return Suspect(
        changes=words,
        compare=tried.words(words),
        kind=kind,
        value=value,
        closes=closes,
        off=abs(left) / half if half else 0.0 if not left else math.inf,
        stated=tuple(change.stated for change in changes),
        checks={change.word: change.check for change in changes},
    )


def _candidates(run: PoolRun) -> Iterator[_Candidate]:
    """Yield every change that may have gone untold: techniques, stacks, bins, drafts, prefill in between."""
    conditions, machine = run.conditions, run.machine
    pool = Pool(conditions=conditions, machine=machine)
    varied = Run(model=run.model, pools={conditions.phase: pool}, tpot=None, ttft=None, utilisation=1.0)
    techniques = load_techniques()
    for change in technique_changes(varied, techniques.values()):
        if isinstance(change, Change) and change.by not in ("bound", "to build"):
            check = techniques[change.name].spec.check or ""
            sets = frozenset({change.name, *change.keys})
            yield _Candidate(word=change.label, check=check, stated=change.now, sets=sets)
    for stack in stacks_that_fit(machine.system.spec):
        if stack.spec.name != machine.stack.spec.name:
            yield _of("stack", stack.spec.name, machine.stack.spec.name)
    bins = [load("chips", name) for name in names("chips")]
    family = machine.chip.spec.family
    for change in hardware_changes(varied, [one for one in bins if family and one.spec.family == family]):
        if change.name == "chip":
            yield _of("chip", change.setting, change.now)
    draft, decode = run.resolved.plan.layout.draft, conditions.phase == "decode"
    if draft and decode:
        tables = [table.name for table in run.model.acceptance if len(table.positions) >= draft]
        stated = ",".join(f"{one:g}" for one in conditions.acceptance)
        for word in (",".join("0" * draft), *tables):
            yield _of("acceptance", word, stated)
    if decode and run.engine is not None and run.clients is None and run.between is None:
        clients = ranks_of(conditions) * run.resolved.plan.layout.batch
        if clients <= MOST_CLIENTS:
            word = f"serving=mixed,concurrency={clients}"
            yield _Candidate(word=word, check=CHECKS["serving"], stated=conditions.serving, sets=frozenset({"serving"}))


def _of(key: str, value: object, stated: object) -> _Candidate:
    return _Candidate(word=f"{key}={value}", check=CHECKS[key], stated=str(stated), sets=frozenset({key}))


def _amounts(tried: Trials, gap: Gap) -> Iterator[Suspect]:
    """Yield amounts that reach it and are other than stated, each the whole number that comes nearest.

    Times rise with batch and length, rates rise with the batch and fall with the length; what fits memory bounds both.
    """
    conditions, layout = tried.run.conditions, tried.run.resolved.plan.layout
    longest = tried.run.model.max_position_embeddings - conditions.osl
    amounts = {"isl": (conditions.isl, longest)}
    if tried.run.clients is None:
        amounts["batch"] = (layout.batch, LARGEST_BATCH)
    elif conditions.concurrency is not None:
        amounts["concurrency"] = (conditions.concurrency, max(conditions.concurrency, MOST_CLIENTS))
    for key, (stated, most) in amounts.items():

        def value(amount: int, key: str = key) -> float | None:
            return tried.value(gap.quantity, (f"{key}={amount}",))

        found = _nearest_amount(value, gap, stated, most)
        if found != stated:
            suspect = _suspect(tried, gap, (_of(key, found, stated),), "amount")
            if suspect is not None and suspect.reaches:
                yield suspect


def _nearest_amount(value: Callable[[int], float | None], gap: Gap, stated: int, most: int) -> int:
    """Return the amount whose value comes nearest to what was measured, from 1 to ``most``, by halving.

    Of the two directions it takes the one in which the first step leads nearer; what has no value bounds it.
    """

    def distance(amount: int) -> float:
        found = value(amount)
        return math.inf if found is None else abs(_apart(gap.measured, found))

    def passed(amount: int) -> bool:
        """Return whether an amount lies at or beyond what was measured, or cannot be."""
        found = value(amount)
        return found is None or (found >= gap.measured) == (gap.ratio >= 1)

    step = next((sign for sign in (1, -1) if 1 <= stated + sign <= most and _leads(value, gap, stated, sign)), 0)
    if not step:
        return stated
    near, reach = stated, 1
    while not passed(stated + step * reach):
        near = stated + step * reach
        if near in (1, most):
            return near
        reach = min(2 * reach, most - stated if step > 0 else stated - 1)
    beyond = stated + step * reach
    while abs(beyond - near) > 1:
        middle = (near + beyond) // 2
        near, beyond = (near, middle) if passed(middle) else (middle, beyond)
    return min((near, beyond), key=distance)


def _leads(value: Callable[[int], float | None], gap: Gap, stated: int, sign: int) -> bool:
    """Return whether an eighth more, or less, of an amount leads towards what was measured."""
    moved = value(max(1, stated + sign * max(1, stated // 8)))
    return moved is not None and moved != gap.predicted.value and (moved > gap.predicted.value) == (gap.ratio > 1)
