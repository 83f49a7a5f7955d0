"""One question asked of several systems: the best plan on each, which serves most a card, and how sure that is."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError
from perfmodel.files.catalog import load_system
from perfmodel.files.folders import names
from perfmodel.planning.planner import Planned, answered
from perfmodel.planning.published import rows_on_file
from perfmodel.planning.request import SERVERS_SEARCHED, PlanRequest, most_servers, request_of
from perfmodel.prediction.deployment import Deployment
from perfmodel.prediction.differences import Sampled, difference, full_load, is_tie
from perfmodel.prediction.uncertainty import Interval
from perfmodel.scoring.distance import Place, place_of_pool
from perfmodel.scoring.neighbours import Anchor, anchor, nearest_rows, placed
from perfmodel.scoring.validation import Published
from perfmodel.solver.smallest import smallest_instance
from perfmodel.solver.solution import Solution
from perfmodel.specs.deployment import PHASES, Phase
from perfmodel.specs.machine import SystemSpec
from perfmodel.specs.run import RunSpec
from perfmodel.units import HOUR

ALL = "all"  # stands for every system on file
ROOM = 2  # of the smallest deployment: as much again for cache, and for more instances of one pool than of the other
#: what a search is held against, the last that is checked first: what one refuses has met those after it here
CHECKED = ("rate", "ttft", "cards", "tpot", "memory", "prefill memory")


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One size for all: the cards, the system whose smallest deployment asks for them, and the cards of that."""

    cards: int
    system: str
    smallest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lack:
    """Why a system has no plan: what it cannot be asked, in words, or the limit that binds and how near the best came.

    ``cards`` are those from which the model fits in memory, where it does not and some number is enough.
    """

    words: str = ""
    constraint: str | None = None
    closest: float | None = None
    limit: float | None = None
    unit: str = ""
    cards: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Near:
    """The published row nearest to a decode pool, how far it is, and the error of its prediction, above zero slow."""

    name: str
    far: float
    slow: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Against:
    """What a system serves a card over the best one, and whether that is beyond doubt.

    ``doubt`` is the interval of the difference on the same samples of both; none where they share no kernels: then
    intervals of each alone are held against each other.
    """

    loss: float
    doubt: Interval | None
    tie: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One system: its best plan, or why there is none."""

    system: SystemSpec
    #: what finds its file again
    word: str
    #: budget in cards; none where a rate is asked for alone
    budget: int | None
    #: what a card costs an hour
    price: float | None = None
    #: cards of the smallest instance that decodes and holds the model; none where that was not looked for, or none does
    smallest: float | None = None
    planned: Planned | None = None
    lack: Lack | None = None
    near: Near | None = None
    against: Against | None = None

    @property
    def best(self) -> Deployment | None:
        """Its best plan."""
        return None if self.planned is None else self.planned.solution.best

    @property
    def servers(self) -> int | None:
        """Servers in use."""
        return None if self.best is None else self.best.servers_used

    @property
    def cards(self) -> int | None:
        """Cards of the servers in use."""
        return None if self.servers is None else int(self.servers * as_float(self.system.packages_per_server))

    @property
    def tokens_per_s_per_card(self) -> float | None:
        """Output tokens a second and card of the servers in use, sustained."""
        if self.planned is None or self.best is None or not self.cards:
            return None
        return self.best.requests_per_s * as_float(self.planned.request.case.osl) / self.cards

    @property
    def interval(self) -> Interval | None:
        """How sure that is."""
        rate = self.tokens_per_s_per_card
        if rate is None or self.planned is None or self.planned.overall is None or self.best is None:
            return None
        each = rate / self.best.requests_per_s
        ends = self.planned.overall.requests_per_s.as_dict()
        return Interval(**{name: value * each for name, value in ends.items()})

    @property
    def tokens_per_s_per_server(self) -> float | None:
        """Output tokens a second and server in use, sustained."""
        rate = self.tokens_per_s_per_card
        return None if rate is None else rate * as_float(self.system.packages_per_server)

    @property
    def tokens_per_joule(self) -> float | None:
        """Output tokens a joule with every server at its largest input: tokens/s a watt, at least."""
        rate, power = self.tokens_per_s_per_server, self.system.server_power
        return None if rate is None or power is None else rate / as_float(power)

    @property
    def tokens_per_money(self) -> float | None:
        """Output tokens for one of the money of its price."""
        rate = self.tokens_per_s_per_card
        return None if rate is None or self.price is None else rate * HOUR / self.price


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """All systems, those that serve most a card first, those without a plan last."""

    run: RunSpec
    model: str
    outcomes: tuple[Outcome, ...]
    #: servers of each, where that was asked for
    servers: int | None
    #: none where a size or a rate was asked for
    size: Size | None
    #: systems whose networks hold less than that, by name, and the cards that they hold
    most: Mapping[str, int]
    remarks: tuple[str, ...]

    @property
    def best(self) -> Outcome | None:
        """The system that serves most a card."""
        first = self.outcomes[0]
        return first if first.best is not None else None


def systems_named(text: str, prices: Sequence[str]) -> tuple[dict[str, SystemSpec], dict[str, float], tuple[str, ...]]:
    """Return the systems of a list by the words that find them, the prices of some by name, and remarks.

    Raises ``UsageError`` with a line for each word that is not on file, or names a system twice.
    """
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == [ALL]:
        words = list(names("systems"))
    faults: list[str] = []
    remarks: list[str] = []
    found: dict[str, SystemSpec] = {}
    called: dict[str, str] = {}
    for word in words:
        try:
            known = load_system(word)
        except UsageError as error:
            faults.append(f"--on: {error}")
            continue
        name = known.spec.name
        if name in called:
            both = repr(word) if called[name] == word else f"{called[name]!r} and {word!r}"
            faults.append(f"--on: {both} {'is there twice' if called[name] == word else f'are both {name}'}; drop one")
            continue
        called[name] = word
        found[known.word] = known.spec
        remarks += known.notes
    if not faults and len(found) < 2:  # noqa: PLR2004 - one has nothing to be compared with
        faults.append(f"--on: {text!r}; allowed: two systems or more with commas between, or {ALL}")
    priced = _prices(prices, [spec.name for spec in found.values()], faults) if not faults else {}
    if faults:
        raise UsageError("\n".join(faults))
    return found, priced, tuple(remarks)


def _prices(texts: Iterable[str], systems: Sequence[str], faults: list[str]) -> dict[str, float]:
    """Return what a card of each system costs an hour; note what is wrong."""
    found: dict[str, float] = {}
    for text in texts:
        word, _, value = text.rpartition("=")
        try:
            price = float(value)
        except ValueError:
            price = math.nan
        if not word or not 0 < price < math.inf:
            faults.append(
                f"--price: {text!r}; allowed: a system of --on and what its card costs an hour, like {systems[0]}=2.5"
            )
            continue
        try:
            name = load_system(word.strip()).spec.name
        except UsageError as error:
            faults.append(f"--price: {error}")
            continue
        if name not in systems:
            faults.append(f"--price: {word!r} is not among the systems of --on; allowed: {', '.join(systems)}")
        elif name in found:
            faults.append(f"--price: two prices of {name}; allowed: one; drop the other")
        found[name] = price
    return found


def compared(
    run: RunSpec, systems: Mapping[str, SystemSpec], *, servers: int | None = None, prices: Mapping[str, float]
) -> Comparison:
    """Return the best plan for a run-spec on each of some systems, and which serves most a card.

    The run-spec says all but the system; ``servers`` is a budget in place of its cards.  Without a budget and a rate
    all have one size.  Raises ``UsageError`` where no system can be asked.
    """
    plain = run.model_copy(update={"top": 1, "serving": run.serving or "disaggregated"})
    free = servers is None and run.cards is None and run.rate is None
    sizes = _size_for_all(plain, systems) if free else _Sizes(size=None, most={}, lacks={}, instances={})
    outcomes: list[Outcome] = []
    remarks: dict[str, None] = {}
    for word, system in systems.items():
        each = int(as_float(system.packages_per_server))
        budget = run.cards if servers is None else servers * each
        if sizes.size is not None:
            budget = sizes.most.get(word, sizes.size.cards)
        outcome = Outcome(
            system=system, word=word, budget=budget, price=prices.get(system.name), smallest=sizes.instances.get(word)
        )
        if word in sizes.lacks:
            outcomes.append(replace(outcome, lack=sizes.lacks[word]))
            continue
        try:
            request = request_of(plain.model_copy(update={"on": word, "cards": budget}))
            answer = answered(replace(request, given=()))
        except UsageError as error:
            outcomes.append(replace(outcome, lack=Lack(words="; ".join(str(error).splitlines()))))
            continue
        remarks |= dict.fromkeys(answer.request.remarks)
        lack = None if answer.solution.best is not None else _lack(answer)
        outcomes.append(replace(outcome, planned=answer, lack=lack))
    if all(one.planned is None and one.lack is not None and one.lack.words for one in outcomes):
        raise UsageError("\n".join(f"{one.system.name}: {one.lack.words}" for one in outcomes if one.lack))
    model = next((one.planned.request.model.name for one in outcomes if one.planned), str(run.model))
    return Comparison(
        run=run,
        model=model,
        outcomes=tuple(_ranked(_beside_rows(outcomes))),
        servers=servers,
        size=sizes.size,
        most={systems[word].name: cards for word, cards in sizes.most.items()},
        remarks=tuple(remarks),
    )


def sized(run: RunSpec, word: str) -> tuple[PlanRequest, dict[Phase, int | None]]:
    """Return a run-spec read for a system without a budget, and the dies of the smallest instance of either pool.

    None where none of a search holds the model.  Raises ``UsageError`` as ``request_of`` does.
    """
    request = request_of(run.model_copy(update={"on": word, "cards": None, "rate": 1.0}))
    search, domains = request.search, dict(zip(PHASES, request.search.domains, strict=True))
    return request, {
        phase: smallest_instance(
            case, phase, search.choices, min(SERVERS_SEARCHED, most_servers(case.rates)), domains[phase]
        )
        for phase, case in request.cases.items()
    }


def smallest_servers(request: PlanRequest, dies: Mapping[Phase, int | None]) -> int | None:
    """Return the whole servers of one instance of each pool, or of one that runs both; none where one has none."""
    phases = PHASES if request.run.serving == "disaggregated" else ("decode",)
    each = [None if (count := dies[phase]) is None else count for phase in phases]
    if None in each:
        return None
    return sum(math.ceil(count / request.case.rates.dies_per_server) for count in each if count is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sizes:
    """One size for all, what some have instead, in cards, and why others can have none; by words that find them."""

    size: Size | None
    most: Mapping[str, int]
    lacks: Mapping[str, Lack]
    #: cards of the smallest instance that decodes
    instances: Mapping[str, float]


def _size_for_all(run: RunSpec, systems: Mapping[str, SystemSpec]) -> _Sizes:
    """Return one size in cards for all systems, where no budget is given.

    It is what the system with the largest smallest deployment needs, with room beside, in whole servers of all; of a
    system whose networks hold less, all that they hold.
    """
    smallest: dict[str, int] = {}
    most: dict[str, int] = {}
    lacks: dict[str, Lack] = {}
    instances: dict[str, float] = {}
    for word in systems:
        try:
            request, dies = sized(run, word)
        except UsageError as error:
            lacks[word] = Lack(words="; ".join(str(error).splitlines()))
            continue
        rates = request.case.rates
        if dies["decode"] is not None:
            instances[word] = dies["decode"] / rates.dies_per_package
        if (servers := smallest_servers(request, dies)) is None:
            lacks[word] = Lack(constraint="memory" if dies["decode"] is None else "prefill memory")
            continue
        smallest[word] = int(servers * rates.packages_per_server)
        most[word] = int(most_servers(rates) * rates.packages_per_server)
    if not smallest:
        return _Sizes(size=None, most={}, lacks=lacks, instances=instances)
    largest = max(smallest, key=lambda word: smallest[word])
    whole = math.lcm(*(int(as_float(systems[word].packages_per_server)) for word in smallest))
    size = Size(
        cards=-(-ROOM * smallest[largest] // whole) * whole,
        system=systems[largest].name,
        smallest=smallest[largest],
    )
    return _Sizes(
        size=size,
        most={word: cards for word, cards in most.items() if cards < size.cards},
        lacks=lacks,
        instances=instances,
    )


def _lack(answer: Planned) -> Lack:
    """Return the limit that binds where there is no plan."""
    found = _binding(answer.solution)
    if found.constraint not in ("memory", "prefill memory"):
        return found
    request, dies = sized(answer.request.run, answer.request.machine.system.word)
    servers = smallest_servers(request, dies)
    cards = None if servers is None else int(servers * request.case.rates.packages_per_server)
    return replace(found, cards=cards)


def _binding(solution: Solution) -> Lack:
    closest = {one.constraint: one for one in solution.rejections}
    for name in CHECKED:
        one = closest.get(name)
        if one is not None and math.isfinite(one.closest):
            return Lack(constraint=name, closest=one.closest, limit=one.limit, unit=one.unit)
    return Lack(constraint=next((name for name in CHECKED if name in closest), "layout"))


def _beside_rows(outcomes: Iterable[Outcome]) -> Iterator[Outcome]:
    """Yield outcomes with the published row nearest to each decode pool."""
    rows: list[tuple[Published, Place]] | None = None
    anchors: dict[str, Anchor] = {}
    for one in outcomes:
        if one.planned is None or one.best is None:
            yield one
            continue
        if rows is None:
            rows = placed(row for row in rows_on_file() if row.spec.conditions.phase == "decode")
        request = one.planned.request
        near = nearest_rows(place_of_pool(one.best.decode, request.machine, request.case), rows, 1)
        for row, far in near:
            if row.name not in anchors:
                anchors[row.name] = anchor(row)
            one = replace(one, near=Near(name=row.name, far=far, slow=anchors[row.name].slow))
        yield one


def _ranked(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Return outcomes, the most tokens a card first, each beside the best; those without a plan last, as asked."""
    ranked = sorted(outcomes, key=lambda one: -(one.tokens_per_s_per_card or 0.0))
    best, others = ranked[0], ranked[1:]
    return [best, *(one if one.best is None else replace(one, against=_against(best, one)) for one in others)]


