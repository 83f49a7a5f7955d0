"""What the solver answers equals loops over every deployment of small spaces, or over what it was handed."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import UsageError
from perfmodel.ledger.records import Layout
from perfmodel.prediction.serving import Case, first_token, usable_memory
from perfmodel.solver import alternatives, front, infeasibility, lowest_tpot, mesh, optimal_range, space
from perfmodel.solver.join import Join, Prefills, joined
from perfmodel.solver.mesh import Leader
from perfmodel.solver.request import Cases, SearchRequest
from perfmodel.solver.solution import Status
from perfmodel.solver.solve import solve
from perfmodel.solver.space import Choices
from perfmodel.solver.tally import Tally, describe
from perfmodel.specs.deployment import Targets
from tests.builders import Walked
from tests.test_mixed_by_loops import CLOSE, LARGEST, Pair, at_share, pairs_of, plans_of, rounded, small_case

UTILISATION = 0.83


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mesh, "LARGEST_BATCH", LARGEST)
    monkeypatch.setattr(space, "SHARED_STEP", 1)


def asked_for(**changes: Any) -> SearchRequest:
    """Return a request of two pools on three servers."""
    given: dict[str, Any] = {
        "servers": 3, "rate": None, "targets": Targets(), "utilisation": UTILISATION, "objective": "throughput",
        "choices": Choices(), "top": 4,
    }  # fmt: skip
    return SearchRequest(**(given | changes))


@dataclass(frozen=True, eq=False)
class Whole:
    """Whole instances of both pools, or mixed ones."""

    decode: Walked
    prefill: Walked
    instances: tuple[int, int]
    tpot: float
    served: float
    ttft: float
    #: servers of prefill and of decode
    servers: tuple[int, int]
    mixed: bool = False

    def worth(self, asked: SearchRequest) -> float:
        """Return its objective, the more the better."""
        prefill, decode = self.servers
        money = prefill * asked.prices[0] + decode * asked.prices[1]
        match asked.objective:
            case "throughput":
                return self.served
            case "tpot":
                return 1 / self.tpot
            case "cards":
                return 1 / (prefill + decode)
            case "per-card":
                money = prefill + decode
        return (1 if asked.rate is not None else self.served) / money


def sizes_of(case: Case, servers: int) -> list[int]:
    """Return the halves of a server and whole servers, in dies."""
    one = case.rates.dies_per_server
    return [one // part for part in (8, 4, 2) if one % part == 0] + [one * n for n in range(1, servers + 1)]


def waited(plan: Walked, case: Case) -> float:
    """Return the TTFT of a prefill layout up to the first decode step."""
    terms = first_token(
        prefill=plan.point, layout=Layout.of(plan.layout), case=case, utilisation=UTILISATION, decode_step=0.0
    )
    return float(terms.ttft)


@dataclass(frozen=True, eq=False)
class Pools:
    """All layouts that fit the memory, for each cache precision."""

    cases: Cases
    sides: list[tuple[list[Walked], list[Walked]]]
    pairs: list[Pair]

    @property
    def decodes(self) -> list[Walked]:
        return [one for side, _ in self.sides for one in side]


def pools_of(cases: Cases, asked: SearchRequest) -> Pools:
    """Return every layout of both pools that fits, one by one, and of mixed instances where they are searched."""
    sides, pairs = [], []
    for kv_dtype in asked.choices.kv_dtypes:
        choices = replace(asked.choices, kv_dtypes=(kv_dtype,))
        most = asked.servers - (asked.prefill_servers is None)
        decodes = plans_of(cases.decode, "decode", sizes_of(cases.decode, most), choices)
        prefills = plans_of(cases.prefill, "prefill", sizes_of(cases.prefill, asked.prefill_servers or most), choices)
        fitting = [
            [one for one in side if float(one.point.memory) <= float(usable_memory(case.rates))]
            for side, case in ((decodes, cases.decode), (prefills, cases.prefill))
        ]
        sides.append((fitting[0], fitting[1]))
        if asked.serving != "disaggregated":
            found, _ = pairs_of(cases.decode, sizes_of(cases.decode, asked.servers), choices, UTILISATION)
            usable = float(usable_memory(cases.decode.rates))
            pairs += [pair for pair in found if pair.possible and pair.memory <= usable]
    return Pools(cases, sides, pairs)


def deployments(pools: Pools, asked: SearchRequest, decodes: list[Walked] | None = None) -> Iterator[Whole]:
    """Yield every count of instances of every pair of layouts within the limits."""
    of_prefill, of_decode = (case.rates.dies_per_server for case in (pools.cases.prefill, pools.cases.decode))
    tpot, ttft = asked.targets.tpot or math.inf, asked.targets.ttft or math.inf
    for side, prefills in pools.sides if asked.serving != "mixed" else ():
        waits = [waited(one, pools.cases.prefill) for one in prefills]
        for decode in side if decodes is None else [one for one in decodes if one in side]:
            if decode.tpot > tpot:
                continue
            counts = [n for n in range(1, 99) if -(-n * decode.layout.dies // of_decode) <= asked.servers]
            for (prefill, wait), n in product(zip(prefills, waits, strict=True), counts):
                first, used = wait + decode.step, -(-n * decode.layout.dies // of_decode)
                room = asked.servers - used if asked.prefill_servers is None else asked.prefill_servers
                for m in range(1, 1 + room * of_prefill // prefill.layout.dies if first <= ttft else 1):
                    own = -(-m * prefill.layout.dies // of_prefill)
                    served = UTILISATION * min(n * decode.rate, m * prefill.rate)
                    if served >= (asked.rate or 0) * (1 - CLOSE):
                        served = min(served, asked.rate or math.inf)
                        yield Whole(decode, prefill, (m, n), decode.tpot, served, first, (own, used))
    for pair in pools.pairs if asked.serving != "disaggregated" else ():
        for n in range(1, 99):
            used, served = -(-n * pair.decode.layout.dies // of_decode), n * pair.rate * UTILISATION
            if used > asked.servers or pair.time > tpot or pair.ttft > ttft:
                break
            if served >= (asked.rate or 0) * (1 - CLOSE):
                served = min(served, asked.rate or math.inf)
                yield Whole(pair.decode, pair.prefill, (n, n), pair.time, served, pair.ttft, (0, used), mixed=True)


def words_of(one: Whole) -> dict[str, str]:
    """Return what the plan chose, as the tables of ``solve`` name it."""
    layout, family = one.decode.layout, one.decode.family
    overlap = {"none": "serial layers", "cores": "micro-batches on split cores", "link": "overlap link"}
    return {
        "serving": "mixed: prefill and decode in turn on the same dies" if one.mixed else "disaggregated",
        "tp": f"tp {layout.tp}",
        "draft": {0: "0 drafts", 1: "1 draft", 2: "2 drafts"}[layout.draft],
        "overlap": overlap[layout.overlap],
        "exchange": f"exchange {layout.exchange}",
        "shared": "shared experts on dies of their own" if layout.shared_ranks else "shared expert on every die",
        "experts": "whole experts" if layout.expert_tp == 1 else f"experts split over {layout.expert_tp} dies",
        "cache": f"{family.kv_dtype} cache",
    }


PREFILL: dict[str, Any] = {"overlap": "link", "exchange": "gather", "tp": 2, "redundant": "fewest slots"}
FEWEST: dict[str, Any] = {"redundant": "fewest slots"}


def two_systems(usable: float | None = None) -> Cases:
    """Return prefill on servers of four packages of two dies, decode on servers of four of one."""
    decode = small_case(usable, dies_per_package=1, packages_per_server=4)
    prefill = small_case(usable and usable * 2, dies_per_package=4, packages_per_server=2)
    return Cases(prefill=replace(prefill, rates=replace(prefill.rates, frontend_rate=90.0, frontends=2)), decode=decode)


def one_system(usable: float | None = None) -> Cases:
    """Return both pools on servers of two packages of two dies."""
    case = small_case(usable)
    return Cases(prefill=case, decode=case)


def behind_front_ends() -> Cases:
    """Return one system whose front ends take fewer requests than most layouts could serve."""
    case = one_system().decode
    case = replace(case, rates=replace(case.rates, frontend_rate=6.0, frontends=2))
    return Cases(prefill=case, decode=case)


@dataclass(frozen=True, eq=False)
class Given:
    """A space, its layouts, and a request."""

    cases: Cases
    asked: SearchRequest
    pools: Pools


def given(cases: Cases, tpot: float | None = None, **changes: Any) -> Given:
    """Return a request over a space, with a TPOT limit above such a share of its decode layouts."""
    decode = {**FEWEST, **changes.pop("decode", {})}
    prefill = {**PREFILL, **changes.pop("prefill", {})}
    offered = {phase: changes.get("offered", {}) for phase in ("prefill", "decode")}
    changes.pop("offered", None)
    choices = Choices(
        fixed={"prefill": prefill, "decode": decode}, offered=offered, kv_dtypes=changes.pop("kv", ("bf16",))
    )
    asked = asked_for(choices=choices, **changes)
    pools = pools_of(cases, asked)
    limit = None if tpot is None else at_share([one.tpot for one in pools.decodes], tpot)
    return Given(cases, replace(asked, targets=asked.targets.model_copy(update={"tpot": limit})), pools)


REQUESTS: dict[str, Any] = {
    "throughput": lambda: given(one_system(760e6), 0.4, kv=("bf16", "int8"), decode={"overlap": "cores"}),
    "cost at a rate": lambda: given(
        one_system(), 0.7, objective="cost", rate=60.0, prices=(3.0, 7.0), offered={"expert_tp": (1, 2)},
        decode={"overlap": "none"},
    ),
    "cards": lambda: given(one_system(), objective="per-card", decode={"exchange": "gather"}),
    "two systems": lambda: given(
        two_systems(), 0.5, objective="per-card", prefill_servers=2, servers=2, decode={"overlap": "none"}
    ),
    "any": lambda: given(
        one_system(), 0.5, serving="any", targets=Targets(ttft=0.2), decode={"shared_ranks": 0, "tp": 2}
    ),
    "TTFT": lambda: given(one_system(), 0.7, targets=Targets(ttft=0.11), decode={"exchange": "gather", "tp": 2}),
    "mixed": lambda: given(one_system(), 0.6, serving="mixed", servers=2, decode={"exchange": "gather", "tp": 2}),
    "mixed behind front ends": lambda: given(
        behind_front_ends(), 0.6, serving="mixed", servers=2, decode={"exchange": "gather", "tp": 2}
    ),
}  # fmt: skip


@cache
def named(name: str) -> Given:
    """Return a space, walked once."""
    space_of: Given = REQUESTS[name]()
    return space_of


@pytest.mark.parametrize("name", REQUESTS)
def test_the_answer_is_that_of_loops_over_every_deployment(name: str) -> None:
    """The best of each size, tp, draft and family; the best of every other choice; what they lose."""
    one = named(name)
    best: dict[Any, float] = {}
    first: dict[Any, tuple[float, float, float]] = {}  # by rate, then cost, then TTFT
    words: dict[str, float] = {}
    top: Whole | None = None
    others: list[tuple[Whole, float]] = []
    for whole in deployments(one.pools, one.asked):
        layout, worth = whole.decode.layout, whole.worth(one.asked)
        kind = layout.dies, layout.tp, layout.draft, whole.decode.family, whole.mixed
        if worth > best.get(kind, 0.0):
            best[kind] = worth
        key = -rounded(whole.served), float(sum(whole.servers)), whole.ttft
        first[kind] = min(first.get(kind, key), key)
        if top is None or worth > top.worth(one.asked) * (1 + CLOSE):
            top = whole
        others.append((whole, worth))
    solution = solve(one.cases.decode, one.asked, one.cases.prefill)
    assert top is not None
    assert solution.best is not None
    assert solution.status is Status.OPTIMAL
    ordered = sorted(best.values(), reverse=True)
    assert len(ordered) > 4
    worths = [worth_of(plan, one.asked) for plan in (solution.best, *solution.alternatives)]
    assert worths == pytest.approx(ordered[: one.asked.top], rel=CLOSE)
    assert solution.losses == pytest.approx([worth / ordered[0] - 1 for worth in ordered[1 : one.asked.top]], abs=CLOSE)
    for plan in (solution.best, *solution.alternatives) if one.asked.objective == "throughput" else ():
        layout = plan.decode.layout
        kind = layout.dies, layout.tp, layout.draft, plan.decode.family, plan.mixed
        servers = plan.decode_servers + plan.prefill_servers
        assert (-plan.requests_per_s, servers, plan.first_token.ttft) == pytest.approx(first[kind], rel=CLOSE)
    chosen = structure_of(solution.best)
    for whole, worth in others:
        for respect, word in words_of(whole).items():
            if word != chosen[respect]:
                words[word] = max(words.get(word, 0.0), worth)
    told = {cost.choice: cost for cost in solution.alternative_costs}
    assert {word: cost.loss for word, cost in told.items()} == pytest.approx(
        {word: worth / ordered[0] - 1 for word, worth in words.items()}, abs=CLOSE
    )
    assert len(told) == len(solution.alternative_costs) >= 2
    for word, cost in told.items():
        assert word in structure_of(cost.deployment).values()
        assert worth_of(cost.deployment, one.asked) == pytest.approx(words[word], rel=CLOSE)
    assert solution.search == one.asked
    assert (solution.relaxed_rate is None) == (name not in ("throughput", "TTFT"))
    assert bool(solution.shadow_prices) != solution.best.mixed


def worth_of(plan: Any, asked: SearchRequest) -> float:
    """Return the objective of a deployment that was told, from its own figures."""
    servers = plan.prefill_servers, plan.decode_servers
    return Whole(plan.decode, plan.prefill, (0, 0), plan.tpot, plan.requests_per_s, 0.0, servers).worth(asked)


def structure_of(plan: Any) -> dict[str, str]:
    """Return what a deployment that was told chose, in words."""
    return words_of(Whole(plan.decode, plan.prefill, (0, 0), 0.0, 0.0, 0.0, (0, 0), plan.mixed))


def test_a_search_that_finds_none_says_whether_there_was_any() -> None:
    """A TPOT that none meets is infeasible; a tp degree that no server has leaves nothing to look at."""
    one = given(one_system(), decode={"tp": 2, "overlap": "none", "exchange": "gather"})
    fast = min(plan.tpot for plan in one.pools.decodes)
    asked = replace(one.asked, targets=Targets(tpot=fast / 2))
    solution = solve(one.cases.decode, asked)
    assert (solution.status, solution.best, solution.alternatives) == (Status.INFEASIBLE, None, ())
    assert (solution.alternative_costs, solution.shadow_prices, solution.relaxed_rate) == ((), (), None)
    told = {row.constraint: row for row in solution.rejections}
    assert told["tpot"].closest == pytest.approx(fast, rel=CLOSE)
    assert told["tpot"].count == len(one.pools.decodes)
    assert solution.evaluated == len(one.pools.decodes) + len(one.pools.sides[0][1])
    fixed = {"prefill": {**PREFILL, "tp": 3}, "decode": {"tp": 3}}
    empty = solve(one.cases.decode, replace(asked, choices=Choices(fixed=fixed)))
    assert (empty.status, empty.evaluated, empty.best) == (Status.EMPTY, 0, None)


@pytest.mark.parametrize(
    ("utilisation", "of_prefill", "refused"),
    [(1.0, 90.0, True), (1.5, 90.0, True), (0.99, 90.0, False), (1.0, None, False)],
)
def test_busy_front_ends_of_prefill_are_refused(utilisation: float, of_prefill: float | None, refused: bool) -> None:
    """Docstring of ``solve``: the wait for a busy front end has no bound; those of decode do not count."""
    cases = one_system()
    prefill = replace(cases.prefill, rates=replace(cases.prefill.rates, frontend_rate=of_prefill))
    decode = replace(cases.decode, rates=replace(cases.decode.rates, frontend_rate=None if refused else 90.0))
    choices = Choices(fixed={"prefill": {**PREFILL, "batch": 1}, "decode": {**FEWEST, "batch": 1, "tp": 2}})
    asked = asked_for(utilisation=utilisation, choices=choices, top=1)
    if refused:
        with pytest.raises(UsageError, match="no bound"):
            solve(decode, asked, prefill)
    else:
        assert solve(decode, asked, prefill).best is not None


@pytest.mark.parametrize("of_case", [None, 90.0])
def test_without_a_case_of_its_own_prefill_has_that_of_decode(of_case: float | None) -> None:
    """Docstring of ``solve``: a second case is only of prefill on another system."""
    case = one_system().decode
    case = replace(case, rates=replace(case.rates, frontend_rate=of_case))
    choices = Choices(fixed={"prefill": {**PREFILL, "batch": 1}, "decode": {**FEWEST, "batch": 1, "tp": 2}})
    one, both = (solve(case, asked_for(choices=choices), prefill).best for prefill in (None, case))
    assert one is not None
    assert both is not None
    assert (one.requests_per_s, one.prefill.layout) == (both.requests_per_s, both.prefill.layout)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("other", [False, True])
def test_structural_choices_in_words(mixed: bool, other: bool) -> None:
    """Each respect in which a decode pool can choose otherwise, plain and other."""
    layout = SimpleNamespace(tp=4, draft=1, expert_tp=1)
    family = SimpleNamespace(overlap="none", exchange="gather", own_shared_ranks=other, kv_dtype="int8")
    expected = {
        "serving": "mixed: prefill and decode in turn on the same dies" if mixed else "disaggregated",
        "tp": "tp 4", "draft": "1 draft", "overlap": "serial layers", "exchange": "exchange gather",
        "shared": "shared expert on every die", "experts": "whole experts", "cache": "int8 cache",
    }  # fmt: skip
    if other:
        layout.draft, layout.expert_tp, family.overlap = 2, 2, "cores"
        expected |= {
            "draft": "2 drafts", "overlap": "micro-batches on split cores", "experts": "experts split over 2 dies",
            "shared": "shared experts on dies of their own",
        }  # fmt: skip
    decode = SimpleNamespace(layout=layout, mesh=SimpleNamespace(family=family))
    join: Any = SimpleNamespace(decode=decode, mixed=mixed)
    assert alternatives.structural_choices(join) == expected


def a_leader(rate: float, servers: float, step: float = 0.01, kv: str = "bf16") -> Leader:
    """Return a decode or prefill instance by its figures alone."""
    mesh_of = SimpleNamespace(family=SimpleNamespace(kv_dtype=kv))
    return Leader(
        key=(rate, servers, step, kv), mesh=mesh_of, index=0, requests_per_s=rate, step_time=step, servers=servers
    )  # type: ignore[arg-type]


def columns_of(*prefills: tuple[float, float, float]) -> Prefills:
    """Return prefill candidates of a rate, servers and TTFT."""
    rate, servers, ttft = (np.array(column) for column in zip(*prefills, strict=True))
    plans = [a_leader(*one) for one in prefills]
    return Prefills(plans=plans, servers=servers, rate=rate * UTILISATION, ttft=ttft)


def most_worth(decodes: list[Leader], prefills: list[tuple[float, float, float]], asked: SearchRequest) -> float:
    """Return the best objective over every count of every pair."""
    best, ttft = 0.0, asked.targets.ttft or math.inf
    for decode, (rate, size, wait), n, m in product(decodes, prefills, range(1, 12), range(1, 12)):
        own, used = math.ceil(m * size), math.ceil(n * decode.servers)
        served = UTILISATION * min(n * decode.requests_per_s, m * rate)
        room = asked.servers - used if asked.prefill_servers is None else asked.prefill_servers
        if used > asked.servers or own > room or wait + decode.step_time > ttft or served < (asked.rate or 0):
            continue
        served = min(served, asked.rate or math.inf)
        whole = Whole(None, None, (m, n), 1.0, served, 0.0, (own, used))  # type: ignore[arg-type]
        best = max(best, whole.worth(asked))
    return best


DECODES = [a_leader(5.0, 1, 0.02), a_leader(17.0, 2, 0.05), a_leader(11.0, 2, 0.01), a_leader(31.0, 5, 0.03)]
PREFILLS = [(7.0, 1.0, 0.3), (3.0, 0.5, 0.1), (29.0, 3.0, 0.95), (10.0, 1.0, 1.03), (60.0, 1.0, 1.2)]
PRICED: dict[str, dict[str, Any]] = {
    "throughput": {"targets": Targets(tpot=0.05, ttft=1.0)},
    "per card": {"targets": Targets(tpot=0.05, ttft=1.0), "objective": "per-card", "servers": 6},
    "two budgets": {"targets": Targets(tpot=0.05, ttft=1.0), "prefill_servers": 2},
    "money": {"targets": Targets(ttft=1.0), "objective": "cost", "rate": 8.0, "prices": (5.0, 3.0)},
    "cards": {"targets": Targets(tpot=0.05), "objective": "cards", "rate": 8.0},
    "no limits": {},
}


@pytest.mark.parametrize("name", PRICED)
def test_what_more_of_a_limit_buys_is_that_of_loops(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A millisecond of TPOT to the best instance refitted; a tenth of TTFT, one more server to all of its precision."""
    asked = asked_for(**{"servers": 7, **PRICED[name]})
    prefills, other = columns_of(*PREFILLS), columns_of((90.0, 0.5, 0.1))
    tally = Tally()
    strangers = [a_leader(400.0, 1, 0.04, kv) for kv in ("a8", "int8")]  # names before and after that of the best
    joins = sorted(joined(DECODES, prefills, asked, tally), key=lambda join: join.key)
    best = joins[0]
    joins = [
        best,
        replace(best, decode=a_leader(900.0, 1), mixed=True),
        *joins[1:],
        *(replace(joins[-1], decode=stranger) for stranger in strangers),
    ]
    better = a_leader(best.decode.requests_per_s * 1.6, best.decode.servers, best.decode.step_time)
    given_to = []

    def refitted(leader: Leader, case: Any, tpot: float) -> Leader:
        given_to.append((leader, case, tpot))
        return better

    monkeypatch.setattr(alternatives, "refitted", refitted)
    told = alternatives.shadow_prices(
        joins,
        {"bf16": prefills, "int8": other},
        Cases(prefill="p", decode="d"),
        asked,  # type: ignore[arg-type]
    )
    before = most_worth(DECODES, PREFILLS, asked)
    expected = {}
    tpot, ttft = asked.targets.tpot, asked.targets.ttft
    if tpot is not None:
        expected["+1 ms of TPOT"] = most_worth([best.decode, better], PREFILLS, asked)
        assert given_to == [(best.decode, "d", pytest.approx(tpot + 0.001, rel=CLOSE))]
    if ttft is not None:
        expected["+10 % of TTFT"] = most_worth(DECODES, PREFILLS, replace(asked, targets=Targets(ttft=ttft * 1.1)))
    if asked.rate is None:
        expected["one more server"] = most_worth(DECODES, PREFILLS, replace(asked, servers=asked.servers + 1))
    if asked.prefill_servers is not None:
        expected["one more server of prefill"] = most_worth(
            DECODES, PREFILLS, replace(asked, prefill_servers=asked.prefill_servers + 1)
        )
    assert {one.limit: one.gain for one in told} == pytest.approx(
        {limit: worth / before - 1 for limit, worth in expected.items()}, abs=CLOSE
    )
    assert alternatives.shadow_prices([replace(best, mixed=True)], {}, None, asked) == ()  # type: ignore[arg-type]


