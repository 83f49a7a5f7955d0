"""What a published row may state of a layout: its quantities, and the parts that a profile shows."""

from collections.abc import Collection, Sequence

from perfmodel.algebra import as_float
from perfmodel.errors import UsageError, did_you_mean
from perfmodel.prediction.breakdown import layer_on_the_mean_rank, main_layer, on_the_mean_rank
from perfmodel.prediction.scenario import Resolved, breakdown_of, ledger_of
from perfmodel.specs.evidence import PartOfStep


def parts_of_step(resolved: Resolved, parts: Sequence[PartOfStep]) -> dict[str, float]:
    """Return the time of each part of a step as a profile of a rank of mean load shows it.

    The scheduling gap between steps is outside of the profile.
    """
    plan, case = resolved.plan, resolved.scenario.case
    traffic = case.traffic
    busiest, mean = ledger_of(plan, case, traffic), ledger_of(plan, case, traffic.even())
    times = on_the_mean_rank(busiest, mean, plan.family, plan.layout.attention_cores, case.rates)
    times["overhead"] -= as_float(case.rates.host_gap)
    named = {name for part in parts for name in part.operators}
    rest = sum(time for name, time in times.items() if name not in named)
    return {
        part.name: rest if part.operators == ("*",) else sum(times.get(name, 0.0) for name in part.operators)
        for part in parts
    }


def parts_of_layer(resolved: Resolved, parts: Sequence[PartOfStep]) -> dict[str, float]:
    """Return the time of each part of an expert layer of one micro-batch on ranks of mean load.

    The busiest expert rank is waited for inside the exchange that ends the layer.
    """
    plan, case = resolved.plan, resolved.scenario.case
    busiest, mean = ledger_of(plan, case, case.traffic), ledger_of(plan, case, case.traffic.even())
    times, wait = layer_on_the_mean_rank(busiest, mean, plan.family, plan.layout.attention_cores, case.rates)
    return {
        part.name: sum(times.get(name, 0.0) + (wait if name == "exchange.combine" else 0.0) for name in part.operators)
        for part in parts
    }


def parts_of(resolved: Resolved, parts: Sequence[PartOfStep]) -> dict[str, float]:
    """Return the time of each part of a published profile, of a step or of a layer.

    Raises ``UsageError`` where a part names a row that the step has not.
    """
    plan, case = resolved.plan, resolved.scenario.case
    known = {op.name for ops in ledger_of(plan, case, case.traffic).parts.values() for op in ops}
    unknown = sorted({name for part in parts for name in part.operators} - known - {"*"})
    if unknown:
        raise UsageError(
            "\n".join(f"parts: {name!r} is no row of the step{did_you_mean(name, sorted(known))}" for name in unknown)
        )
    of_layer = [part for part in parts if part.of == "layer"]
    of_step = [part for part in parts if part.of == "step"]
    times = parts_of_layer(resolved, of_layer) if of_layer else {}
    return {**times, **(parts_of_step(resolved, of_step) if of_step else {})}


#: of a mixture-of-experts layer
OF_A_LAYER = ("layer_time", "attention_lane", "experts_lane")


def predicted(resolved: Resolved, wanted: Collection[str] | None = None) -> dict[str, float]:
    """Return every quantity that a published row may state, those of a layer only where they are ``wanted``."""
    point = resolved.point
    found = {
        "step_time": as_float(point.step_time),
        "latency": as_float(point.step_time),
        "ttft": as_float(resolved.scenario.case.rates.request_path + point.step_time),
        "tpot": as_float(point.tpot),
        "tokens_per_s_per_card": resolved.tokens_per_s_per_card,
    }
    if wanted is None or any(name in wanted for name in OF_A_LAYER):
        layer = main_layer(breakdown_of(resolved))
        each = resolved.plan.family.micro
        times = (layer.layer, layer.attention / each, layer.experts / each)
        found |= dict(zip(OF_A_LAYER, times, strict=True))
    return found
