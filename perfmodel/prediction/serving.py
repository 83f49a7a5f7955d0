"""Step times -> what a pool serves: TPOT, rates, TTFT, memory use."""

from dataclasses import dataclass

from perfmodel.algebra import as_float, greater, maximum, minimum, total, where
from perfmodel.formulas import serving as formulas
from perfmodel.formulas.collectives import kv_transfer_exposed
from perfmodel.formulas.experts import gated_feed_forward_bytes
from perfmodel.formulas.memory import engine_bytes
from perfmodel.ledger.footprint import Footprint, footprint
from perfmodel.ledger.records import Dims, Family, Layout, Ledger, Traffic
from perfmodel.ledger.step import build_ledger, dims_of
from perfmodel.specs.model import ModelSpec
from perfmodel.supply.rates import Rates
from perfmodel.timing.step import step_time
from perfmodel.units import Bytes, Count, Dimensionless, Fraction, PerSecond, Seconds


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Case:
    """What stays fixed while layouts vary: model, machine, lengths, draft acceptance."""

    model: ModelSpec
    rates: Rates
    isl: Count
    osl: Count
    acceptance: tuple[float, ...] = ()
    #: whether routing is forced even and all requests progress together, as in a driver's loop
    even: bool = False
    #: part of a prompt whose cache is found ready, and relative spread of the lengths batched together
    prefix_hit: Fraction = 0
    isl_spread: Dimensionless = 0
    #: mean context of a request that runs, and its standard deviation, where lengths are spread: else they follow
    running_context: Count | None = None
    running_deviation: Count | None = None

    @property
    def dims(self) -> Dims:
        """Sizes of the model."""
        return dims_of(self.model)

    @property
    def traffic(self) -> Traffic:
        """Lengths of the requests and how unevenly they load the ranks."""
        given = Traffic(
            isl=self.isl,
            osl=self.osl,
            skew=self.rates.skew,
            residual=self.rates.residual,
            variety=self.rates.variety,
            chance=1.0,
            context_spread=self.rates.context_spread,
            prefix_hit=self.prefix_hit,
            isl_spread=self.isl_spread,
            running_context=self.running_context,
            running_deviation=self.running_deviation,
        )
        return given.even() if self.even or self.rates.even else given


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PoolPoint:
    """One instance of one pool; rates are of the whole instance."""

    step_time: Seconds
    #: sequences that each get tokens_per_step in a step; in prefill the prompts' tokens, each once
    in_flight: Count
    tokens_per_step: Dimensionless
    tokens_per_request: Count
    footprint: Footprint
    usable: Bytes
    #: requests a second that the front ends of an instance take; none where they set no limit
    frontend_rate: PerSecond | None = None

    @property
    def tpot(self) -> Seconds:
        """Time per output token; in prefill the step itself."""
        return formulas.time_per_output_token(step_time=self.step_time, tokens_per_step=self.tokens_per_step)

    @property
    def tokens_per_s(self) -> PerSecond:
        """Output tokens, in prefill input tokens, per second."""
        rate = formulas.token_rate(sequences=self.in_flight, tpot=self.tpot)
        return rate if self.frontend_rate is None else minimum(rate, self.frontend_rate * self.tokens_per_request)

    @property
    def load(self) -> Fraction:
        """Part of its time that the dies work when the instance serves its highest rate: less where front ends bind."""
        return self.tokens_per_s / formulas.token_rate(sequences=self.in_flight, tpot=self.tpot)

    @property
    def requests_per_s(self) -> PerSecond:
        """Requests finished per second."""
        return formulas.request_rate(tokens_per_s=self.tokens_per_s, tokens_per_request=self.tokens_per_request)

    @property
    def memory(self) -> Bytes:
        """Bytes planned on one die."""
        return self.footprint.planned


def tokens_per_step(acceptance: tuple[float, ...], draft: Count) -> Dimensionless:
    """Return one plus the expected accepted tokens of the first ``draft`` positions."""
    return 1 + total(where(greater(draft, position), rate, 0.0) for position, rate in enumerate(acceptance))


def usable_memory(rates: Rates) -> Bytes:
    """Bytes of a die that weights, cache, activations and buffers may fill: the engine's share less its runtime."""
    return engine_bytes(
        capacity=rates.capacity,
        reported=rates.reported,
        share=rates.utilization,
        runtime=rates.runtime,
        graphs=rates.graphs,
    )


