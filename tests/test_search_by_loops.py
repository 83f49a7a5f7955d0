"""The search against plain loops: an invented pool of whole numbers, every layout and every count one by one.

What one layout serves is given here by a rule of whole numbers instead of the model (``invented``), so that limits can
be met exactly and equals are frequent. What the search makes of it follows from docs/method.md section 6 and is worked
here layout by layout and count by count.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from perfmodel.errors import UsageError
from perfmodel.files import catalog
from perfmodel.ledger.footprint import Footprint
from perfmodel.ledger.records import Family
from perfmodel.prediction import layouts as rules
from perfmodel.prediction.serving import Case, PoolPoint
from perfmodel.solver import both_pools, join, mesh, refit, search, space
from perfmodel.solver.join import Join, Prefills
from perfmodel.solver.mesh import Leader
from perfmodel.solver.mixed import Asked
from perfmodel.solver.request import Cases, SearchRequest, keys, value
from perfmodel.solver.search import Limits
from perfmodel.solver.space import Choices, ExpertLayouts, Structure
from perfmodel.solver.tally import Tally, describe
from perfmodel.specs.attention import GqaSpec
from perfmodel.specs.deployment import LayoutSpec, Targets
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.rates import Rates
from tests.builders import rates_of

GIB = 2.0**30
CLOSE = 1e-11
DRAWS = range(12)


def model_of(heads: int = 4, experts: int = 6, shared: int = 1, attention: Any = None) -> ModelSpec:
    """Return the model on file with a few heads, layers and experts."""
    base = catalog.load_model("deepseek-v3").spec
    routed = base.experts.model_copy(
        update={"n_routed_experts": experts, "n_shared_experts": shared, "n_group": 1, "topk_group": 1}
    )
    attention = attention or base.attention.model_copy(update={"num_attention_heads": heads})
    return base.model_copy(
        update={"num_hidden_layers": 3, "first_k_dense_replace": 1, "attention": attention, "experts": routed}
    )


@cache
def _machine() -> Rates:
    return rates_of()


def machine(of_package: int = 2, of_server: int = 2, cores: int = 12, memory: float = 150.0, **other: Any) -> Rates:
    """Return a machine of small servers whose dies have so many GiB for a plan."""
    return replace(
        _machine(),
        cube_cores=float(cores),
        capacity=(memory + 7) * GIB * 2,
        reported=1.0,
        utilization=0.5,
        activations=0.0,
        graphs=0.0,
        runtime=7 * GIB,
        dies_per_package=of_package,
        packages_per_server=of_server,
        **other,
    )


def case_of(rates: Rates | None = None, model: ModelSpec | None = None, **other: Any) -> Case:
    """Return a case of the small model."""
    given: dict[str, Any] = {"isl": 64, "osl": 48, "acceptance": (0.75, 0.5)}
    return Case(model=model or model_of(), rates=rates or machine(), **given | other)


def invented(layout: Any, family: Family, case: Case) -> PoolPoint:
    """Return what a layout serves by a rule of whole numbers: memory knows neither drafts nor cores."""
    decode = family.phase == "decode"
    kind = 4 * (family.exchange == "gather") + {"none": 3, "link": 2, "cores": 0}[family.overlap]
    kind += 3 * family.own_shared_ranks + 5 * (family.kv_dtype == "int8") + 2 * family.shared_stream
    mixed = (
        3 * layout.dies + 5 * layout.tp + 7 * layout.shared_ranks + 11 * layout.redundant + 13 * layout.draft
        + 17 * layout.attention_cores + 19 * layout.batch + 29 * layout.expert_tp
    )  # fmt: skip
    step = 20 + kind + (mixed + 5 * kind) % 23 + 2 * layout.batch
    memory = 80 + 6 * layout.batch + 3 * layout.tp + 2 * layout.redundant + layout.shared_ranks - layout.dies + kind
    accepted = 1.0
    if decode:
        for position, rate in enumerate(case.acceptance):
            accepted = accepted + rate * (layout.draft > position)
    foot = dict.fromkeys(Footprint.__dataclass_fields__, 0.0)
    sequences = layout.batch * layout.dies / (layout.tp * layout.cp)
    return PoolPoint(
        step_time=step + 0.0,
        in_flight=sequences if decode else sequences * case.isl,
        tokens_per_step=accepted,
        tokens_per_request=case.osl if decode else case.isl,
        footprint=Footprint(**foot | {"weights": memory * GIB}),  # type: ignore[arg-type]
        usable=0.0,
    )


def invented_wait(*, prefill: PoolPoint, layout: Any, case: Case, utilisation: float, decode_step: float) -> Any:
    """Return TTFT: the wait for a full batch and for the one that runs, and the step."""
    prompts = layout.batch * layout.dies / (layout.tp * layout.cp)
    waits = (prompts - 1) / (2 * utilisation * prefill.requests_per_s) + utilisation * prefill.step_time / 2
    return SimpleNamespace(ttft=waits + prefill.step_time + 1000 * decode_step)


class Serial:
    """Threads one after the other."""

    asked: list[int] = []  # noqa: RUF012

    def __init__(self, max_workers: int) -> None:
        self.asked.append(max_workers)

    def __enter__(self) -> "Serial":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    map = staticmethod(map)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Put the invented pool in place of the model, batches to 5 and shared dies by ones."""
    for module in (search, join, refit):
        monkeypatch.setattr(module, "pool_point", invented)
    for module in (search, join):
        monkeypatch.setattr(module, "first_token", invented_wait)
    monkeypatch.setattr(search, "footprint_of", lambda *given: invented(*given).footprint)
    monkeypatch.setattr(search, "ThreadPoolExecutor", Serial)
    monkeypatch.setattr(mesh, "LARGEST_BATCH", 5)
    monkeypatch.setattr(space, "SHARED_STEP", 1)
    return monkeypatch


# --- the declared space, docs/method.md section 6 ------------------------------------------------------------------


def declared(
    phase: Any, case: Case, sizes: list[int], choices: Choices, largest: int = 5, step: int = 1
) -> Iterator[tuple[Family, LayoutSpec]]:
    """Yield every layout of the declared space, each axis and each key in a loop of its own."""
    rates, model, decode = case.rates, case.model, phase == "decode"
    fixed, offered = choices.fixed.get(phase, {}), choices.offered.get(phase, {})
    routed, of_server = model.experts.n_routed_experts, rates.dies_per_package * rates.packages_per_server
    rest = {
        k: v
        for k, v in fixed.items()
        if k in ("cp", "dcp", "fused_experts", "chunk", "o_proj_tp", "head_tp", "o_proj_sharded", "kv_resident")
    }

    def of(key: str, *plain: Any) -> tuple[Any, ...]:
        return (fixed[key],) if key in fixed else offered.get(key, plain)

    for kv, overlap, exchange, reduction, stream, parts in product(
        choices.kv_dtypes,
        of("overlap", *(("none", "link", "cores") if decode else ("none", "link"))),
        of("exchange", "dispatch", "gather"),
        of("reduction", "scatter_gather"),
        of("shared_stream", False),
        of("expert_tp", 1),
    ):
        if decode and overlap == "link" and exchange == "dispatch":
            continue  # dispatch needs vector cores of its own
        splits: Any = range(4, int(rates.cube_cores) - 4 + 1, 2) if overlap == "cores" else (0,)
        if overlap == "cores" and "attention_cores" in fixed:
            splits = (fixed["attention_cores"],)
        batches: Any = [b for b in (*range(1, 17), 24, 32, 48, 64) if b <= largest]
        if decode:
            batches = range(1, largest + 1)
        drafts: Any = range(len(case.acceptance) + 1) if decode else [min(1, len(case.acceptance))]
        batches, drafts = ([fixed[k]] if k in fixed else v for k, v in (("batch", batches), ("draft", drafts)))
        tps = [fixed["tp"]] if "tp" in fixed else (1, 2, 4, 8, 16)
        for dies, tp in product(sizes, tps):
            cp, dcp = rest.get("cp", 1), rest.get("dcp", 1)
            if dies % (tp * cp) or dies % parts:
                continue
            heads = model.attention.num_attention_heads
            if "tp" not in fixed and (heads % tp or of_server % (tp * cp) or tp % dcp):
                continue
            if reduction in ("all_to_all", "sp_tp_sp") and tp == 1 and not {"reduction", "tp"} & set(fixed):
                continue  # the same as without
            dedicated: Any = [n for n in range(step, dies) if n % step == 0 and 6 * n <= dies]
            if not decode or not model.experts.n_shared_experts:
                shares = [0]
            elif fixed.get("shared_ranks") is None:
                shares = [0, *dedicated]
            elif isinstance(fixed["shared_ranks"], str):  # a quarter, one at the least
                shares = [n for n in [max(1, round(dies / 4))] if n < dies]
            else:
                shares = [n for n in [fixed["shared_ranks"]] if n < dies]
            for shared in shares:
                ranks = (dies - shared) // parts
                fewest = next(n for n in range(1, routed + 1) if n * ranks >= routed)
                both = {"fewest slots": fewest * ranks - routed, "one more slot": (fewest + 1) * ranks - routed}
                more = fixed.get("redundant")
                for redundant in both.values() if more is None else [both.get(more, more)]:
                    given = {
                        "dies": dies, "tp": tp, "shared_ranks": shared, "redundant": redundant, "overlap": overlap,
                        "exchange": exchange, "reduction": reduction, "shared_stream": stream, "expert_tp": parts,
                    } | rest  # fmt: skip
                    for core, draft in product(splits, drafts):
                        first = LayoutSpec(batch=1, draft=draft, attention_cores=core, **given)
                        if rules.layout_faults(first, phase, model, rates):
                            continue
                        family = Family.of(
                            first,
                            phase,
                            precision=choices.precision,
                            kv_dtype=kv,
                            expert_weights=choices.expert_weights,
                        )
                        for batch in batches:
                            yield family, first.model_copy(update={"batch": batch})


def spelled(layout: LayoutSpec) -> tuple[Any, ...]:
    """Return a layout as something that can be counted."""
    return tuple(layout.model_dump().values())


def _decode(**keys: Any) -> Choices:
    return Choices(fixed={"decode": keys})


def _prefill(**keys: Any) -> Choices:
    return Choices(fixed={"prefill": keys})


GQA = GqaSpec(kind="gqa", num_attention_heads=8, num_key_value_heads=2, head_dim=64)
SPACES: list[tuple[Any, Choices, dict[str, Any]]] = [
    ("decode", Choices(kv_dtypes=("bf16", "int8"), precision="bf16", expert_weights="int4"), {}),
    ("prefill", Choices(), {}),
    ("prefill", Choices(), {"acceptance": ()}),
    ("decode", Choices(), {"model": model_of(shared=0)}),
    ("decode", Choices(), {"model": model_of(attention=GQA)}),
    ("decode", _decode(shared_ranks=0), {}),
    ("decode", _decode(shared_ranks="1/4 of dies"), {}),
    ("prefill", Choices(fixed={"prefill": {"cp": 4}}, offered={"prefill": {"expert_tp": (1, 2)}}), {}),
    ("decode", _decode(tp=8), {"model": model_of(attention=GQA), "sizes": [4, 8, 12, 16, 20, 24]}),
    ("prefill", _prefill(tp=4, cp=2), {"sizes": [4, 8, 12, 16, 20, 24]}),
    ("decode", _decode(shared_ranks=1, batch=3), {}),
    ("decode", _decode(shared_ranks=4, draft=1, redundant="fewest slots"), {}),
    ("decode", _decode(redundant="one more slot", tp=4), {}),
    ("decode", _decode(redundant=8, tp=1), {"sizes": [2, 4, 8, 12]}),
    ("decode", _decode(overlap="cores", attention_cores=5), {}),
    ("decode", _decode(attention_cores=6, exchange="gather"), {}),
    ("decode", _decode(dcp=2), {}),
    ("decode", _decode(fused_experts=True), {}),
    ("decode", _decode(o_proj_tp=2), {}),
    ("decode", _decode(o_proj_tp=4, head_tp=2), {"sizes": [1, 2, 4, 8, 12]}),
    ("prefill", _prefill(cp=2), {}),
    ("prefill", _prefill(cp=4), {}),
    ("prefill", _prefill(batch=9, chunk=16, draft=0), {}),
    ("prefill", Choices(offered={"prefill": {"expert_tp": (1, 2)}}), {}),
    ("decode", Choices(offered={"decode": {"expert_tp": (1, 2, 4)}}), {}),
    ("decode", Choices(offered={"decode": {"reduction": ("scatter_gather", "all_to_all")}}), {}),
    ("decode", _decode(reduction="all_to_all"), {}),
    ("decode", _decode(reduction="all_to_all", tp=2, o_proj_sharded=True), {}),
    ("decode", Choices(offered={"decode": {"shared_stream": (False, True)}}), {}),
    ("decode", Choices(fixed={"prefill": {"tp": 2}}, offered={"prefill": {"expert_tp": (1, 2)}}), {}),
]