@pytest.mark.parametrize("ttft", [None, 1.03])
def test_the_rate_of_divisible_instances_is_that_of_every_pair(ttft: float | None) -> None:
    """N / (s1 / r1 + s2 / r2) of servers s at rates r of one precision; no prefill that leaves decode no time."""
    asked = asked_for(servers=7, targets=Targets(ttft=ttft))
    sides = {
        "bf16": ([a_leader(5.0, 1), a_leader(17.0, 2)], [*PREFILLS, (61.0, 1.0, 1.03)]),
        "int8": ([a_leader(6.0, 1, 0.02, "int8"), a_leader(31.0, 5, 0.02, "int8")], [(9.0, 1.0, 0.2), (5.0, 0.5, 0.1)]),
        "none": ([], [(99.0, 1.0, 0.1)]),
    }
    columns = {kv: columns_of(*prefills) for kv, (_, prefills) in sides.items()}
    joins = [
        Join(decode, columns[kv].plans[0], 1, 1, 1.0, 0.1, (0.0,))
        for kv, (decodes, _) in sides.items()
        for decode in decodes
    ]
    rates = [
        7 / (decode.servers / (decode.requests_per_s * UTILISATION) + size / (rate * UTILISATION))
        for decodes, prefills in sides.values()
        for decode, (rate, size, wait) in product(decodes, prefills)
        if ttft is None or wait < ttft
    ]
    both = [*joins, replace(joins[0], decode=a_leader(1e6, 1), mixed=True)]
    assert alternatives.relaxed_rate(both, columns, asked) == pytest.approx(max(rates), rel=CLOSE)
    assert alternatives.relaxed_rate(both[::-1], columns, asked) is None
    for change in ({"objective": "per-card"}, {"objective": "tpot"}, {"rate": 3.0}, {"prefill_servers": 2}):
        assert alternatives.relaxed_rate(joins, columns, replace(asked, **change)) is None  # type: ignore[arg-type]