def fewest_dies(case: Case) -> float:
    """Return the dies below which the routed experts alone, at half a byte a weight, pass the memory of all."""
    model, dims = case.model, case.dims
    each = gated_feed_forward_bytes(
        hidden_size=dims.routed_hidden, intermediate_size=dims.moe_intermediate_size, element_bytes=0.5
    )
    return as_float(model.moe_layers * dims.n_routed_experts * each / usable_memory(case.rates))


def footprint_of(layout: Layout, family: Family, case: Case) -> Footprint:
    """Return the bytes of a die of an instance of this layout."""
    return held(build_ledger(layout, family, case.traffic, case.model, case.dims), layout, family, case)


def held(ledger: Ledger, layout: Layout, family: Family, case: Case) -> Footprint:
    """Return the bytes of a die from the rows of its step; an engine keeps at least what it measured at start."""
    rates = case.rates
    return footprint(
        ledger, layout, family, case.traffic, case.model, case.dims, rates.kv_block_tokens, rates.activations
    )


def pool_point(layout: Layout, family: Family, case: Case) -> PoolPoint:
    """Return what one instance of this layout serves."""
    ledger = build_ledger(layout, family, case.traffic, case.model, case.dims)
    return pool_of(ledger, step_time(ledger, family, layout.attention_cores, case.rates), layout, family, case)


def pool_of(ledger: Ledger, step: Seconds, layout: Layout, family: Family, case: Case) -> PoolPoint:
    """Return what one instance serves, from the rows of its step and the time that takes."""
    rates = case.rates
    sequences = layout.batch * layout.ranks
    decode = family.phase == "decode"
    return PoolPoint(
        step_time=step,
        in_flight=sequences if decode else sequences * case.isl,
        tokens_per_step=tokens_per_step(case.acceptance, layout.draft) if decode else 1,
        tokens_per_request=case.osl if decode else case.isl,
        footprint=held(ledger, layout, family, case),
        usable=usable_memory(rates),
        frontend_rate=None if decode or rates.frontend_rate is None else rates.frontends * rates.frontend_rate,
    )


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FirstToken:
    """The terms of TTFT, in order of time; the request's path, before and after its steps, first."""

    request_path: Seconds = 0.0
    frontend: Seconds = 0.0
    batch_formation: Seconds
    residual: Seconds
    prefill: Seconds
    kv_transfer: Seconds
    first_step: Seconds

    @property
    def ttft(self) -> Seconds:
        """Their sum."""
        return (
            self.request_path
            + self.frontend
            + self.batch_formation
            + self.residual
            + self.prefill
            + self.kv_transfer
            + self.first_step
        )


def frontend_wait(prefill: PoolPoint, case: Case, arrivals: PerSecond) -> Seconds:
    """Return the time of a request in the front ends of an instance that takes so many a second."""
    if prefill.frontend_rate is None or case.rates.frontend_rate is None:
        return 0.0
    return formulas.frontend_time(
        processes=case.rates.frontends,
        rate=case.rates.frontend_rate,
        utilisation=arrivals / prefill.frontend_rate,
    )


def first_token(
    *, prefill: PoolPoint, layout: Layout, case: Case, utilisation: Fraction, decode_step: Seconds
) -> FirstToken:
    """Return the terms of TTFT with the prefill pool at a given utilisation."""
    prompts = layout.batch * layout.ranks
    return FirstToken(
        request_path=case.rates.request_path,
        frontend=frontend_wait(prefill, case, utilisation * prefill.requests_per_s),
        batch_formation=formulas.batch_formation_wait(
            prompts=prompts, arrival_rate=utilisation * prefill.requests_per_s
        ),
        residual=formulas.residual_wait(
            utilisation=utilisation if prefill.frontend_rate is None else utilisation * prefill.load,
            service_time=prefill.step_time,
        ),
        prefill=prefill.step_time,
        kv_transfer=cache_transfer(prefill=prefill, layout=layout, case=case),
        first_step=decode_step,
    )


def cache_transfer(*, prefill: PoolPoint, layout: Layout, case: Case) -> Seconds:
    """Return the time that a prompt's cache takes to decode, as far as it is left exposed.

    The dies of a data-parallel rank share the sending of their batch's cache evenly, and a die of decode takes a
    whole prompt: the longer of both.  Errs high where decode splits its cache.
    """
    held = prefill.footprint
    cache = held.kv_bytes_per_token * case.isl + held.kv_bytes_per_request
    return kv_transfer_exposed(
        payload=cache * maximum(layout.batch / (layout.tp * layout.cp), 1),
        bandwidth=case.rates.kv_tier.bandwidth,
        latency=case.rates.kv_tier.latency,
        compute=prefill.step_time,
        layers=case.model.num_hidden_layers if case.rates.layered_kv_transfer else 1,
    )