@pytest.mark.parametrize(("phase", "choices", "other"), SPACES)
def test_the_space_is_every_declared_layout_once(world: Any, phase: Any, choices: Choices, other: Any) -> None:
    """docs/method.md section 6: each axis in a loop of its own, and what the rules of layouts refuse left out."""
    other = dict(other)
    all_sizes = other.pop("sizes", [1, 2, 4, 8, 12])
    case = case_of(**other)
    for sizes, chunk in ((all_sizes, 600_000), ([4, 2, 12, 8], 40)):
        world.setattr(mesh, "CHUNK", chunk)
        found = Counter(
            (one.family, spelled(one.layout_at(index)))
            for one in mesh.meshes(case, phase, sizes, choices)
            for index in range(math.prod(one.shape))
        )
        wanted = Counter((family, spelled(layout)) for family, layout in declared(phase, case, sizes, choices))
        assert wanted
        assert found == wanted


def test_shared_experts_are_searched_on_eights_of_dies_up_to_a_sixth() -> None:
    """docs/method.md section 6; a share of the dies is that share, and dies that all are shared leave none."""
    family = Family.of(LayoutSpec(dies=8, batch=1, shared_ranks=1), "decode")
    one = Structure(family=family, keys={})
    sizes = [47, 48, 95, 96, 97, 144]

    def found(fixed: Mapping[str, Any], structure: Structure = one) -> dict[int, list[float]]:
        made = space.expert_layouts(sizes, model_of(experts=6), structure, fixed)
        return {int(dies): each.shared_ranks.tolist() for each in made for dies in each.dies.tolist()}

    assert found({}) == {48: [8], 95: [8], 96: [8, 16], 97: [8, 16], 144: [8, 16, 24]}
    assert found({"shared_ranks": 47}) == {dies: [47] for dies in sizes[1:]}
    assert found({"shared_ranks": "1/3 of dies"}) == {47: [16], 48: [16], 95: [32], 96: [32], 97: [32], 144: [48]}
    alone = Structure(family=Family.of(LayoutSpec(dies=8, batch=1), "decode"), keys={})
    assert found({"shared_ranks": 3}, alone) == {dies: [0] for dies in sizes}


def test_one_slot_a_group_where_dispatch_meets_split_experts() -> None:
    """CANN, npu_moe_distribute_dispatch: one expert slot a group of dies; gather takes any."""
    for exchange, parts, dies in product(("dispatch", "gather"), (1, 2), (4, 8, 10, 11, 12, 14)):
        family = Family.of(LayoutSpec(dies=dies, batch=1, exchange=exchange, expert_tp=parts), "decode")
        structure = Structure(family=family, keys={"exchange": exchange, "expert_tp": parts})
        made = space.expert_layouts([dies], model_of(experts=6), structure, {})
        ranks = dies // parts
        both = [n * ranks for n in range(1, 9) if n * ranks >= 6][:2]  # slots in all
        wanted = [slots - 6 for slots in both if parts == 1 or exchange == "gather" or slots <= ranks]
        if dies % parts:
            wanted = []
        assert [r for one in made for r in one.redundant.ravel().tolist()] == wanted


def test_sizes_that_allow_the_same_shared_dies_are_one_product() -> None:
    """``ExpertLayouts``: sizes that allow the same shared ranks, those, slots of a rank."""
    family = Family.of(LayoutSpec(dies=8, batch=1, shared_ranks=1), "decode")
    made = space.expert_layouts([48, 96, 50, 100], model_of(experts=60), Structure(family=family, keys={}), {})
    assert [one.dies.tolist() for one in made] == [[48.0, 50.0], [96.0, 100.0]]
    assert [one.shared_ranks.tolist() for one in made] == [[8.0], [8.0, 16.0]]
    assert made[0].redundant.tolist() == [[[20.0, 60.0]], [[24.0, 66.0]]]  # 2 and 3 x 40, 42 dies, less 60
    assert made[1].redundant.tolist() == [[[28.0, 116.0], [20.0, 100.0]], [[32.0, 124.0], [24.0, 108.0]]]


@pytest.mark.parametrize("cp", [1, 2, 4])
@pytest.mark.parametrize("dcp", [1, 2])
@pytest.mark.parametrize(("heads", "of_server"), [(128, 64), (12, 64), (128, 12), (64, 16), (128, 8)])
def test_tensor_parallel_degrees_are_powers_of_two_to_16(cp: int, dcp: int, heads: int, of_server: int) -> None:
    """docs/method.md section 6: they divide heads and, with cp, a server; a split module or swapped heads bind them."""
    rates, model = machine(1, of_server), model_of(heads)

    def degrees(layout: LayoutSpec, fixed: Mapping[str, Any] = {}) -> list[float]:  # noqa: B006
        structure = Structure(family=Family.of(layout, "decode"), keys={"cp": cp, "dcp": dcp})
        return space.tensor_parallel_degrees(model, rates, structure, fixed).tolist()

    wanted = [t for t in (1, 2, 4, 8, 16) if heads % t == 0 and of_server % (t * cp) == 0 and t % dcp == 0]
    plain = LayoutSpec(dies=64, batch=1)
    assert degrees(plain) == wanted
    assert degrees(plain, {"tp": 32}) == [32]
    assert degrees(plain.model_copy(update={"o_proj_tp": 2})) == [t for t in wanted if t == 1]
    swapped = plain.model_copy(update={"reduction": "all_to_all"})
    assert degrees(swapped) == [t for t in wanted if t > 1]
    assert degrees(swapped, {"reduction": "all_to_all"}) == wanted


def test_largest_power_of_two_is_that_of_the_smaller_of_heads_and_server() -> None:
    """Degrees without cp are each twice the one before, and stop where heads or server do."""
    plain = Structure(family=Family.of(LayoutSpec(dies=4, batch=1), "decode"), keys={})
    for heads, of_server in product((1, 2, 3, 4, 6, 8, 16, 32, 40), (1, 2, 3, 4, 6, 8, 24, 32)):
        found = space.tensor_parallel_degrees(model_of(heads), machine(1, of_server), plain, {}).tolist()
        assert found == [t for t in (1, 2, 4, 8, 16) if math.gcd(heads, of_server) % t == 0]


def test_what_is_fixed_is_searched_alone_then_what_is_offered_then_the_plain() -> None:
    """``Choices.values``: the fixed value, what the stack offers, or the plain ones, of the phase asked."""
    choices = Choices(fixed={"decode": {"expert_tp": 4}}, offered={"decode": {"expert_tp": (1, 2), "reduction": (7,)}})
    assert choices.values("decode", "expert_tp", (1,)) == (4,)
    assert choices.values("decode", "reduction", (1,)) == (7,)
    assert choices.values("decode", "overlap", (1,)) == (1,)
    assert choices.values("prefill", "expert_tp", (1, 3)) == (1, 3)


def test_a_key_that_no_structure_allows_is_refused_and_one_that_some_allow_is_not() -> None:
    """``structures`` raises where what is fixed allows none, with each reason once."""
    case = case_of()
    with pytest.raises(UsageError) as refused:
        space.structures(case.model, "decode", _decode(cp=2), case.rates)
    assert len(str(refused.value).split("\n")) == 1
    allowed = space.structures(case.model, "decode", _decode(fused_experts=True), case.rates)
    assert {(one.family.overlap, one.family.exchange) for one in allowed} == {("none", "dispatch")}
    # 2 x 2 dies of a server hold dcp 4 on tp 4, but no layout of 8 parts of an expert
    assert space.structures(case.model, "decode", _decode(dcp=4), case.rates)
    assert space.structures(case.model, "prefill", _prefill(cp=3), case.rates)
    with pytest.raises(UsageError):
        space.structures(case.model, "decode", _decode(expert_tp=8), case.rates)
    # nothing is refused and nothing is left: dispatch on linked layers has no cores
    assert space.structures(case.model, "decode", _decode(overlap="link", exchange="dispatch"), case.rates) == []


# --- chunks ------------------------------------------------------------------------------------------------------


def layouts_of(sizes: int, options: int, slots: int) -> ExpertLayouts:
    """Return a product of expert layouts, each replica count another."""
    return ExpertLayouts(
        dies=np.arange(1.0, sizes + 1) * 100,
        shared_ranks=np.arange(float(options)),
        redundant=np.arange(float(sizes * options * slots)).reshape(sizes, options, slots),
    )


@pytest.mark.parametrize(
    ("most", "shapes"),
    [
        (30, [(5, 3, 2)]),
        (29, [(4, 3, 2), (1, 3, 2)]),
        (12, [(2, 3, 2), (2, 3, 2), (1, 3, 2)]),
        (6, [(1, 3, 2)] * 5),
        (5, [(1, 2, 2), (1, 1, 2)] * 5),
        (3, [(1, 1, 2)] * 15),
        (1, [(1, 1, 2)] * 15),
    ],
)
def test_a_product_is_cut_into_as_large_parts_as_are_allowed(most: int, shapes: list[tuple[int, ...]]) -> None:
    """By hand for 5 sizes x 3 numbers of shared ranks x 2 slots: by size, by shared ranks only where one has more."""
    whole = layouts_of(5, 3, 2)
    parts = list(mesh._parts(whole, most))
    assert [one.redundant.shape for one in parts] == shapes
    seen = []
    for one in parts:
        for (n, dies), (s, shared), k in product(enumerate(one.dies), enumerate(one.shared_ranks), range(2)):
            assert one.redundant[n, s, k] == 6 * (dies / 100 - 1) + 2 * shared + k
            seen.append(one.redundant[n, s, k])
    assert sorted(seen) == list(range(30))


def test_a_chunk_has_as_many_plans_as_are_worked_at_once(world: Any) -> None:
    """Plans of one expert layout: tp x drafts x splits x batches, here 3 x 3 x 1 x 5; four layouts a size."""
    case, one = case_of(model=model_of(shared=0)), _decode(overlap="none", exchange="dispatch")
    for chunk, rows in ((45 * 4, [2, 2, 1]), (45 * 4 - 1, [1, 1, 1, 1, 1]), (45 * 6 - 1, [2, 2, 1]), (45 * 10, [5])):
        world.setattr(mesh, "CHUNK", chunk)
        made = list(mesh.meshes(case, "decode", [4, 8, 12, 16, 20], one))
        assert [len(each.experts.dies) for each in made] == rows
        assert {each.shape[1:] for each in made} == {(1, 2, 3, 3, 1, 5)}
    world.setattr(mesh, "CHUNK", 1)
    assert len(list(mesh.meshes(case, "decode", [4, 8], one))) == 2
    one_slot = _decode(overlap="none", exchange="dispatch", redundant=6)
    assert len(list(mesh.meshes(case, "decode", [4, 8, 12], one_slot))) == 3