def test_the_relaxed_rate_of_a_search_is_that_of_every_pair_of_layouts() -> None:
    """No whole numbers do better, and the pair that sets it is one of the space."""
    one = named("throughput")
    solution = solve(one.cases.decode, one.asked)
    best, most = 0.0, 0.0
    used = {(whole.decode.layout, whole.decode.family) for whole in deployments(one.pools, one.asked)}
    for decodes, prefills in one.pools.sides:
        needs = [
            min(plan.layout.dies / 4 / (plan.rate * UTILISATION) for plan in side)
            for side in ([plan for plan in decodes if (plan.layout, plan.family) in used], prefills)
        ]
        most = max(most, 3 / sum(needs))
    assert solution.best is not None
    best = solution.best.requests_per_s
    assert solution.relaxed_rate == pytest.approx(most, rel=CLOSE)
    assert best <= most


def points_of(found: Any) -> Any:
    """Return the points of a front that was told, as rows."""
    return np.array([(one.tpot, one.tokens_per_s_per_card) for one in found])


def pareto(points: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return the points (TPOT, rate) that no other is at or below in TPOT and at or above in rate, each once."""
    kept = {a for a in points if not any(b != a and b[0] <= a[0] and b[1] >= a[1] * (1 - CLOSE) for b in points)}
    return sorted(kept)


#: a quarter of the limit to nearly three times as long, four to an octave
FRONT = [0.25 * 2 ** (step / 4) for step in range(15)]


@pytest.mark.parametrize("serving", ["disaggregated", "mixed", "any"])
def test_a_front_keeps_what_none_beats(serving: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docstring of ``front``: limits from short to long; left out where another is no slower and no worse."""
    cases = Cases(prefill=small_case(packages_per_server=3), decode=small_case(packages_per_server=5))
    choices = Choices(kv_dtypes=("bf16", "int8"))
    asked = asked_for(
        serving=serving, objective="cost", rate=4.0, targets=Targets(tpot=0.04, ttft=3.0), choices=choices,
        domains=(7, 9), servers=11,
    )  # fmt: skip
    chance = np.random.default_rng(3)
    plans = [
        (0.01 * int(a), float(b), int(c), int(d))
        for a, b, c, d in zip(*(chance.integers(1, 9, 60) for _ in range(4)), strict=True)
    ]
    plans += [(0.05, 1.0, 1, 1), (0.06, 1.0 + 1e-10, 1, 1), (0.005, 1.0, 2, 3), (0.3, 80.0, 2, 1), (0.3, 80.0, 2, 1)]
    rest = iter(plans)
    used: list[Any] = []

    def made() -> Any:
        used.append(next(rest))
        return SimpleNamespace(plan=used[-1], key=(0,))

    def apart(given_cases: Cases, request: SearchRequest, limits: Any) -> Any:
        assert given_cases.prefill is cases.prefill
        assert given_cases.decode is cases.decode
        assert (request.objective, request.rate, request.targets) == ("per-card", None, asked.targets)
        assert [one.tpot for one in limits] == pytest.approx([0.04 * factor for factor in FRONT], rel=CLOSE)
        return [None, *(made() for _ in limits[1:])]

    def together(given_cases: Cases, sizes: Any, request: SearchRequest, limits: Any, tally: Any) -> Any:
        assert given_cases.decode is cases.decode
        assert sizes == ("sizes", cases.decode, 11, 9)
        assert len(request.choices.kv_dtypes) == 1
        assert limits == pytest.approx([0.04 * factor for factor in FRONT], rel=CLOSE)
        worse = [SimpleNamespace(plan=(1e-9, 1e9, 1, 1), key=(1,))]
        return [[], *([*worse, made()] for _ in limits[1:])]

    def told(join: Any, given_cases: Cases, utilisation: float) -> Any:
        tpot, rate, own, used_servers = join.plan
        assert utilisation == UTILISATION
        return SimpleNamespace(tpot=tpot, requests_per_s=rate, prefill_servers=own, decode_servers=used_servers)

    monkeypatch.setattr(front, "best_of_each", apart)
    monkeypatch.setattr(front, "mixed_joins", together)
    monkeypatch.setattr(front, "deployment", told)
    monkeypatch.setattr(front, "sizes_of", lambda *given_to: ("sizes", *given_to))
    found = front.front(cases.decode, asked, cases.prefill)
    assert len(used) == {"disaggregated": 14, "mixed": 28, "any": 42}[serving]
    points = [(tpot, rate * 53 / (own * 3 + decode * 5)) for tpot, rate, own, decode in used]
    assert points_of(found) == pytest.approx(np.array(pareto(points)), rel=CLOSE)
    with pytest.raises(UsageError, match="no TPOT limit"):
        front.front(cases.decode, replace(asked, targets=Targets()))


@pytest.mark.parametrize("ties", range(8))
def test_points_of_a_front_that_tie_are_told_once(ties: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal in TPOT: the higher rate alone; equal in rate but for rounding: the shorter TPOT alone."""
    case = small_case(packages_per_server=1)
    chance = np.random.default_rng(ties)
    plans = [(0.01 * int(a), float(b)) for a, b in zip(*(chance.integers(1, 6, 15) for _ in range(2)), strict=True)]
    plans[:2] = [(0.03, 2.0), (0.04, 2.0 * (1 + 5e-10))]
    monkeypatch.setattr(front, "best_of_each", lambda *_: [SimpleNamespace(plan=plan) for plan in plans])
    monkeypatch.setattr(
        front,
        "deployment",
        lambda join, *_: SimpleNamespace(
            tpot=join.plan[0], requests_per_s=join.plan[1], prefill_servers=1, decode_servers=0
        ),
    )
    found = front.front(case, asked_for(targets=Targets(tpot=0.04)))
    expected = pareto([(tpot, rate * 53) for tpot, rate in plans])
    assert points_of(found) == pytest.approx(np.array(expected), rel=CLOSE)


@pytest.mark.parametrize(("name", "left"), [("two systems", None), ("any", None), ("cards", 1.5)])
def test_a_front_is_that_of_loops_over_every_deployment(name: str, left: float | None) -> None:
    """At each limit the most requests a server; of those points the ones that none beats by card.

    TTFT may leave the first step of decode little more than a TPOT, where a step with drafts takes longer.
    """
    one = named(name)
    middle = at_share([plan.tpot for plan in one.pools.decodes], 0.4)
    targets = one.asked.targets.model_copy(update={"tpot": middle})
    if left is not None:
        waits = [waited(plan, one.cases.prefill) for _, prefills in one.pools.sides for plan in prefills]
        targets = targets.model_copy(update={"ttft": min(waits) + left * middle})
    asked = replace(one.asked, targets=targets)
    free = replace(asked, targets=asked.targets.model_copy(update={"tpot": None}), objective="per-card")
    all_of_them = list(deployments(one.pools, free))
    points = []
    for factor, mixed in product(FRONT, (False, True)):
        within = [whole for whole in all_of_them if whole.tpot <= middle * factor and whole.mixed == mixed]
        if within:
            most = max(whole.worth(free) for whole in within)
            near = [whole for whole in within if whole.worth(free) >= most * (1 - CLOSE)]
            best = max(near, key=lambda whole: (float(f"{whole.served:.9g}"), -whole.ttft))
            packages = [case.rates.packages_per_server for case in (one.cases.prefill, one.cases.decode)]
            cards = best.servers[0] * packages[0] + best.servers[1] * packages[1]
            points.append((best.tpot, best.served * 53 / cards))
    found = front.front(one.cases.decode, asked, one.cases.prefill)
    assert points_of(found) == pytest.approx(np.array(pareto(points)), rel=CLOSE)
    assert found


SHORTEST: Any = {
    "decode": {"overlap": "cores"},
    "fused": {"fused_experts": True},
    "gather": {"exchange": "gather", "draft": 1},
}


@cache
def decodes_of(name: str) -> list[Walked]:
    """Return the decode layouts of some structures, walked once."""
    return plans_of(small_case(), "decode", [1, 2, 4, 8], Choices(fixed={"decode": {**FEWEST, **SHORTEST[name]}}))


@pytest.mark.parametrize("name", SHORTEST)
@pytest.mark.parametrize("share", [None, 0.3])
@pytest.mark.parametrize("fitting", [0.2, 0.9])
def test_the_shortest_step_of_each_size_is_that_of_loops(
    name: str, share: float | None, fitting: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the plans that meet memory and TPOT, and of the fused kernel no fuller than it takes; how many meet them."""
    monkeypatch.setattr("perfmodel.prediction.layouts.LARGEST_FUSED", 2)
    choices, sizes = Choices(fixed={"decode": {**FEWEST, **SHORTEST[name]}}), [1, 2, 4, 8]
    plans = decodes_of(name)
    usable = at_share([float(plan.point.memory) for plan in plans], fitting)
    tpot = None if share is None else at_share([plan.tpot for plan in plans], share)
    shortest: dict[int, float] = {}
    by: dict[int, set[str]] = {}
    meeting = 0
    for plan in plans:
        layout = plan.layout
        busy = layout.fused_experts and layout.batch * (1 + layout.draft) > 2 * layout.tp
        if busy or float(plan.point.memory) > usable or plan.tpot > (tpot or math.inf):
            continue
        meeting += 1
        if plan.step <= shortest.get(layout.dies, math.inf) * (1 + 1e-12):
            if plan.step < shortest.get(layout.dies, math.inf) * (1 - 1e-12):
                by[layout.dies] = set()
            shortest[layout.dies] = plan.step
            by[layout.dies].add(describe(layout, plan.family))
    found, counted = infeasibility._shortest_steps(small_case(usable), sizes, tpot, choices)
    assert counted == meeting
    assert {dies: step for dies, (step, _) in found.items()} == pytest.approx(shortest, rel=CLOSE)
    assert all(layout in by[dies] for dies, (_, layout) in found.items())
    assert 0 < meeting < len(plans)


STEPS = {1: (0.05, "one"), 5: (0.02, "five"), 8: (0.03, "eight"), 13: (0.011, "thirteen")}


@pytest.mark.parametrize("steps", [STEPS, {}, {13: STEPS[13]}], ids=["all", "none", "large"])
def test_the_nearest_miss_of_two_pools_is_that_of_loops(steps: Any) -> None:
    """Of the sizes whose earliest token is late the earliest; where no two instances fit, the fewest cards that do."""
    for servers, own, ttft, before in product(range(1, 8), (None, 1, 3), (None, 0.3, 0.335, 0.41, 9.0), (0, 5)):
        nearest_miss_is_that_of_loops(steps, servers, own, ttft, before)


def nearest_miss_is_that_of_loops(steps: Any, servers: int, own: int | None, ttft: float | None, before: int) -> None:
    """Compare one budget, one limit and one count of what fell before."""
    machine: Any = SimpleNamespace(rates=SimpleNamespace(dies_per_server=4, packages_per_server=3))
    prefills = [(1.0, 0.5, 0.4), (1.0, 2.0000000001, 0.32), (1.0, 3.0, 0.29), (1.0, 2.0, 0.3)]
    asked, tally = asked_for(servers=servers, prefill_servers=own, targets=Targets(ttft=ttft)), Tally()
    if before:
        tally.count("ttft", before)
    infeasibility._tally(steps, 17, columns_of(*prefills), machine, asked, tally)
    late, pairs = {}, []
    for dies, (step, layout) in steps.items():
        of_decode = [1, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4][dies]
        firsts = []
        for (_, _, wait), used in zip(prefills, (1, 2, 3, 2), strict=True):
            pairs.append(of_decode + used)
            if used <= (servers - of_decode if own is None else own):
                firsts.append(wait + step)
        if ttft is not None and firsts and min(firsts) > ttft:
            late[min(firsts)] = layout
    closest: dict[str, Any] = {}
    refused = {"ttft": before} if before else {}
    if late:
        closest["ttft"] = (min(late), ttft, late[min(late)])
    if own is None and pairs and min(pairs) > servers:
        closest["cards"] = (3 * min(pairs), 3 * servers, "one instance of each pool")
        refused["cards"] = 17
    elif not before:
        refused["ttft"] = 17 if late else 0
    assert tally.refused == refused
    assert {name: (row[1], row[2]) for name, row in tally.closest.items()} == {
        name: (row[1], row[2]) for name, row in closest.items()
    }
    assert {name: row[0] for name, row in tally.closest.items()} == pytest.approx(
        {name: row[0] for name, row in closest.items()}, rel=CLOSE
    )


def test_each_precision_with_prefill_is_gone_over_for_its_misses(monkeypatch: pytest.MonkeyPatch) -> None:
    """One precision of the cache at a time, those without any prefill left out; sizes up to what decode may have."""
    seen = []

    def steps(case: Any, sizes: Any, tpot: Any, choices: Choices) -> Any:
        seen.append((case, sizes, tpot, choices.kv_dtypes))
        return {"of": choices.kv_dtypes}, 3

    def tallied(*given_to: Any) -> None:
        seen.append(given_to)

    monkeypatch.setattr(infeasibility, "_shortest_steps", steps)
    monkeypatch.setattr(infeasibility, "_tally", tallied)
    cases, asked = two_systems(), asked_for(servers=4, targets=Targets(tpot=0.04), domains=(1, 2))
    columns = {"bf16": columns_of((1.0, 1.0, 1.0)), "int8": columns_of((2.0, 1.0, 1.0))}
    nothing = replace(columns["bf16"], plans=[])
    tally = Tally()
    infeasibility.tally_infeasibility(cases, asked, {"none": nothing, **columns}, tally)
    assert seen == [
        (cases.decode, [1, 2, 4, 8], 0.04, ("bf16",)),
        ({"of": ("bf16",)}, 3, columns["bf16"], cases.decode, asked, tally),
        (cases.decode, [1, 2, 4, 8], 0.04, ("int8",)),
        ({"of": ("int8",)}, 3, columns["int8"], cases.decode, asked, tally),
    ]


def test_what_two_pools_miss_is_that_of_loops_over_every_pair() -> None:
    """A TTFT shorter than any: the earliest token of all pairs; more decode than fits: the fewest cards of a pair."""
    one = given(one_system(), decode={"tp": 2, "overlap": "none", "exchange": "gather"})
    decodes, prefills = one.pools.sides[0]
    first = min(waited(p, one.cases.prefill) for p in prefills) + min(d.step for d in decodes)
    late = solve(one.cases.decode, replace(one.asked, targets=Targets(ttft=first * 0.99)))
    told = {row.constraint: row for row in late.rejections}
    assert told["ttft"].closest == pytest.approx(first, rel=CLOSE)
    assert told["ttft"].limit == pytest.approx(first * 0.99, rel=CLOSE)
    assert told["ttft"].count > 0
    few = solve(one.cases.decode, replace(one.asked, servers=1))
    cards = {row.constraint: row for row in few.rejections}["cards"]
    assert (cards.closest, cards.limit) == (2 * 2, 1 * 2)
    assert cards.count == sum(plan.layout.dies <= 4 for plan in decodes)


LOWEST: dict[str, Any] = {
    "two pools": lambda: given(
        one_system(), objective="tpot", rate=55.0, kv=("bf16", "int8"), decode={"overlap": "cores", "tp": 2}
    ),
    "within limits": lambda: given(
        one_system(), 0.8, objective="tpot", rate=30.0, targets=Targets(ttft=0.2),
        decode={"exchange": "gather", "tp": 2},
    ),
    "mixed": lambda: given(
        one_system(), objective="tpot", rate=70.0, serving="mixed", servers=2, decode={"tp": 2, "overlap": "none"}
    ),
    "any": lambda: given(
        one_system(), objective="tpot", rate=70.0, serving="any",
        decode={"exchange": "gather", "tp": 2, "shared_ranks": 0},
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOWEST)
def test_the_lowest_tpot_is_that_of_loops_over_every_deployment(name: str) -> None:
    """Of the deployments that serve the rate the shortest TPOT, whose limit the search then names."""
    one = LOWEST[name]()
    tpots = [whole.tpot for whole in deployments(one.pools, one.asked)]
    solution = solve(one.cases.decode, one.asked)
    assert solution.best is not None
    assert solution.best.tpot == pytest.approx(min(tpots), rel=1e-8)
    assert solution.best.requests_per_s == pytest.approx(one.asked.rate, rel=CLOSE)
    limit = solution.search.targets.tpot
    assert limit is not None
    assert min(tpots) <= limit * (1 + CLOSE)
    none = solve(one.cases.decode, replace(one.asked, rate=1e9))
    assert (none.best, none.status) == (None, Status.INFEASIBLE)
    assert none.search.targets == one.asked.targets


@dataclass
class Plans:
    """Plans of a TPOT alone, of which a search gives back the slowest within its limit."""

    tpots: list[float]
    searches: list[float | None]
    passes: list[list[float]]

    def within(self, limit: float | None) -> Any:
        found = [tpot for tpot in self.tpots if tpot <= (limit or math.inf)]
        return SimpleNamespace(tpot=max(found)) if found else None

    def searched(self, cases: Any, request: SearchRequest, tally: Tally) -> Any:
        self.searches.append(request.targets.tpot)
        assert len(self.searches) < 60, "it does not end"
        tally.evaluated = len(self.searches)
        one = self.within(request.targets.tpot)
        return ([one, SimpleNamespace(tpot=9.0)] if one else []), {}  # the best first

    def best_of_each(self, cases: Any, request: SearchRequest, limits: Any) -> Any:
        self.passes.append([limit.tpot for limit in limits])
        assert len(self.passes) < 20, "it does not end"
        return [self.within(limit.tpot) for limit in limits]


def lowest_of(tpots: list[float], serving: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Plans, Any, Any, Tally]:
    """Return what was searched, and what was found, among plans of a TPOT alone."""
    plans = Plans(tpots, [], [])
    monkeypatch.setattr(lowest_tpot, "searched", plans.searched)
    monkeypatch.setattr(lowest_tpot, "best_of_each", plans.best_of_each)
    monkeypatch.setattr(lowest_tpot, "tpot_of", lambda join, _: join.tpot)
    found, asked, tally = lowest_tpot.lowest_tpot(None, asked_for(serving=serving))  # type: ignore[arg-type]
    return plans, found, asked, tally


@pytest.mark.parametrize("serving", ["disaggregated", "mixed", "any"])
@pytest.mark.parametrize("seed", range(12))
def test_limits_close_in_on_the_fastest_plan(serving: str, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the plans between, a few searches find the fastest; those told are of the last search that found one."""
    chance = np.random.default_rng(seed)
    low = float(chance.uniform(0.02, 0.3))
    near = [low * (1 + 2e-4 * n) for n in range(int(chance.integers(1, 4)))]
    tpots = [*near, *chance.uniform(low * 1.002, 1.0, int(chance.integers(0, 400))).tolist(), 1.0]
    plans, found, asked, tally = lowest_of(tpots, serving, monkeypatch)
    assert found[0][0].tpot == pytest.approx(min(tpots), rel=CLOSE)
    ends = [n for n, limit in enumerate(plans.searches) if plans.within(limit)]
    assert asked.targets.tpot == plans.searches[ends[-1]]
    assert tally.evaluated == ends[-1] + 1
    assert plans.searches[0] is None
    halvings = math.log2(math.log(64) / math.log(1.001)) + 1  # of what may be left, down to a thousandth
    steps = 3 + len(near)
    assert len(plans.searches) <= (steps if serving == "disaggregated" else steps + halvings)
    assert plans.searches[-1] == pytest.approx(min(tpots), rel=2e-9)
    assert plans.searches[-1] < min(tpots)
    if serving != "disaggregated":
        assert not plans.passes
    for limits in plans.passes:
        ratios = [b / a for a, b in zip(limits, limits[1:], strict=False)]
        assert len(limits) == 32
        assert ratios == pytest.approx([ratios[0]] * 31, rel=1e-7)
        assert ratios[0] ** 32 > 1.001
    if serving == "disaggregated":
        first = plans.passes[0]
        assert (first[0], first[-1]) == (pytest.approx(64 ** (1 / 32) / 64, rel=CLOSE), pytest.approx(1.0, rel=CLOSE))
        for before, after in zip(plans.passes, plans.passes[1:], strict=False):
            place = next(n for n, limit in enumerate(before) if limit >= min(tpots))
            assert before[place - 1] < after[0] < after[-1] <= before[place] * (1 + CLOSE)
        assert plans.passes[-1][0] < min(tpots)


@pytest.mark.parametrize("share", [1.0001, 1.01, 1.1, 1.2])
def test_a_plan_a_little_slower_than_a_64th_is_found(share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first limits reach down to a 64th of the first plan's TPOT."""
    for serving in ("disaggregated", "mixed"):
        _, found, _, _ = lowest_of([1.0, share / 64], serving, monkeypatch)
        assert found[0][0].tpot == share / 64


def test_one_plan_alone_is_the_fastest_and_none_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit above and one below the only plan settle it; without any plan nothing more is searched."""
    for serving in ("disaggregated", "mixed"):
        plans, found, _, _ = lowest_of([0.7], serving, monkeypatch)
        assert found[0][0].tpot == 0.7
        assert len(plans.searches) <= 18
        plans, found, asked, tally = lowest_of([], serving, monkeypatch)
        assert (found, asked.targets, plans.searches, plans.passes) == (([], {}), Targets(), [None], [])
        assert tally.evaluated == 1


def ranges(words: list[Any], asked: int, steps: list[float]) -> tuple[float, float, str, str] | None:
    """Return the ends of the run of equal words about a place, and what is otherwise beyond each."""
    if words[asked] is None:
        return None
    runs: list[list[int]] = [[0]]
    for n in range(1, len(words)):
        if words[n] == words[n - 1]:
            runs[-1].append(n)
        else:
            runs.append([n])
    run = next(run for run in runs if asked in run)
    beyond = [words[n] if 0 <= n < len(words) else None for n in (run[0] - 1, run[-1] + 1)]
    texts = [", ".join(v for k, v in (b or {}).items() if v != words[asked][k]) for b in beyond]
    return steps[run[0]], steps[run[-1]], texts[0], texts[1]


def steps_of(accepted: float) -> tuple[list[float], int]:
    """Return 41 steps of acceptance from 0 to 1, the nearest one being what is asked, and its place."""
    steps = [n * 0.025 for n in range(41)]
    place = round(accepted / 0.025)
    return [*steps[:place], accepted, *steps[place + 1 :]], place


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("accepted", [(0.71, 0.9, 0.2), (0.01,), (0.99, 0.3), (1.0,), (0.4, 0.0)])
def test_the_range_of_a_structure_is_the_run_of_steps_about_what_is_asked(
    seed: int, accepted: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Docstring of ``optimal_range``: 41 steps; all positions scale together, at most to 1; the ends are the last."""
    chance = np.random.default_rng(seed)
    steps, place = steps_of(accepted[0])
    kinds: list[Any] = [{"a": "x", "b": "y"}, {"a": "x", "b": "z"}, {"a": "w", "b": "z"}, None]
    switches = np.cumsum(chance.random(41) < 0.1)
    words = [kinds[int(n + seed) % 4] for n in switches]
    cases = two_systems()
    case = replace(cases.decode, acceptance=accepted)

    def best_of_each(given_cases: Cases, request: SearchRequest, limits: Any) -> Any:
        assert (given_cases.prefill, given_cases.decode) == (cases.prefill, case)
        assert [one.tpot for one in limits] == [0.04] * 41
        for step, one in zip(steps, limits, strict=True):
            assert one.acceptance == pytest.approx([min(1, step / accepted[0] * rate) for rate in accepted], rel=CLOSE)
        return [None if word is None else SimpleNamespace(word=word) for word in words]

    monkeypatch.setattr(optimal_range, "best_of_each", best_of_each)
    monkeypatch.setattr(optimal_range, "structural_choices", lambda join: join.word)
    found = optimal_range.optimal_range(case, asked_for(targets=Targets(tpot=0.04)), cases.prefill)
    expected = ranges(words, place, steps)
    if expected is None:
        assert found is None
    else:
        assert found is not None
        assert (found.lowest, found.highest, found.asked) == pytest.approx((*expected[:2], accepted[0]), rel=CLOSE)
        assert (found.below, found.above) == expected[2:]


def test_there_is_no_range_without_drafts_or_a_limit_or_with_mixed_instances() -> None:
    """Docstring of ``optimal_range``: none where nothing is drafted, TPOT is open or instances may be mixed."""
    case, asked = small_case(), asked_for(targets=Targets(tpot=0.04))
    for acceptance in ((), (0.0,), (0.0, 0.4)):
        assert optimal_range.optimal_range(replace(case, acceptance=acceptance), asked) is None
    assert optimal_range.optimal_range(case, replace(asked, targets=Targets())) is None
    for serving in ("any", "mixed"):
        assert optimal_range.optimal_range(case, replace(asked, serving=serving)) is None  # type: ignore[arg-type]
    assert optimal_range.optimal_range(case, replace(asked, targets=Targets(tpot=1e-5))) is None


def test_the_range_of_a_small_space_is_that_of_loops() -> None:
    """At each acceptance a: a step of d drafts gives 1 + a d tokens; the best of all plans at each."""
    one = given(one_system(), 0.35, decode={"shared_ranks": 0, "exchange": "gather"}, prefill={"batch": 3})
    tpot = one.asked.targets.tpot
    assert tpot is not None
    steps, place = steps_of(0.7)
    decodes, prefills = one.pools.sides[0]
    words: list[Any] = []
    for step in steps:
        best, chosen = 0.0, None
        for plan in decodes:
            tokens = 1 + step * plan.layout.draft
            if plan.step / tokens > tpot:
                continue
            rate = plan.in_flight * tokens / plan.step / 53
            for prefill in prefills:
                for n, m in product(range(1, 9), repeat=2):
                    used = -(-n * plan.layout.dies // 4) - (-m * prefill.layout.dies // 4)
                    served = min(n * rate, m * prefill.rate)
                    if used <= 3 and served > best * (1 + CLOSE):
                        best, chosen = served, words_of(Whole(plan, prefill, (m, n), 0.0, 0.0, 0.0, (0, 0)))
        words.append(chosen)
    found = optimal_range.optimal_range(one.cases.decode, one.asked)
    expected = ranges(words, place, steps)
    assert expected is not None
    assert found is not None
    assert (found.lowest, found.highest, found.asked) == pytest.approx((*expected[:2], 0.7), rel=CLOSE)
    assert (found.below, found.above) == expected[2:]
