"""Where are the forms of queues known to be wrong: reasons in plain words; there, replay the requests."""

_SPREAD = 1.0
_LONG_PROMPTS = 0.03
_NEARLY_EQUAL = 0.1
_BURSTS = 2.0
_UNTESTED = 4.0
_HEAVY = 0.8
_HEAVY_CONTEXTS = 0.3
_FULL = 0.95


def _load(load: float, peak_load: float) -> list[str]:
    if load >= 1:
        return [f"load {load:.2f} of capacity: the queue grows without end"]
    found = []
    if load > _FULL:
        found.append(f"load {load:.2f}: waits near capacity hang on chance, and the forms were not tested there")
    if peak_load >= 1:
        found.append(
            f"the busiest window has {peak_load:.2f} of capacity: its backlog is in no form, the median least of all"
        )
    return found


def prefill_out_of_range(
    *,
    load: float,
    peak_load: float,
    ranks: int,
    instances: int,
    work_scv: float,
    long_prompts: float,
    slots: float,
    arrival_cv: float,
    least_work: bool,
) -> tuple[str, ...]:
    """Return why forms of a prefill pool's time to first token do not hold; nothing where they do.

    ``peak_load`` is the load of the busiest window, ``work_scv`` the squared variation of a prompt's work,
    ``long_prompts`` the share of prompts longer than the budget, ``slots`` the prompts that a budget holds on average,
    ``arrival_cv`` the variation of gaps; ``least_work``: requests go to the instance with least outstanding work.

    Source: own simulations of two pools, 60,000 requests a case.

    >>> prefill_out_of_range(load=0.6, peak_load=0.7, ranks=8, instances=4, work_scv=0.0, long_prompts=0.0, slots=4.0,
    ...                      arrival_cv=1.0, least_work=False)
    ()
    """
    found = _load(load, peak_load)
    if ranks > 1 and work_scv > _SPREAD:
        found.append(
            f"{ranks} ranks in step and work of squared variation {work_scv:.1f}: mean within 25 %, median up to 90 % "
            "high at light load, p99 up to 70 % low"
        )
    elif work_scv > _NEARLY_EQUAL:
        found.append(
            f"prompts of squared variation {work_scv:.1f}: the chain and its percentiles hold for equal ones alone"
        )
    if ranks > 1 and long_prompts > _LONG_PROMPTS:
        found.append(
            f"{100 * long_prompts:.0f} % of prompts are longer than the budget of a rank: steps of others wait for them"
        )
    if slots < 1:
        found.append("a prompt fills more than a step of its rank: the chain serves whole prompts")
    elif slots - int(slots) > _NEARLY_EQUAL * slots:
        found.append(f"a budget holds {slots:.2f} prompts: the chain serves {int(slots)}, and its capacity is low")
    if arrival_cv > _UNTESTED:
        found.append(f"gaps of variation {arrival_cv:.1f}: tested to 4")
    elif arrival_cv > _BURSTS and ranks == 1 and instances == 1 and load >= _HEAVY:
        found.append("bursts on one rank at heavy load: up to 40 % low")
    if least_work and ranks > 1 and work_scv > _SPREAD:
        found.append("least outstanding work with long prompts on ranks in step: forms up to 4 times high")
    elif least_work and arrival_cv > 1 and ranks == 1:
        found.append("least outstanding work under bursts on instances of one rank: median 40 % off")
    if not least_work and ranks == 1 and instances > 1:
        found.append(
            "in turn over instances of one rank: gaps there are even, the chain is up to twice high, means by 25 %"
        )
    return tuple(found)


def decode_out_of_range(
    *,
    load: float,
    peak_load: float,
    ranks: int,
    arrival_cv: float,
    sequence_scv: float,
    waits_for_slots: bool,
    drafts: bool,
) -> tuple[str, ...]:
    """Return why forms of a decode pool do not hold; nothing where they do.

    ``sequence_scv`` is the squared variation of one sequence's time (:func:`decode_queue.sequence_scv`);
    ``waits_for_slots``: requests wait until a slot of the batch is free; ``drafts``: tokens a step are random.

    Source: own simulations of three pools.

    >>> decode_out_of_range(load=0.6, peak_load=0.7, ranks=16, arrival_cv=1.0, sequence_scv=0.1,
    ...                     waits_for_slots=False, drafts=False)
    ()
    """
    found = _load(load, peak_load)
    if waits_for_slots and (arrival_cv > 1 or peak_load > load):
        found.append("waits for slots: up to 2.7 times low under bursts, far more where load drifts")
    if arrival_cv > _UNTESTED:
        found.append(f"gaps of variation {arrival_cv:.1f}: tested to 4")
    elif arrival_cv > _BURSTS and ranks == 1:
        found.append("bursts on one rank: p99 up to 35 % off either way")
    if sequence_scv > _HEAVY_CONTEXTS and ranks > 1:
        found.append(
            f"contexts of heavy tails (squared variation {sequence_scv:.1f} of a sequence's time) on ranks in step: "
            "p99 up to 30 % low at light load"
        )
    if drafts:
        found.append("drafts make the tokens of a step random: their spread is in no percentile")
    return tuple(found)


def mixed_out_of_range(
    *,
    load: float,
    peak_load: float,
    arrival_cv: float,
    ranks: int,
    long_prompts: float,
    percentiles: bool,
    waves: float,
    one_cycle: bool,
) -> tuple[str, ...]:
    """Return why forms of mixed serving do not hold; nothing where they do.

    ``long_prompts`` is the share of prompts longer than the budget, ``waves`` requests over clients of a closed loop,
    infinite for open arrivals; ``one_cycle``: outputs are nearly alike, so that the first wave comes round again.

    Source: own simulations of one engine.

    >>> mixed_out_of_range(load=0.6, peak_load=0.6, arrival_cv=1.0, ranks=1, long_prompts=0.0, percentiles=False,
    ...                    waves=10.0, one_cycle=False)
    ()
    """
    found = _load(load, peak_load)
    if percentiles:
        found.append("percentiles of mixed serving have no form")
    if long_prompts > _LONG_PROMPTS:
        found.append("prompts longer than a step's budget: gaps and first tokens up to 30 % low at heavy load")
    if ranks > 1:
        found.append(f"{ranks} ranks in step share a mixed step: forms were tested on one")
    if arrival_cv > 1:
        found.append(f"gaps of variation {arrival_cv:.1f}: mixed forms were tested with Poisson arrivals")
    if one_cycle:
        found.append(
            "the first wave of clients comes round again: time to first token of later waves is up to 40 % low"
        )
    if waves < 2:
        found.append("fewer than two waves of clients: the benchmark measures its own start")
    return tuple(found)