def test_prefill_batches_are_all_to_16_then_two_and_three_times_powers_of_two_to_64(world: Any) -> None:
    """The longer the axis, the wider its steps; none is past the batch that memory bounds."""
    every = {
        *range(1, 17),
        *(n for n in range(17, 65) if n & (n - 1) == 0 or (n % 3 == 0 and n // 3 & (n // 3 - 1) == 0)),
    }
    for largest in (1024, 64, 63, 48, 47, 24, 23, 17, 16, 2, 1):
        world.setattr(mesh, "LARGEST_BATCH", largest)
        for one in mesh.meshes(case_of(), "prefill", [4], Choices()):
            assert one.batch.tolist() == sorted(n for n in every if n <= largest)


def test_a_split_that_one_server_times_the_form_allows_is_searched() -> None:
    """``_structure_faults``: tried on a server of dies for each of tp and cp; parts must divide those ranks."""
    rates, model = machine(), model_of()
    for phase, parts, cp, allowed in (
        ("decode", 2, 1, True),
        ("decode", 3, 1, False),
        ("decode", 8, 1, False),
        ("prefill", 8, 2, True),
        ("prefill", 4, 3, True),
        ("prefill", 3, 3, True),
        ("prefill", 3, 4, False),
    ):
        choices = Choices(fixed={phase: {"o_proj_tp": parts, "cp": cp}})  # type: ignore[dict-item]
        if allowed:
            assert space.structures(model, phase, choices, rates)  # type: ignore[arg-type]
        else:
            with pytest.raises(UsageError):
                space.structures(model, phase, choices, rates)  # type: ignore[arg-type]


def test_parts_of_a_server_stand_alone_and_whole_servers_together() -> None:
    """``_alike``: sizes that the same degrees of tp divide."""
    assert mesh._alike([1, 2, 4, 8, 12], 4) == [[1], [2], [4, 8, 12]]
    assert mesh._alike([1, 2], 4) == [[1], [2]]
    assert mesh._alike([6, 3, 9], 3) == [[6, 3, 9]]


def test_the_open_mesh_and_its_layouts_are_the_same_numbers(world: Any) -> None:
    """Each axis of ``Mesh.layout`` at a place of the grid is that of ``Mesh.layout_at``."""
    names = ("dies", "shared_ranks", "redundant", "tp", "draft", "attention_cores", "batch", "expert_tp", "cp", "dcp")
    choices = Choices(offered={"decode": {"expert_tp": (1, 2)}}, fixed={"decode": {"dcp": 2}, "prefill": {"cp": 2}})
    for phase in ("decode", "prefill"):
        for one in mesh.meshes(case_of(), phase, [4, 12], choices):  # type: ignore[arg-type]
            grid = one.layout()
            axes = {name: np.broadcast_to(getattr(grid, name), one.shape).ravel() for name in names}
            for index in range(0, math.prod(one.shape), 7):
                layout = one.layout_at(index)
                assert [axes[name][index] for name in names] == [getattr(layout, name) for name in names]


def test_batches_end_where_the_cache_alone_fills_a_die() -> None:
    """usable / (bytes of a token x layers x resident / (cp dcp) x tokens held), at least 1, at most 1024."""
    wide = GqaSpec(kind="gqa", num_attention_heads=64, num_key_value_heads=32, head_dim=64)
    for attention, phase, isl, osl, cp, dcp, resident, memory in (
        (None, "decode", 5000, 3001, 1, 1, 1.0, 3.1),
        (None, "prefill", 5000, 3001, 1, 1, 1.0, 3.1),
        (None, "decode", 70_001, 50_001, 1, 4, 0.3, 2.7),
        (None, "prefill", 70_001, 51, 8, 1, 1.0, 2.7),
        (wide, "decode", 20_011, 7, 1, 1, 1.0, 5.9),
        (wide, "prefill", 20_011, 7, 2, 1, 1.0, 5.9),
        (None, "decode", 17, 19, 1, 1, 1.0, 5.0),
        (None, "decode", 10**9, 19, 1, 1, 1.0, 5.0),
        (None, "prefill", 17, 19, 1, 1, 1.0, 100.5 * 17 * 3456 / GIB),
        (None, "decode", 17, 19, 1, 1, 1.0, 100.5 * 26.5 * 3456 / GIB),
    ):
        case = case_of(machine(memory=memory), model_of(attention=attention), isl=isl, osl=osl)
        token = 512 * 2 + 64 * 2 if attention is None else 2 * 32 * 64 * 2 / 16  # latent, or keys and values over tp
        held = isl + osl / 2 if phase == "decode" else isl
        bound = memory * GIB / (token * 3 * resident / (cp * dcp) * held)
        layout = LayoutSpec(dies=8, batch=1, cp=cp, dcp=dcp, tp=dcp, kv_resident=resident)
        given = {"cp": cp, "dcp": dcp, "kv_resident": resident}
        for keys_of in (given, {k: v for k, v in given.items() if v != 1}):
            structure = Structure(family=Family.of(layout, phase), keys=keys_of)  # type: ignore[arg-type]
            assert mesh.largest_batch(case, structure) == min(1024, max(1, math.floor(bound)))


# --- leaders of decode --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Plan:
    """One layout as plain numbers see it."""

    family: Family
    layout: LayoutSpec
    step: float
    tokens: float  # of a step
    memory: float  # GiB
    sequences: float
    wait: float  # TTFT up to the first decode step
    rate: float

    @property
    def tpot(self) -> float:
        return self.step / self.tokens

    @property
    def kind(self) -> tuple[Any, ...]:
        return self.layout.dies, self.layout.tp, self.layout.draft, self.family

    @property
    def takes(self) -> bool:
        """Whether the fused kernel takes its tokens of a rank."""
        tokens = self.layout.batch * (1 + self.layout.draft) / self.layout.tp
        return tokens <= rules.LARGEST_FUSED or not self.layout.fused_experts


def plans_of(phase: Any, case: Case, sizes: list[int], choices: Choices, utilisation: float = 1.0) -> list[Plan]:
    """Return every layout of the declared space, evaluated with plain numbers."""
    found = []
    for family, layout in declared(phase, case, sizes, choices, mesh.LARGEST_BATCH, space.SHARED_STEP):
        point: Any = invented(layout, family, case)
        tokens = 1 + sum(case.acceptance[: layout.draft]) if phase == "decode" else 1.0
        sequences = layout.batch * (layout.dies // (layout.tp * layout.cp))
        rate = sequences * tokens / (point.step_time * case.osl) if phase == "decode" else sequences / point.step_time
        wait = 0.0
        if phase == "prefill":
            wait = (sequences - 1) / (2 * utilisation * rate) + point.step_time * (1 + utilisation / 2)
        memory = point.footprint.weights / GIB
        found.append(Plan(family, layout, point.step_time, tokens, memory, sequences, wait, rate))
    return found


def fastest(plans: list[Plan], memory: float, tpot: float, step: float) -> dict[tuple[Any, ...], float]:
    """Return the highest rate of each size, tp, draft and family within limits."""
    best: dict[tuple[Any, ...], float] = {}
    for one in plans:
        if one.memory <= memory and one.step <= tpot * one.tokens * (1 + 1e-12) and one.step <= step and one.takes:
            best[one.kind] = max(best.get(one.kind, 0.0), one.rate)
    return best


def digits(number: float) -> float:
    """Return a number to eleven digits, so that ways of rounding agree."""
    return float(f"{number:.11g}")


def of_leader(one: Leader, case: Case) -> tuple[Any, ...]:
    """Return the kind and rate of a leader, whose figures must be those of its layout."""
    layout, family = one.layout, one.mesh.family
    point: Any = invented(layout, family, case)
    assert one.step_time == point.step_time
    assert one.servers == layout.dies / (case.rates.dies_per_package * case.rates.packages_per_server)
    return (layout.dies, layout.tp, layout.draft, family), digits(one.requests_per_s)


def as_set(best: Mapping[tuple[Any, ...], float]) -> set[tuple[Any, ...]]:
    """Return kinds with their rates."""
    return {(kind, digits(rate)) for kind, rate in best.items()}


SIZES = [2, 4, 12]
LOOPED = [
    Choices(kv_dtypes=("bf16",)),
    Choices(offered={"decode": {"expert_tp": (1, 2)}}, kv_dtypes=("int8",)),
    Choices(fixed={"decode": {"fused_experts": True}}),
]


@pytest.mark.parametrize("choices", LOOPED)
@pytest.mark.parametrize("chunk", [600_000, 300])
def test_decode_leaders_are_the_fastest_of_every_kind_within_limits(world: Any, choices: Choices, chunk: int) -> None:
    """The highest rate of each size, tp, draft and family within memory, TPOT and step; limits met exactly count."""
    world.setattr(mesh, "CHUNK", chunk)
    world.setattr(rules, "LARGEST_FUSED", 6)
    case = case_of()
    plans = plans_of("decode", case, SIZES, choices)
    by_memory, by_tpot = sorted({p.memory for p in plans}), sorted({p.tpot for p in plans})
    by_step = sorted({p.step for p in plans})
    for at, (part, of_tpot) in enumerate(((0.1, 0.4), (0.5, 0.1), (0.7, 0.6), (0.9, None), (0.3, 0.25))):
        memory = by_memory[int(part * len(by_memory))]
        tpot = None if of_tpot is None else by_tpot[int(of_tpot * len(by_tpot))]
        within = replace(case, rates=machine(memory=memory))
        steps = [math.inf] if at == 0 else [by_step[3], by_step[len(by_step) // 3], by_step[len(by_step) // 2]]
        tally = Tally()
        found = search.best_decode(within, SIZES, tpot, steps, choices, tally)
        limits = [fastest(plans, memory, tpot or math.inf, step) for step in steps]
        assert {of_leader(one, within) for one in found} == set().union(*map(as_set, limits))
        assert len({(one.mesh, one.index) for one in found}) == len(found)
        assert tally.evaluated == len(plans)
        assert tally.refused["memory"] == sum(p.memory > memory for p in plans)
        assert tally.refused.get("tpot", 0) == sum(p.step > (tpot or math.inf) * p.tokens for p in plans)
        assert ("tpot" in tally.refused) == (tpot is not None)
        assert all(type(count) is int for count in tally.refused.values())
        if found:
            assert tally.closest == {}


def test_as_many_threads_as_cores(world: Any) -> None:
    """``_leaders`` takes a thread for each core, and one where they are not known."""
    Serial.asked.clear()
    for known in (3, None):
        world.setattr(search.os, "cpu_count", lambda known=known: known)
        search.best_decode(case_of(), [4], None, [math.inf], _decode(batch=1, tp=1), Tally())
    assert Serial.asked == [3, 1]


def test_limits_at_another_acceptance_are_worked_as_at_that_acceptance(world: Any) -> None:
    """Tokens of a step follow the acceptance of the limit: TPOT = step / tokens, rate = sequences x tokens / step."""
    case, choices = case_of(machine(memory=130.0)), Choices()
    plans = plans_of("decode", case, SIZES, choices)
    by_step = sorted({p.step for p in plans})
    steps = [by_step[4], by_step[len(by_step) // 2], by_step[-3], 10_000.0]
    asked = [
        Limits(tpot=21.0),
        Limits(tpot=15.5, acceptance=(0.25, 0.125)),
        Limits(tpot=15.5, acceptance=(0.875, 0.75)),
        Limits(tpot=30.0),
        Limits(acceptance=(0.5, 0.5)),
        Limits(),
    ]
    found = search.leaders_of(case, SIZES, asked, steps, choices)
    assert len(found) == len(asked)
    for limit, leaders in zip(asked, found, strict=True):
        chances = limit.acceptance or case.acceptance
        tokens = [1.0, 1 + chances[0], 1 + chances[0] + chances[1]]
        seen = [
            replace(p, tokens=tokens[p.layout.draft], rate=p.rate * tokens[p.layout.draft] / p.tokens) for p in plans
        ]
        wanted = [fastest(seen, 130.0, limit.tpot, step) for step in steps]
        assert {of_leader(one, case) for one in leaders} == set().union(*map(as_set, wanted))
        assert len({(one.mesh, one.index) for one in leaders}) == len(leaders)


def test_limits_are_worked_again_only_where_they_differ(world: Any) -> None:
    """Rates under the same TPOT and acceptance are one grid; each other limit has its own, in any order."""
    case = case_of()
    (one,) = mesh.meshes(case, "decode", [4], _decode(overlap="none", exchange="gather", shared_ranks=0))
    a, b, c = Limits(tpot=20.0), Limits(tpot=20.0, acceptance=(0.5, 0.25)), Limits(tpot=30.0)
    together = search._best_of_chunk(one, case, 150 * GIB, [a, a, b, a, c, b])
    for at, each in enumerate((a, a, b, a, c, b)):
        assert together.rate[at].tolist() == search._best_of_chunk(one, case, 150 * GIB, [each]).rate[0].tolist()


def test_every_step_has_its_shortest_core_split(world: Any) -> None:
    """The chunk's best of each size, tp and draft, with its split, by loops over all axes."""
    case = case_of()
    for one in mesh.meshes(case, "decode", [4, 12], _decode(overlap="cores", exchange="gather")):
        best = search._best_of_chunk(one, case, 110 * GIB, [Limits(tpot=25.0, step=40.0), Limits(tpot=25.0)])
        sizes, shared, slots, tps, drafts, cores, batches = one.shape
        for n, t, d in product(range(sizes), range(tps), range(drafts)):
            top: list[tuple[float, float]] = [(-1.0, 0.0)] * 2
            for s, k, c, b in product(range(shared), range(slots), range(cores), range(batches)):
                layout = one.layout_at(int(np.ravel_multi_index((n, s, k, t, d, c, b), one.shape)))
                point: Any = invented(layout, one.family, case)
                if point.memory > 110 * GIB or point.tpot > 25.0:
                    continue
                for at, most in enumerate((40.0, math.inf)):
                    if point.step_time <= most and point.requests_per_s > top[at][0]:
                        top[at] = point.requests_per_s, point.step_time
            for at in (0, 1):
                assert best.rate[at, n, t, d] == pytest.approx(top[at][0], rel=CLOSE)
                if top[at][0] > 0:
                    assert best.step_time[at, n, t, d] == top[at][1]
                    at_place: Any = invented(one.layout_at(int(best.index[at, n, t, d])), one.family, case)
                    assert at_place.step_time == top[at][1]


def test_batches_at_which_nothing_fits_are_cut_in_steps_of_eight(world: Any) -> None:
    """docs/method.md section 6: memory never falls with the batch: what fits nowhere is left out."""
    world.setattr(mesh, "LARGEST_BATCH", 40)
    case = case_of()
    for most, cut in ((200, 40), (98, 8), (2, 8), (0, 8)):
        for one in mesh.meshes(case, "decode", [4, 8], _decode(shared_ranks=0)):
            memory = [
                min(
                    float(invented(one.layout_at(i), one.family, case).memory) / GIB
                    for i in range(b, math.prod(one.shape), 40)
                )
                for b in range(40)
            ]
            kept = search.cut(one, case, most * GIB)
            assert all(memory[b] > most for b in range(len(kept.batch), 40))
            assert kept.batch.tolist() == list(range(1, len(kept.batch) + 1))
            looked = [b for b in (0, 8, 16, 24, 32) if memory[b] <= most]  # every eighth batch from the first
            assert len(kept.batch) == min(40, (looked[-1] if looked else 0) + 8)
            if most in (200, 2, 0):
                assert len(kept.batch) == (cut if most < 10 else len(kept.batch))
            exact = memory[16]  # the limit itself fits
            assert len(search.cut(one, case, exact * GIB).batch) == 24
            for few in (8, 7, 1):
                short = replace(one, batch=one.batch[:few])
                assert search.cut(short, case, 0.0) is short
            assert len(search.cut(replace(one, batch=one.batch[:9]), case, 0.0).batch) == 8


def test_a_long_axis_of_batches_is_counted_whole(world: Any) -> None:
    """Batches that are cut are counted as refused by memory, and cost no leader."""
    world.setattr(mesh, "LARGEST_BATCH", 21)
    case, choices = case_of(machine(memory=101.0)), _decode(shared_ranks=0)
    plans = plans_of("decode", case, [4, 8], choices)
    tally = Tally()
    found = search.best_decode(case, [4, 8], None, [math.inf], choices, tally)
    assert {of_leader(one, case) for one in found} == as_set(fastest(plans, 101.0, math.inf, math.inf))
    assert tally.evaluated == len(plans)
    assert tally.refused == {"memory": sum(p.memory > 101.0 for p in plans)}


@pytest.mark.parametrize("seed", DRAWS)
def test_the_highest_of_each_size_tp_and_draft_is_the_first_of_equals(seed: int) -> None:
    """``highest`` by loops: over shared ranks, slots and batch in that order, a later one only where it is higher."""
    rates = np.random.default_rng(seed).integers(-1, 5, (2, 3, 2, 3, 2, 4)).astype(float)
    peaks, places = search.highest(rates)
    for n, t, d in np.ndindex(2, 3, 2):
        best = (-math.inf, (0, 0, 0))
        for s, k in product(range(3), range(2)):
            for b in range(4):
                if rates[n, s, k, t, d, b] > best[0]:
                    best = rates[n, s, k, t, d, b], (s, k, b)
        assert peaks[n, t, d] == best[0]
        at = tuple(int(np.broadcast_to(axis, (2, 3, 2))[n, t, d]) for axis in places)
        assert at == (n, best[1][0], best[1][1], t, d, best[1][2])


def test_nothing_feasible_names_the_nearest_miss_of_each_limit(world: Any) -> None:
    """The least memory over the limit of plans within TPOT, or of all; the least TPOT over it of plans that fit."""
    choices = _decode(shared_ranks=0)
    case = case_of()
    plans = plans_of("decode", case, SIZES, choices)
    least, quickest = min(p.memory for p in plans), min(p.tpot for p in plans)
    seen = set()
    for memory, tpot in (
        (least - 1, None),
        (least - 1, quickest),
        (least - 1, quickest / 2),
        (least, quickest / 2),
        (least + 9, quickest / 2),
        (least, quickest),
        (least + 2, quickest * 1.1),
        (least + 4, quickest * 1.2),
    ):
        within, tally = case_of(machine(memory=memory)), Tally()
        found = search.best_decode(within, SIZES, tpot, [math.inf], choices, tally)
        top = math.inf if tpot is None else tpot
        if any(p.memory <= memory and p.tpot <= top for p in plans):
            assert found
            assert tally.closest == {}
            continue
        assert found == []
        large = [p for p in plans if p.memory > memory and p.tpot <= top]
        if least > memory:
            large = plans
        slow = [p for p in plans if p.memory <= memory and p.tpot > top]
        wanted = {}
        if large:
            wanted["memory"] = min(p.memory for p in large), memory
        if slow:
            wanted["tpot"] = min(p.tpot for p in slow), top
        scale = {"memory": GIB, "tpot": 1.0}
        assert set(tally.closest) == set(wanted)
        for name, (near, limit) in wanted.items():
            seen.add((name, least > memory))
            told, bound, words = tally.closest[name]
            assert (told, bound) == pytest.approx((near * scale[name], limit * scale[name]), rel=CLOSE)
            nearest = [p for p in plans if (p.memory if name == "memory" else p.tpot) == near]
            assert words in {describe(p.layout, p.family) for p in nearest}
    assert seen == {("memory", True), ("memory", False), ("tpot", False)}


def test_what_the_fused_kernel_alone_refuses_is_near_no_limit(world: Any) -> None:
    """A plan at the memory limit and within TPOT misses neither."""
    world.setattr(rules, "LARGEST_FUSED", 0)
    world.setattr(space, "structure_faults", lambda *_: [])
    choices = _decode(fused_experts=True, shared_ranks=0, overlap="none", exchange="dispatch")
    case = case_of()
    memory = {
        float(invented(one.layout_at(i), one.family, case).memory) / GIB
        for one in mesh.meshes(case, "decode", SIZES, choices)
        for i in range(math.prod(one.shape))
    }
    for tpot in (None, 1e6):
        tally = Tally()
        assert search.best_decode(case_of(machine(memory=max(memory))), SIZES, tpot, [math.inf], choices, tally) == []
        assert tally.closest == {}
    empty = Tally()
    assert search.best_decode(case_of(), [2], None, [math.inf], _decode(tp=4), empty) == []
    assert empty == Tally()


def test_leaders_met_twice_are_told_once() -> None:
    """``distinct``: the same key, mesh and place is one; another key, mesh or place is another."""
    meshes = SimpleNamespace(), SimpleNamespace()
    made = [
        Leader(key=(key,), mesh=one, index=index, requests_per_s=1.0, step_time=1.0, servers=1.0)  # type: ignore[arg-type]
        for key, one, index in product("ab", meshes, (0, 1))
    ]
    assert search.distinct([*made, *made[::-1]]) == made[::-1] or len(search.distinct([*made, *made])) == 8
    assert len(search.distinct([*made, *made])) == 8


def test_the_block_that_is_freed_first_is_just_below_the_limit_of_32_mib(world: Any) -> None:
    """glibc keeps freed blocks up to the largest it has seen freed, but none of 32 MiB or more: mallopt(3)."""
    seen = []
    world.setattr(search.np, "empty", lambda size, dtype: seen.append(size * np.dtype(dtype).itemsize))
    search._keep_freed_memory()
    assert seen == [31 * 1024 * 1024]


# --- prefill ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", DRAWS)
def test_undominated_by_loops(seed: int) -> None:
    """Those that none beats in time and rate, each pair once, the shortest time first."""
    drawn = np.random.default_rng(seed)
    time, rate = drawn.integers(0, 6, 14).astype(float), drawn.integers(0, 6, 14).astype(float)
    pairs = list(zip(time.tolist(), rate.tolist(), strict=True))
    wanted = {a for a in pairs if not any(b != a and b[0] <= a[0] and b[1] >= a[1] for b in pairs)}
    assert [pairs[i] for i in search.undominated(time, rate).tolist()] == sorted(wanted)


def test_one_instance_that_serves_nothing_is_undominated() -> None:
    """A rate of nothing is beaten by none where it is alone."""
    assert search.undominated(np.array([2.0]), np.array([0.0])).tolist() == [0]


@pytest.mark.parametrize("part", [0.0, 0.3, 0.8, -1.0])
def test_prefill_options_are_the_undominated_of_each_size(world: Any, part: float) -> None:
    """docs/method.md section 6: of prefill, the undominated in rate and TTFT of those that fit, by loops."""
    world.setattr(mesh, "CHUNK", 60)
    case, choices = case_of(), Choices(offered={"prefill": {"expert_tp": (1, 2)}})
    plans = plans_of("prefill", case, SIZES, choices, 0.75)
    by_memory = sorted({p.memory for p in plans})
    memory = by_memory[int(part * len(by_memory))] if part >= 0 else by_memory[0] - 1
    case, tally = case_of(machine(memory=memory)), Tally()
    found = search.prefill_options(case, SIZES, choices, tally, 0.75)
    wanted = Counter[tuple[Any, ...]]()
    for size in SIZES:
        own = {(digits(p.wait), digits(p.rate)) for p in plans if p.layout.dies == size and p.memory <= memory}
        wanted.update((size, *a) for a in own if not any(b != a and b[0] <= a[0] and b[1] >= a[1] for b in own))
    seen = Counter[tuple[Any, ...]]()
    for one in found:
        layout = one.layout
        point: Any = invented(layout, one.mesh.family, case)
        assert (one.step_time, one.servers) == (point.step_time, layout.dies / 4)
        assert one.requests_per_s == pytest.approx(layout.batch * layout.dies / layout.tp / point.step_time, rel=CLOSE)
        prompts = layout.batch * layout.dies / layout.tp
        wait = (prompts - 1) / (1.5 * one.requests_per_s) + point.step_time * 1.375
        seen[layout.dies, digits(wait), digits(one.requests_per_s)] += 1
    assert seen == wanted
    assert len({one.key for one in found}) == len(found)
    assert tally.evaluated == len(plans)
    assert tally.refused == {"prefill memory": sum(p.memory > memory for p in plans)}
    # of each chunk in which nothing fits, the least memory: of all of them where nothing fits anywhere
    if part < 0:
        told, limit, words = tally.closest["prefill memory"]
        assert (told / GIB, limit / GIB) == (by_memory[0], memory)
        assert words in {describe(p.layout, p.family) for p in plans if p.memory == by_memory[0]}
    if part == 0.8:
        assert not tally.closest


def test_a_chunk_whose_least_memory_is_the_limit_is_no_miss(world: Any) -> None:
    """A plan at the limit fits."""
    case, choices = case_of(), _prefill(tp=1, overlap="none", exchange="gather")
    least = min(p.memory for p in plans_of("prefill", case, [4], choices))
    tally = Tally()
    assert search.prefill_options(case_of(machine(memory=least)), [4], choices, tally, 0.5)
    assert tally.closest == {}
    assert not search.prefill_options(case_of(machine(memory=least - 1)), [4], choices, tally, 0.5)
    assert tally.closest["prefill memory"][:2] == (least * GIB, (least - 1) * GIB)


def test_no_degree_of_parallelism_no_prefill(world: Any) -> None:
    """Where what is fixed leaves no layout there are no options and nothing is counted."""
    tally = Tally()
    assert search.prefill_options(case_of(), [2], _prefill(tp=4), tally, 0.5) == []
    assert tally == Tally()


# --- joining ------------------------------------------------------------------------------------------------------


def leader(rate: float, servers: float, step: float = 0.5, **other: Any) -> Leader:
    """Return an instance that serves so much on so many servers."""
    given: dict[str, Any] = {"key": (rate, servers, step), "mesh": None, "index": 0}
    return Leader(requests_per_s=rate, servers=servers, step_time=step, **given | other)


def columns_of(rows: list[tuple[float, float, float]]) -> Prefills:
    """Return prefill candidates of a rate at the utilisation, servers and TTFT up to the first step."""
    rate, servers, wait = (np.array(column, dtype=np.float64) for column in zip(*rows, strict=True))
    return Prefills(plans=[leader(*row) for row in rows], servers=servers, rate=rate, ttft=wait)


def asked_of(**other: Any) -> SearchRequest:
    """Return a request for the highest rate without limits."""
    given: dict[str, Any] = {
        "servers": 7, "rate": None, "targets": Targets(), "utilisation": 0.75, "objective": "throughput",
        "choices": Choices(), "top": 2,
    }  # fmt: skip
    return SearchRequest(**given | other)


@cache
def packs(n: int, a: float, m: int, b: float, servers: int, domain: int) -> bool:
    """Return whether n instances of a servers and m of b fit in domains, trying every division of the first domain."""
    if not n and not m:
        return True
    room = min(domain, servers)
    return room > 0 and any(
        packs(n - i, a, m - j, b, servers - room, domain)
        for i in range(n + 1)
        for j in range(m + 1)
        if math.ceil(i * a) + math.ceil(j * b) <= room
    )


def most_that_pack(size: float, beside: float, count: int, servers: int, domain: int | None) -> int:
    """Return the most instances of a size beside so many others."""
    most = -1
    while packs(count, beside, most + 1, size, servers, domain or servers):
        most += 1
    return most


@pytest.mark.parametrize(
    ("size", "beside", "servers", "domain"),
    [
        (3.0, 2.0, 16, 8),
        (2.0, 3.0, 11, 4),
        (1.0, 2.0, 7, None),
        (0.5, 1.0, 5, 2),
        (0.25, 3.0, 7, 3),
        (2.0, 0.5, 6, 4),
        (0.5, 0.25, 3, 2),
        (5.0, 1.0, 7, 4),
        (3.0, 3.0, 9, 9),
    ],
)
def test_packed_is_every_division_of_every_domain(size: float, beside: float, servers: int, domain: int | None) -> None:
    """docs/method.md section 6: whole instances are packed into each domain, by every division of every domain."""
    found = join.packed(size, beside, servers, domain).tolist()
    wanted = [most_that_pack(size, beside, count, servers, domain) for count in range(len(found) + 1)]
    assert found == wanted[:-1]
    assert wanted[-1] == -1


def divisions(n: int, a: float, m: int, b: float, servers: int, domain: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield every way to divide n instances of a servers and m of b over domains, without empty domains at the end."""
    if not n and not m:
        yield ()
    elif servers > 0:
        room = min(domain, servers)
        for i, j in product(range(n + 1), range(m + 1)):
            if math.ceil(i * a) + math.ceil(j * b) <= room:
                for rest in divisions(n - i, a, m - j, b, servers - room, domain):
                    yield ((i, j), *rest)


@pytest.mark.parametrize(("sizes", "servers", "domain"), [((2.0, 3.0), 16, 8), ((3.0, 2.0), 11, 4), ((0.5, 2.0), 5, 3),
                                                          ((1.0, 0.5), 4, 2), ((2.0, 1.0), 6, None)])  # fmt: skip
def test_divided_fills_the_first_domains_with_the_first_then_the_second(
    sizes: tuple[float, float], servers: int, domain: int | None
) -> None:
    """Of every division the one with the most in the first domain, and so on; nothing where none packs."""
    for counts in product(range(5), range(5)):
        every = list(divisions(counts[0], sizes[0], counts[1], sizes[1], servers, domain or servers))
        assert join.divided(counts, sizes, servers, domain) == list(max(every, default=()))


def deployments(
    decode: Leader, prefills: Prefills, asked: SearchRequest
) -> Iterator[tuple[tuple[float, ...], int, int, int]]:
    """Yield the key, decode and prefill instances and prefill candidate of every deployment of a decode instance."""
    own, (of_prefill, of_decode) = asked.prefill_servers, asked.domains
    for p, (size, rate, wait) in enumerate(zip(prefills.servers, prefills.rate, prefills.ttft, strict=True)):
        for n, m in product(range(1, 60), range(1, 60)):
            mine, others = math.ceil(n * decode.servers), math.ceil(m * size)
            if mine > asked.servers or others > (asked.servers - mine if own is None else own):
                continue
            if own is None:
                if not packs(n, decode.servers, m, float(size), asked.servers, of_decode or asked.servers):
                    continue
            elif not packs(n, decode.servers, 0, 1.0, asked.servers, of_decode or asked.servers) or not packs(
                m, float(size), 0, 1.0, own, of_prefill or own
            ):
                continue
            served = min(n * decode.requests_per_s * asked.utilisation, m * rate)
            if asked.rate is not None:
                if served < asked.rate * (1 - 1e-9):
                    continue
                served = min(served, asked.rate)
            first = float(wait) + decode.step_time
            if asked.targets.ttft is not None and first > asked.targets.ttft * (1 + 1e-12):
                continue
            money = others * asked.prices[0] + mine * asked.prices[1]
            priced = mine + others if asked.objective in ("cards", "per-card") else money
            key = {
                "throughput": (-served, money, first),
                "tpot": (-served, money, first),
                "cards": (mine + others, -served, first),
            }.get(asked.objective, (priced if asked.rate is not None else priced / served, -served, first))
            yield key, n, m, p


DECODES = [
    leader(7.0, 1.0, 0.5),
    leader(80.0, 9.0, 0.5),
    leader(7.5, 1.0, 0.75),
    leader(17.0, 2.0, 0.25),
    leader(3.0, 0.5, 0.5),
    leader(29.0, 3.0, 0.5),
]
PREFILLS = [(4.0, 1.0, 1.0), (4.5, 1.0, 2.0), (1.75, 0.5, 0.75), (9.5, 2.0, 1.5), (13.0, 3.0, 1.25)]
ASKED: list[dict[str, Any]] = [
    {},
    {"servers": 8, "prices": (2.0, 3.0)},
    {"targets": Targets(ttft=1.5)},
    {"targets": Targets(ttft=2.0), "objective": "per-card"},
    {"objective": "per-card"},
    {"objective": "cost", "prices": (2.5, 1.25)},
    {"objective": "energy", "prices": (1.0, 3.5)},
    {"objective": "cards", "rate": 9.0},
    {"objective": "cost", "rate": 9.0, "prices": (2.5, 1.25)},
    {"objective": "tpot", "rate": 9.0, "prices": (2.5, 1.25)},
    {"rate": 12.0, "targets": Targets(ttft=1.75)},
    {"prefill_servers": 3, "servers": 4},
    {"prefill_servers": 5, "servers": 4, "domains": (2, 3)},
    {"prefill_servers": 3, "servers": 4, "objective": "per-card", "prices": (3.0, 1.0)},
    {"domains": (3, 3), "servers": 8},
    {"domains": (4, 4), "servers": 9, "objective": "per-card"},
    {"domains": (7, 7)},
    {"domains": (None, 5), "servers": 12, "rate": 12.0, "objective": "cards"},
    {"servers": 1},
    {"servers": 2},
]


@pytest.mark.parametrize("given", ASKED)
@pytest.mark.parametrize("chosen", [slice(None), slice(0, 2), slice(2, 3), slice(3, 5), slice(0, 1)])
def test_joined_pools_are_the_best_of_every_count_of_instances(given: dict[str, Any], chosen: slice) -> None:
    """docs/method.md section 6: rate = min(prefill, decode) x utilisation; the first of every count of both pools."""
    asked, prefills = asked_of(**given), columns_of(PREFILLS[chosen])
    found = {id(one.decode): one for one in join.joined(DECODES, prefills, asked, Tally())}
    assert [id(one) for one in DECODES if id(one) in found] == list(found)
    by_ratio = asked.rate is None and asked.objective in ("per-card", "cost", "energy")
    for decode in DECODES:
        every = list(deployments(decode, prefills, asked))
        one = found.get(id(decode))
        assert (one is None) == (not every)
        if one is None:
            continue
        best = min(every)[0]
        mine = [
            key
            for key, n, m, p in every
            if (n, m, prefills.plans[p]) == (one.decode_instances, one.prefill_instances, one.prefill)
        ]
        assert len(mine) == 1
        assert one.key == pytest.approx(mine[0], rel=CLOSE)
        assert one.key[0] == pytest.approx(best[0], rel=CLOSE)
        if not by_ratio:  # else equals in rate over cost may serve more
            assert one.key == pytest.approx(best, rel=CLOSE)
        place = next(p for p, plan in enumerate(prefills.plans) if plan is one.prefill)
        served = min(one.decode_instances * decode.requests_per_s * 0.75, one.prefill_instances * prefills.rate[place])
        assert one.served == pytest.approx(served if asked.rate is None else asked.rate, rel=CLOSE)
        assert one.ttft == prefills.ttft[place] + decode.step_time
        assert not one.mixed
        assert one.tpot_added == 0


def test_prefill_that_shares_a_server_fills_it_where_the_rate_per_server_counts() -> None:
    """The best rate per server, and per money, of every count of both pools, over drawn rates and parts of a server."""
    drawn = np.random.default_rng(11)
    for at in range(36):
        part = (0.25, 0.5, 0.25, 1.0)[at % 4]
        one = leader(float(drawn.uniform(4, 14)), (1.0, 2.0, 0.5)[at % 3])
        prefills = columns_of([(float(drawn.uniform(0.5, 4)), part, 1.0)])
        asked = asked_of(servers=8, objective=("per-card", "cost")[at % 2], utilisation=1.0, prices=(2.0, 3.0))
        (found,) = join.joined([one], prefills, asked, Tally())
        assert found.key[0] == pytest.approx(min(deployments(one, prefills, asked))[0][0], rel=CLOSE)


def test_a_rate_is_met_to_a_part_in_a_thousand_million() -> None:
    """What serves the rate but for rounding serves it; what is 2e-9 short does not."""
    prefills = columns_of([(4.0, 1.0, 1.0)])
    for short, met in ((0.5e-9, True), (2e-9, False)):
        asked = asked_of(servers=2, rate=4.0 / (1 - short), objective="cards", utilisation=1.0)
        assert bool(join.joined([leader(8.0, 1.0)], prefills, asked, Tally())) == met
        decode = leader(4.0, 1.0)
        assert bool(join.joined([decode], columns_of([(8.0, 1.0, 1.0)]), asked, Tally())) == met


def test_counts_that_are_whole_but_for_rounding_are_whole() -> None:
    """Servers of thirds: three instances are one server; 0.1 + 0.2 a second feed 0.3."""
    third = 1 / 3
    one = join.joined([leader(0.3, 0.1 + 0.2)], columns_of([(0.1, 0.1, 1.0)]), asked_of(servers=2), Tally())
    assert [(j.decode_instances, j.prefill_instances) for j in one] == [(3, 7)]  # 0.675 a second: 6.75 of prefill
    fed = join.joined(
        [leader(0.1 * 3, 1.0)], columns_of([(0.1, 1.0, 1.0)]), asked_of(servers=5, utilisation=1), Tally()
    )
    assert [(j.decode_instances, j.prefill_instances) for j in fed] == [(1, 3)]
    packs_ = join.joined([leader(1.0, third)], columns_of([(9.0, third, 1.0)]), asked_of(servers=2), Tally())
    assert [(j.decode_instances, j.prefill_instances) for j in packs_] == [(3, 1)]
    sixth = columns_of([(1.0, 1 / 6, 1.0)])
    filled = join.joined([leader(10.0, 1.0)], sixth, asked_of(servers=2), Tally())
    assert [(j.decode_instances, j.prefill_instances) for j in filled] == [(1, 6)]
    assert join.packed(0.1 + 0.2, 1.0, 3, None).tolist() == [10.0, 6.0, 3.0, 0.0]
    assert join.packed(1.0, 0.1 + 0.2, 3, 3)[:10].tolist() == [3, 2, 2, 2, 1, 1, 1, 0, 0, 0]
    assert join.divided((3, 6), (0.1 + 0.2, 0.1 + 0.2), 3, 3) == [(3, 6)]
    assert join.divided((3, 1), (0.1 + 0.2, 1.0), 2, 2) == [(3, 1)]
    assert join.divided((10, 0), (0.1 + 0.2, 1.0), 3, 3) == [(10, 0)]
    assert join.divided((0, 10), (1.0, 0.1 + 0.2), 3, 3) == [(0, 10)]
    above = leader(1.0, third * (1 + 1e-10))
    under = columns_of([(0.1, third * (1 + 1e-10), 1.0)])
    for given in ({"servers": 2}, {"servers": 1, "prefill_servers": 1}):
        for objective, prices in (("throughput", (1.0, 1.0)), ("per-card", (1.0, 1.0))):
            asked = asked_of(objective=objective, prices=prices, **given)
            (three,) = join.joined([leader(1.0, 1.0)], under, asked, Tally())
            assert (three.decode_instances, three.prefill_instances) == (1, 3)
            assert three.key[:2] == pytest.approx((-0.3, 2.0) if objective == "throughput" else (2 / 0.3, -0.3))
    just = join.joined([above], columns_of([(9.0, 1.0, 1.0)]), asked_of(servers=2), Tally())
    assert [(j.decode_instances, j.prefill_instances) for j in just] == [(3, 1)]
    # three tenths, nine times over, are three servers
    assert len(join.packed(1.0, (0.1 + 0.2) / 0.9 * 0.3, 1, 1)) == 11


def test_no_prefill_no_join() -> None:
    """Without candidates nothing joins."""
    none = Prefills(plans=[], servers=np.zeros(0), rate=np.zeros(0), ttft=np.zeros(0))
    assert join.joined(DECODES, none, asked_of(), Tally()) == []


def counted(decodes: list[Leader], prefills: Prefills, asked: SearchRequest, limit: str) -> list[float]:
    """Return TTFT, or the rate, of what each count of decode instances and prefill candidate is refused for.

    As many prefill instances as feed the decode instances, at most as many as the budget leaves, one at the least.
    """
    found = []
    for decode, (p, size) in product(decodes, enumerate(prefills.servers)):
        for n in range(1, 60):
            room = 0
            mine = math.ceil(n * decode.servers)
            left = asked.servers - mine if asked.prefill_servers is None else asked.prefill_servers
            while mine <= asked.servers and math.ceil((room + 1) * size) <= left:
                room += 1
            fed = n * decode.requests_per_s * asked.utilisation
            if asked.rate is not None:
                fed = min(fed, asked.rate)
            count = min(math.ceil(fed / prefills.rate[p]), room)
            first, served = float(prefills.ttft[p]) + decode.step_time, float(min(fed, count * prefills.rate[p]))
            late = asked.targets.ttft is not None and first > asked.targets.ttft
            if count < 1:
                continue
            if limit == "ttft" and late:
                found.append(first)
            if limit == "rate" and not late and asked.rate is not None and served < asked.rate * (1 - 1e-9):
                found.append(served)
    return found


@pytest.mark.parametrize("given", [{"targets": Targets(ttft=1.5)}, {"rate": 9.0, "targets": Targets(ttft=1.5)},
                                   {"rate": 30.0, "objective": "cards"}, {"targets": Targets(ttft=0.1)},
                                   {"rate": 9.0, "prefill_servers": 1, "servers": 3}])  # fmt: skip
def test_what_joins_refuse_is_counted_with_the_nearest_miss(given: dict[str, Any]) -> None:
    """Each count of decode instances with each prefill candidate, once: late first, then short of the rate."""
    asked, prefills, tally = asked_of(**given), columns_of(PREFILLS), Tally()
    join.joined(DECODES, prefills, asked, tally)
    late, short = (counted(DECODES, prefills, asked, name) for name in ("ttft", "rate"))
    wanted, near = {}, {}
    if asked.targets.ttft is not None:
        wanted["ttft"] = len(late)
        near["ttft"] = min(late), asked.targets.ttft, "prefill pool"
    if asked.rate is not None:
        wanted["rate"] = len(short)
        near["rate"] = -max(short), -asked.rate, "within the budget"
    assert tally.refused == wanted
    assert tally.closest == near
    assert tally.evaluated == 0
    twice = Tally()
    join.joined(DECODES, prefills, replace(asked, objective="per-card"), twice)
    ratio = asked.rate is None  # then prefill that all is full is tried as well, which may be none
    assert all(twice.refused[name] >= count * (1 + 0 * ratio) for name, count in wanted.items())
    slow = Tally()  # the most of what is short, however little that is
    join.joined([leader(0.4, 1.0)], columns_of([(9.0, 1.0, 1.0)]), asked_of(servers=2, rate=5.0), slow)
    assert slow.closest["rate"][0] == pytest.approx(-0.3, rel=CLOSE)
    met = Tally()
    join.joined(
        [leader(1.0, 1.0)], columns_of([(9.0, 1.0, 1.0)]), replace(asked, targets=Targets(ttft=1.5), rate=0.1), met
    )
    assert met == Tally(refused={"ttft": 0, "rate": 0})


def test_the_fastest_of_a_size_are_those_that_none_beats_in_step_and_rate() -> None:
    """By loops over all of a size; of equals one."""
    drawn = np.random.default_rng(5)
    for _ in range(20):
        made = [leader(float(r), float(s), float(t)) for r, s, t in drawn.integers(1, 5, (12, 3)).tolist()]
        kept = join.fastest_of_a_size(made)
        seen = [(one.servers, one.step_time, one.requests_per_s) for one in kept]
        every = {(one.servers, one.step_time, one.requests_per_s) for one in made}
        assert sorted(seen) == sorted(
            a for a in every if not any(b != a and b[0] == a[0] and b[1] <= a[1] and b[2] >= a[2] for b in every)
        )
        assert [one.step_time for one in kept] == sorted(one.step_time for one in kept)
    assert join.fastest_of_a_size([leader(0.5, 1.0)])


@pytest.mark.parametrize("seed", DRAWS)
def test_the_first_of_a_row_by_loops(seed: int) -> None:
    """``first_of``: the smallest allowed entry of each row by the keys in turn, the first of equals."""
    drawn = np.random.default_rng(seed)
    allowed = drawn.random((4, 3, 3)) < 0.6
    first, second, third = (drawn.integers(0, 3, shape).astype(float) for shape in ((4, 3, 3), (3, 1), (4, 1, 3)))
    found = join.first_of((first, second, third), allowed).tolist()
    for row in range(4):
        rank = [
            ((first[row, a, b], second[a, 0], third[row, 0, b]), 3 * a + b)
            for a, b in product(range(3), range(3))
            if allowed[row, a, b]
        ]
        if rank:
            assert found[row] == min(rank)[1]


def test_prefill_columns_are_the_candidates_one_by_one(world: Any) -> None:
    """Servers, rate at the utilisation and TTFT of each candidate, whatever the order of families."""
    case, choices = case_of(), Choices(offered={"prefill": {"expert_tp": (1, 2)}})
    plans = [
        Leader(key=(), mesh=one, index=index, requests_per_s=0.5 + index, step_time=1.0, servers=2.0 + index)
        for one in mesh.meshes(case, "prefill", SIZES, choices)
        for index in range(0, math.prod(one.shape), 11)
    ]
    mixed = plans[::2] + plans[1::2][::-1]
    found = join.prefill_columns(mixed, case, 0.625)
    assert found.plans == mixed
    assert found.servers.tolist() == [one.servers for one in mixed]
    assert found.rate.tolist() == [one.requests_per_s * 0.625 for one in mixed]
    for wait, one in zip(found.ttft, mixed, strict=True):
        layout = one.layout
        step: Any = invented(layout, one.mesh.family, case).step_time
        prompts = layout.batch * layout.dies / layout.tp
        assert wait == pytest.approx((prompts - 1) * step / (1.25 * prompts) + step * 1.3125, rel=CLOSE)


# --- refitting ----------------------------------------------------------------------------------------------------


def of_batch(best: Leader, case: Case) -> list[tuple[float, float, float, LayoutSpec]]:
    """Return step, tokens of a step, rate and layout of a decode instance at every batch and split that fits."""
    mine, found = best.layout, []
    splits = (4, 6, 8) if mine.overlap == "cores" else (0,)
    for cores, batch in product(splits, range(1, int(best.mesh.batch[-1]) + 1)):
        layout = mine.model_copy(update={"batch": batch, "attention_cores": cores})
        point: Any = invented(layout, best.mesh.family, case)
        takes = not layout.fused_experts or batch * (1 + layout.draft) <= rules.LARGEST_FUSED * layout.tp
        tokens = 1 + sum(case.acceptance[: layout.draft])
        rate = batch * layout.dies / layout.tp * tokens / (point.step_time * case.osl)
        usable = case.rates.capacity * case.rates.utilization - case.rates.runtime
        if point.memory <= usable and takes:
            found.append((point.step_time, tokens, rate, layout))
    return found


def decode_leaders(case: Case, choices: Choices) -> list[Leader]:
    """Return some decode instances, each of another kind."""
    return [
        Leader(
            key=(at,),
            mesh=one,
            index=math.prod(one.shape) * 3 // 5 + at,
            requests_per_s=1.0,
            step_time=9.0,
            servers=3.0,
        )
        for at, one in enumerate(mesh.meshes(case, "decode", [4, 12], choices))
    ]


@pytest.mark.parametrize("choices", LOOPED)
def test_an_instance_at_every_batch_and_split_by_loops(world: Any, choices: Choices) -> None:
    """The highest rate under a TPOT limit, and the shortest step that finishes a rate; limits met exactly count."""
    world.setattr(rules, "LARGEST_FUSED", 4)
    base = case_of()
    for best in decode_leaders(base, choices):
        memories = sorted({p.memory for p in plans_of("decode", base, [4, 12], choices)})
        for memory in (memories[len(memories) // 2], memories[-1], memories[0] - 1):
            case = case_of(machine(memory=memory))
            every, tried = refit.every_batch(best, case), of_batch(best, case)
            for limit in (*sorted({step / tokens for step, tokens, _, _ in tried}), math.inf, 1.0):
                rates = [rate for step, tokens, rate, _ in tried if step / tokens <= limit]
                found = every.leader(limit)
                assert (found is None) == (not rates)
                if found is None:
                    assert refit.refitted(best, case, limit) is best
                    continue
                assert found.requests_per_s == pytest.approx(max(rates), rel=CLOSE)
                again = refit.refitted(best, case, limit)
                assert (again.index, again.requests_per_s) == (found.index, found.requests_per_s)
                assert (found.key, found.servers) == (best.key, best.servers)
                assert found.layout in [
                    one[3] for one in tried if (one[0], digits(one[2])) == (found.step_time, digits(max(rates)))
                ]
            top = max((rate for _, _, rate, _ in tried), default=1.0)
            for wanted in (*sorted({rate for _, _, rate, _ in tried}), top * (1 + 0.5e-9), top * (1 + 3e-9), 1e-9):
                steps = [step for step, _, rate, _ in tried if rate >= wanted * (1 - 1e-9)]
                quick = every.shortest(wanted)
                assert (quick is None) == (not steps)
                if quick is None:
                    continue
                assert quick.step_time == min(steps)
                assert (quick.layout, digits(quick.requests_per_s)) in [(one[3], digits(one[2])) for one in tried]
                assert (quick.key, quick.servers) == (best.key, best.servers)


def joins_of(case: Case, leaders: list[Leader], **other: Any) -> list[Join]:
    """Return joins of decode instances that are as their layouts say."""
    made = []
    for at, one in enumerate(leaders):
        point: Any = invented(one.layout, one.mesh.family, case)
        best = replace(one, requests_per_s=float(point.requests_per_s), step_time=float(point.step_time))
        given: dict[str, Any] = {
            "prefill_instances": 1, "decode_instances": 3, "served": 0.5 * 3 * 0.75 * best.requests_per_s,
            "ttft": 100.0, "key": (float(at), 1.0, 1.0),
        }  # fmt: skip
        made.append(Join(decode=best, prefill=best, **given | other))
    return made


def test_a_batch_of_decode_is_no_fuller_than_what_is_served_needs(world: Any) -> None:
    """docs/method.md section 6: lowered to the shortest step that keeps up; TTFT follows the step."""
    case = case_of(machine(memory=1000.0))
    cases, asked = Cases(prefill=case, decode=case), asked_of()
    lowered = 0
    for part in (0.2, 0.55, 0.9, 1 - 2e-6, 1 - 0.5e-6, 1.0):
        for one in joins_of(case, decode_leaders(case, Choices())):
            full = 3 * 0.75 * one.decode.requests_per_s
            given = replace(one, served=part * full)
            found = refit._with_least_batch(given, cases, asked)
            mixed = replace(given, mixed=True)
            assert refit._with_least_batch(mixed, cases, asked) is mixed
            if part > 1 - 1e-6:
                assert found is given
                continue
            wanted = given.served / (3 * 0.75)
            least = min(step for step, _, rate, _ in of_batch(one.decode, case) if rate >= wanted * (1 - 1e-9))
            assert found.decode.step_time == least
            assert found is not given
            assert found.ttft == pytest.approx(100.0 + least - one.decode.step_time, rel=CLOSE)
            assert (found.served, found.key, found.prefill) == (given.served, given.key, given.prefill)
            lowered += least < one.decode.step_time
    assert lowered > 5
    none = case_of(machine(memory=1.0))
    one = joins_of(case, decode_leaders(case, Choices()))[0]
    assert refit._with_least_batch(one, Cases(prefill=none, decode=none), asked) is one


def test_equals_in_objective_and_cost_are_in_order_of_tpot(world: Any) -> None:
    """docs/method.md section 6: of plans equal in objective and cost, to nine digits, the shortest TPOT comes first."""
    case = case_of(machine(memory=1000.0), acceptance=(0.75, 0.5))
    cases = Cases(prefill=case, decode=case)
    leaders = (decode_leaders(case, Choices()) * 9)[:29]
    made = joins_of(case, leaders, served=1e9)
    keyed = []
    for at, one in enumerate(made):
        first = 1.0 + (at % 3) + 1e-11 * (at % 5)
        keyed.append(
            replace(one, key=(first, 2.0 - (at % 2), 30.0 - at), tpot_added=float(7 * (at % 4)), mixed=at % 4 > 0)
        )

    def wanted(shown: int) -> list[int]:
        def order(one: Join) -> tuple[float, ...]:
            tokens = 1 + sum((0.75, 0.5)[: one.decode.layout.draft])
            return round(one.key[0]), one.key[1], one.decode.step_time / tokens + one.tpot_added

        return [id(one) for one in (*sorted(keyed[:shown], key=order), *keyed[shown:])]

    assert [id(one) for one in refit.with_least_batches(keyed, cases, asked_of(top=2))] == wanted(24)
    assert [id(one) for one in refit.with_least_batches(keyed, cases, asked_of(top=26))] == wanted(26)
    apart = [replace(keyed[0], key=(1.0 + 1e-8, 1.0, 0.0)), replace(keyed[0], key=(1.0, 1.0, 0.0), tpot_added=50.0)]
    assert refit.with_least_batches(apart, cases, asked_of()) == apart[::-1]
    near = [replace(keyed[0], key=(1.0, 1.0, 0.0), tpot_added=50.0), replace(keyed[0], key=(1.0 + 1e-10, 1.0, 0.0))]
    assert refit.with_least_batches(near, cases, asked_of()) == near[::-1]


# --- both pools ---------------------------------------------------------------------------------------------------


def test_sizes_are_whole_servers_and_halves_of_one_that_hold_the_experts() -> None:
    """docs/method.md section 6; experts at half a byte a weight must fit the dies of a part of a server."""
    model = model_of()
    experts = 2 * 6 * 3 * 7168 * 2048 / 2  # layers with experts x experts x up, gate and down
    for of_server, memory, servers, domain in product(
        (1, 2, 4, 6, 8, 12, 16), (1.0, 0.2, 0.05), (1, 3, 5), (None, 2, 9)
    ):
        case = case_of(machine(1, of_server, memory=memory), model)
        parts = [of_server // 2**k for k in range(1, 9) if of_server % 2**k == 0][::-1]
        fitting = [n for n in parts if n * memory * GIB >= experts]
        whole = [n * of_server for n in range(1, 99) if n <= servers and (domain is None or n <= domain)]
        assert both_pools.sizes_of(case, servers, domain) == fitting + whole
    exact = case_of(machine(1, 4, memory=experts / 2 / GIB), model)
    assert both_pools.sizes_of(exact, 1, None) == [2, 4]  # two dies hold them to the byte


def test_decode_has_all_servers_but_one_for_prefill() -> None:
    """docs/method.md section 6: one server less than the budget, all of it where prefill has a budget of its own."""
    for servers in (1, 2, 7):
        assert both_pools.most_of_decode(asked_of(servers=servers)) == (servers - 1 or 1)
        assert both_pools.most_of_decode(asked_of(servers=servers, prefill_servers=2)) == servers


def test_the_sizes_of_both_pools_follow_their_budgets(world: Any) -> None:
    """Prefill up to eight servers, its own budget or one server less than all; each within its domain."""
    asked_sizes: list[tuple[Any, ...]] = []
    world.setattr(
        both_pools, "prefill_options", lambda case, sizes, *rest: asked_sizes.append((case, sizes, *rest)) or []
    )
    cases = Cases(prefill=case_of(machine(1, 1)), decode=case_of(machine(1, 2)))
    for servers, own, domains, prefill, decode in (
        (1, None, (None, None), 1, 1),
        (2, None, (None, None), 1, 1),
        (5, None, (None, None), 4, 4),
        (9, None, (None, None), 8, 8),
        (12, None, (None, None), 8, 11),
        (12, None, (3, 5), 3, 5),
        (5, 3, (None, None), 3, 5),
        (5, 1, (2, 4), 1, 4),
        (5, 11, (None, None), 8, 5),
    ):
        tally, choices = Tally(), Choices()
        asked = asked_of(servers=servers, prefill_servers=own, domains=domains)
        sizes, columns = both_pools.prefill_side(cases, asked, choices, tally)
        assert sizes == [1, *range(2, 2 * decode + 1, 2)]
        assert asked_sizes[-1] == (cases.prefill, list(range(1, prefill + 1)), choices, tally, 0.75)
        assert columns.plans == []


def test_ttft_leaves_each_prefill_candidate_a_time_for_the_first_step() -> None:
    """TTFT less the wait of each candidate; what no step within TPOT x tokens of a step reaches is no limit."""
    case, prefills = (
        case_of(),
        columns_of([(1.0, 1.0, w) for w in (1.0, 2.0, 3.0, 3.0, 4.5, 5.0)]),
    )  # 2.25 tokens a step

    def limits(tpot: float | None, ttft: float | None) -> list[float]:
        return both_pools.step_limits(prefills, asked_of(targets=Targets(tpot=tpot, ttft=ttft)), case)

    assert limits(None, None) == [math.inf]
    assert limits(1.0, None) == [math.inf]
    assert limits(None, 5.0) == [0.5, 2.0, 3.0, 4.0]
    assert limits(1.0, 5.0) == [0.5, 2.0, math.inf]
    assert limits(2.0, 5.0) == [0.5, 2.0, 3.0, 4.0]
    assert limits(0.25, 5.0) == [0.5, math.inf]
    assert limits(None, 1.0) == [math.inf]
    assert limits(4 / 2.25, 5.0)[:3] == [0.5, 2.0, 3.0]


def pools(case: Case, asked: SearchRequest, kv: Any) -> tuple[list[Plan], list[Plan]]:
    """Return every layout of decode and of prefill of a cache precision that fits."""
    memory = (case.rates.capacity * case.rates.utilization - case.rates.runtime) / GIB
    choices, of_server = replace(asked.choices, kv_dtypes=(kv,)), case.rates.dies_per_server
    own = asked.prefill_servers
    sizes = [
        [1, 2] + [n * of_server for n in range(1, most + 1)]
        for most in (asked.servers - (own is None), own or asked.servers - 1)
    ]
    decodes, prefills = (
        [p for p in plans_of(phase, case, size, choices, asked.utilisation) if p.memory <= memory]
        for phase, size in zip(("decode", "prefill"), sizes, strict=True)
    )
    return decodes, prefills


def best_by_loops(case: Case, asked: SearchRequest, decodes: list[Plan], prefills: list[Plan], tpot: float) -> float:
    """Return the best objective of every pair of layouts and every count of instances."""
    ttft, of_server = asked.targets.ttft or math.inf, case.rates.dies_per_server
    pairs_decode = {(p.layout.dies, p.step, digits(p.rate)): p for p in decodes if p.tpot <= tpot * (1 + 1e-12)}
    pairs_prefill = {(p.layout.dies, digits(p.wait), digits(p.rate)): p for p in prefills}
    best, own = math.inf, asked.prefill_servers
    step = np.array([p.step for p in pairs_decode.values()])[:, None]
    rate = np.array([p.rate for p in pairs_decode.values()])[:, None]
    dies = np.array([p.layout.dies for p in pairs_decode.values()])[:, None]
    wait, feed, others = (
        np.array([getattr(p, name) if name != "dies" else p.layout.dies for p in pairs_prefill.values()])[None]
        for name in ("wait", "rate", "dies")
    )
    for n, m in product(range(1, of_server * 3 + 1), repeat=2):
        a, b = -(-n * dies // of_server), -(-m * others // of_server)
        allowed = (a + b <= asked.servers) if own is None else (a <= asked.servers) & (b <= own)
        allowed = allowed & (wait + step <= ttft * (1 + 1e-12))
        served = np.minimum(n * rate, m * feed) * asked.utilisation
        objective = -served if asked.objective == "throughput" else (a + b) / served
        best = min(best, float(np.where(allowed, objective, math.inf).min(initial=math.inf)))
    return best


@pytest.mark.parametrize(
    ("objective", "tpot", "ttft", "own"),
    [
        ("throughput", None, None, None),
        ("throughput", 30.0, None, None),
        ("per-card", 24.0, 100.0, None),
        ("throughput", 24.0, 80.0, 2),
        ("throughput", 22.0, 300.0, None),
    ],
)
def test_both_pools_are_the_best_of_every_pair_of_layouts_and_counts(
    world: Any, objective: Any, tpot: float | None, ttft: float | None, own: int | None
) -> None:
    """docs/method.md section 6: the whole search by loops; and the same under several TPOT limits in one pass."""
    world.setattr(mesh, "LARGEST_BATCH", 3)
    case = case_of(machine(memory=112.0), model_of(heads=2))
    choices = Choices(kv_dtypes=("bf16", "int8"), fixed={"decode": {"exchange": "gather", "draft": 1}})
    asked = asked_of(
        servers=2 if own else 3,
        objective=objective,
        targets=Targets(tpot=tpot, ttft=ttft),
        choices=choices,
        prefill_servers=own,
    )
    cases, tally = Cases(prefill=case, decode=case), Tally()
    joins, columns = both_pools.searched(cases, asked, tally)
    assert set(columns) == {"bf16", "int8"}
    sides = {kv: pools(case, asked, kv) for kv in choices.kv_dtypes}

    def best(limit: float) -> float:
        return min(best_by_loops(case, asked, *side, limit) for side in sides.values())

    assert joins[0].key[0] == pytest.approx(best(tpot or math.inf), rel=1e-9)
    assert [one.key for one in joins] == sorted(one.key for one in joins)
    for one in joins[:3]:
        assert one.decode.mesh.family.kv_dtype == one.prefill.mesh.family.kv_dtype
        assert one.prefill in columns[one.decode.mesh.family.kv_dtype].plans
    limits = [Limits(tpot=limit) for limit in (17.0, 40.0, 24.0, 0.001)]
    for limit, one_best in zip(limits, both_pools.best_of_each(cases, asked, limits), strict=True):
        wanted = best(limit.tpot)
        assert (one_best is None) == (wanted == math.inf)
        if one_best is not None:
            assert one_best.key[0] == pytest.approx(wanted, rel=1e-9)
    assert both_pools.best_of_each(cases, asked, [Limits(tpot=0.001)]) == [None]


def test_ways_of_serving_are_searched_as_asked(world: Any) -> None:
    """Pools apart, instances that run both phases, or both ways; each cache precision by itself, the best first."""
    mixed: list[tuple[Any, ...]] = []
    seen: list[int] = []

    class Mixing:
        """Takes in the chunks that decode goes through, and those of sizes that decode has not."""

        @staticmethod
        def of(*given: Any) -> "Mixing":
            mixed.append(given)
            return Mixing()

        def work(self, chunk: Any, _: Any) -> list[int]:
            return [int(dies) for dies in chunk.experts.dies]

        def take(self, _: Any, found: list[int]) -> None:
            seen.extend(found)

        def go_through(self, sizes: list[int], _: Any) -> None:
            seen.extend(sizes)

        def instances(self) -> list[list[Any]]:
            key = (-9e9 if len(mixed) % 2 else 9e9, 0.0, 0.0)
            return [[SimpleNamespace(key=key, decode=SimpleNamespace(servers=1.0))]]

    world.setattr(both_pools, "Mixing", Mixing)
    world.setattr(both_pools, "joins_of", lambda instances, *_: instances)
    case = case_of(machine(1, 2))
    cases = Cases(prefill=case_of(machine(1, 4)), decode=case)
    choices = Choices(kv_dtypes=("bf16", "int8"), fixed={"decode": {"batch": 1, "draft": 0}, "prefill": {"batch": 1}})
    for serving, domain in product(("disaggregated", "mixed", "both"), (None, 2)):
        mixed.clear()
        seen.clear()
        asked = asked_of(servers=3, choices=choices, serving=serving, targets=Targets(tpot=90.0), domains=(1, domain))
        tally = Tally()
        joins, columns = both_pools.searched(cases, asked, tally)
        assert [one.key for one in joins] == sorted(one.key for one in joins)
        assert any(isinstance(one, Join) for one in joins) == (serving != "mixed")
        assert set(columns) == (set() if serving == "mixed" else {"bf16", "int8"})
        assert sum(not isinstance(one, Join) for one in joins) == len(mixed) == (2 if serving != "disaggregated" else 0)
        wanted = [1, 2, 4] + ([] if domain else [6])
        assert set(seen) == (set(wanted) if mixed else set())
        for (given, sizes, request, (limits,), counts, _), kv in zip(mixed, ("bf16", "int8"), strict=False):
            assert (given, sizes, limits) == (cases, wanted, Asked(tpot=90.0))
            assert request == replace(asked, choices=replace(choices, kv_dtypes=(kv,)))
            assert isinstance(counts, Tally)


def test_a_join_as_a_deployment_keeps_its_counts_and_adds_its_prefill_steps() -> None:
    """TPOT = step / tokens of a step, and what prefill in between adds; counts and rate are the join's."""
    case = case_of(machine(memory=900.0), acceptance=(0.75,))
    (decode,) = mesh.meshes(
        case,
        "decode",
        [4],
        _decode(overlap="none", exchange="gather", tp=2, draft=1, shared_ranks=0, batch=3, redundant=2),
    )
    (prefill,) = mesh.meshes(
        case, "prefill", [8], _prefill(overlap="none", exchange="gather", tp=2, batch=2, redundant=2)
    )
    pair = [Leader(key=(), mesh=m, index=0, requests_per_s=1.0, step_time=1.0, servers=1.0) for m in (decode, prefill)]
    one = Join(*pair, prefill_instances=3, decode_instances=5, served=0.625, ttft=1.0, key=(0.0,), tpot_added=0.25)
    cases = Cases(prefill=case, decode=case)
    made = both_pools.deployment(one, cases, 0.5)
    assert (made.prefill_instances, made.decode_instances, made.requests_per_s) == (3, 5, 0.625)
    assert (made.prefill.layout.dies, made.decode.layout.dies, made.mixed) == (8, 4, False)
    assert (made.prefill_servers, made.decode_servers) == (6, 5)
    step: Any = made.decode.point.step_time
    assert both_pools.tpot_of(one, cases) == pytest.approx(step / 1.75 + 0.25, rel=CLOSE)
    assert both_pools.deployment(replace(one, mixed=True), cases, 0.5).mixed


# --- request and tally --------------------------------------------------------------------------------------------


def test_objectives_order_deployments_as_the_method_says() -> None:
    """The table of docs/method.md section 6; the objective is what serves more, or serves the same for less."""
    served, servers, cost, first = 8.0, 5.0, 40.0, 0.5
    for objective, rate, key, worth in (
        ("throughput", None, (-8.0, 40.0, 0.5), 8.0),
        ("tpot", 8.0, (-8.0, 40.0, 0.5), 8.0),
        ("cards", 8.0, (5.0, -8.0, 0.5), 0.2),
        ("per-card", None, (0.625, -8.0, 0.5), 1.6),
        ("cost", None, (5.0, -8.0, 0.5), 0.2),
        ("energy", None, (5.0, -8.0, 0.5), 0.2),
        ("per-card", 8.0, (5.0, -8.0, 0.5), 0.2),
        ("cost", 8.0, (40.0, -8.0, 0.5), 0.025),
        ("energy", 8.0, (40.0, -8.0, 0.5), 0.025),
    ):
        asked = asked_of(objective=objective, rate=rate)
        found = keys(asked, np.array(served), servers, cost, first)
        assert tuple(float(one) for one in found) == key
        assert value(asked, key) == pytest.approx(worth, rel=CLOSE)
        assert asked.by_ratio == (rate is None and objective in ("per-card", "cost", "energy"))
    nothing = keys(asked_of(objective="per-card"), np.array(0.0), 5.0, 40.0, 0.5)[0]
    assert 1e11 < nothing < math.inf


def test_a_request_is_of_pools_apart_at_equal_prices_and_in_any_domain() -> None:
    """``SearchRequest``: equal prices count servers; domains none where any."""
    plain = asked_of()
    assert (plain.prices[0], plain.prices[1]) == (1.0, 1.0)
    assert (plain.prefill_servers, plain.domains, plain.serving) == (None, (None, None), "disaggregated")


def test_a_tally_adds_up_and_keeps_the_nearest() -> None:
    """Counts of parts add up; of misses the nearest stays, the first of equals; rates are told with their own sign."""
    one, other = Tally(), Tally(evaluated=5)
    assert (one.evaluated, one.refused, one.closest) == (0, {}, {})
    one.evaluated += 2
    for name, count in (("memory", 3), ("memory", 4), ("tpot", 0)):
        one.count(name, count)
    other.count("memory", 10)
    other.count("rate", 6)
    one.miss("memory", 9.0, 5.0, "a")
    one.miss("memory", 9.0, 5.0, "b")
    one.miss("memory", 11.0, 5.0, "c")
    other.miss("memory", 8.0, 5.0, "d")
    other.miss("rate", -7.0, -10.0, "e")
    one.miss("ttft", 3.0, 2.0, "f")
    assert one.closest == {"memory": (9.0, 5.0, "a"), "ttft": (3.0, 2.0, "f")}
    one.add(other)
    assert one.evaluated == 7
    assert one.refused == {"memory": 17, "tpot": 0, "rate": 6}
    assert one.closest == {"memory": (8.0, 5.0, "d"), "ttft": (3.0, 2.0, "f"), "rate": (-7.0, -10.0, "e")}
    one.count("prefill memory", 1)
    one.count("ttft", 2)
    told = {r.constraint: (r.count, r.closest, r.limit, r.unit, r.layout) for r in one.rejections()}
    assert told.keys() == {"memory", "rate", "prefill memory", "ttft"}
    assert told["ttft"] == (2, 3.0, 2.0, "s", "f")
    assert told["memory"] == (17, 8.0, 5.0, "B", "d")
    assert told["rate"] == (6, 7.0, 10.0, "1/s", "e")
    assert told["prefill memory"][0] == 1
    assert math.isnan(told["prefill memory"][1])
    assert math.isnan(told["prefill memory"][2])


def test_a_layout_in_a_few_words() -> None:
    """What is plain is not told: no shared ranks, no split experts, no core split."""
    plain = LayoutSpec(dies=8, tp=2, batch=3, draft=1)
    assert describe(plain, Family.of(plain, "decode")) == "8 dies, tp 2, batch 3, draft 1, dispatch, overlap none"
    rich = plain.model_copy(
        update={"shared_ranks": 1, "expert_tp": 2, "overlap": "cores", "attention_cores": 6, "exchange": "gather"}
    )
    words = "8 dies, tp 2, batch 3, draft 1, 1 shared ranks, expert tp 2, gather, overlap cores 6"
    assert describe(rich, Family.of(rich, "decode")) == words