def _against(best: Outcome, other: Outcome) -> Against:
    """Return what one serves a card over the best: sample by sample where both are moved by the same kernels."""
    first, second = best.tokens_per_s_per_card, other.tokens_per_s_per_card
    assert first is not None and second is not None
    assert best.planned is not None and other.planned is not None
    loss = second / first - 1
    if not _share_kernels(best.planned, other.planned):
        one, two = best.interval, other.interval
        assert one is not None and two is not None
        return Against(loss=loss, doubt=None, tie=two.high90 >= one.low90)
    sides = []
    for planned in (other.planned, best.planned):
        deployment = planned.solution.best
        assert deployment is not None
        sampled = Sampled(machines=planned.request.machines, cases=planned.request.cases)
        sides.append((sampled.served(deployment), full_load(deployment)))
    doubt = difference(loss, sides[0], sides[1])
    return Against(loss=loss, doubt=doubt, tie=is_tie(doubt))


def _share_kernels(one: Planned, other: Planned) -> bool:
    """Return whether two run one engine's kernels: then what is not known of them is as large for both."""
    first, second = one.request.machine, other.request.machine
    if first.stack.word != second.stack.word:
        return False
    sets = [{known.spec.name for known in machine.kernels_of().values()} for machine in (first, second)]
    return not sets[0].isdisjoint(sets[1])
