"""What a run may be computed and cached in: refused where a die has no unit for it, told where something stands in."""

from perfmodel.ledger.records import ENGINE_OF, KERNELS_OF
from perfmodel.specs.kernels import MatmulKernel
from perfmodel.specs.model import ModelSpec
from perfmodel.specs.precision import CACHES, PRECISIONS, CubeUnit, PrecisionForm, form_of, keys_of
from perfmodel.supply.rates import Rates


def _no_unit(unit: CubeUnit, rates: Rates) -> str | None:
    return None if ENGINE_OF[unit] in rates.cubes else f"has no {unit.upper()} unit"


def lacking_unit(form: PrecisionForm, rates: Rates) -> str | None:
    """Return what a die lacks for a precision, or nothing where it has all."""
    scales = [name.upper() for name in form.scaled_forms if name not in rates.block_forms]
    reason = _no_unit(form.unit, rates)
    return reason or (f"has no unit that takes the scales of {' and '.join(scales)}" if scales else None)


def allowed_precisions(rates: Rates) -> list[str]:
    """Return the precisions that a die has units for."""
    return [name for name, form in PRECISIONS.items() if lacking_unit(form, rates) is None]


def allowed_caches(rates: Rates) -> list[str]:
    """Return the precisions of a cache that a die has units for."""
    return [name for name, form in CACHES.items() if _no_unit(form.unit, rates) is None]


def precision_faults(precision: str, kv_dtype: str, expert_weights: str, rates: Rates) -> list[str]:
    """Return why a die cannot run a precision or hold a cache, each as "found; allowed; fix"."""
    faults = []
    form = form_of(precision, expert_weights)
    if expert_weights != "int8" and keys_of(form.name)["expert_weights"] != expert_weights:
        faults.append(f"expert_weights: {expert_weights} with precision {precision}; allowed: with w8a8")
    if (reason := lacking_unit(form, rates)) is not None:
        allowed = allowed_precisions(rates)
        widened = [name for name in allowed if PRECISIONS[name].widens_experts]
        narrow = f" ({_listed(widened)} hold weights in 4 bits and widen them)" if form.unit == "fp4" else ""
        faults.append(
            f"precision: {form.name}, but die {rates.die} {reason}; allowed: {', '.join(allowed)}{narrow}; write "
            f"--precision {allowed[0]}"
        )
    if (reason := _no_unit(CACHES[kv_dtype].unit, rates)) is not None:
        caches = allowed_caches(rates)
        faults.append(
            f"kv_dtype: {kv_dtype}, but die {rates.die} {reason}; allowed: {', '.join(caches)}; write --kv {caches[-1]}"
        )
    return faults


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def stored_otherwise(model: ModelSpec, form: PrecisionForm, rates: Rates) -> str | None:
    """Return a remark where a model's checkpoint is stored in a precision that the die has and the run is in another.

    Experts and activations decide; of precisions that have both, those with other weights as they are stored too,
    where there are any.
    """
    shipped = model.shipped
    if shipped is None:
        return None
    stored = [
        one
        for one in PRECISIONS.values()
        if one.experts.name.partition("_")[0] == shipped.experts and one.activations.name == shipped.activations
    ]
    exact = [one for one in stored if one.weights.name.partition("_")[0] == shipped.others]
    stored = exact or stored
    if form in stored or not any(lacking_unit(one, rates) is None for one in stored):
        return None
    apart = "" if shipped.others == shipped.experts else f" (other weights {shipped.others})"
    fits = next(one.name for one in stored if lacking_unit(one, rates) is None)
    return (
        f"stored in {shipped.experts}{apart}; this run computes {form.name}; --precision {fits} computes what is stored"
    )


def stand_ins(form: PrecisionForm, rates: Rates) -> list[str]:
    """Return a remark for each part of a precision of which no kernel is on file, and what stands in."""
    remarks, engine = [], ENGINE_OF[form.unit]
    if form.unit == "fp4":
        remarks.append(
            f"precision {form.name}: no kernel of {form.unit.upper()} products is on file; shares of a peak and costs "
            f"of those in {KERNELS_OF[engine].upper()} stand in, assumed"
        )
    kernel = rates.kernel("grouped_matmul_int8", MatmulKernel)
    if form.widens_experts and kernel.unpack_operations is None:
        remarks.append(
            f"precision {form.name}: the kernels on file say nothing of widening weights; it is taken to cost what "
            "writing them to L2 does, which errs fast"
        )
    return remarks
