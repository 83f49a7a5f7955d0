"""Why a change gains or loses: the rows of a step that moved most, and the batch."""

from dataclasses import replace

from perfmodel.errors import UsageError
from perfmodel.planning.best_batches import UNFELT, Outcome, is_same
from perfmodel.planning.pools import Pool, Run, resolved_of
from perfmodel.prediction.scenario import Resolved, breakdown_of
from perfmodel.specs.model import ModelSpec

SHOWN_ROWS = 2


def reason(before: Outcome, after: Outcome, other: Run, run: Run) -> str:
    """Return what moved: the two rows of a step that change most at the old batch, and the batch; or nothing."""
    words = []
    for phase, old in before.pools.items():
        new = after.pools[phase]
        if is_same(phase, before, after, run, other):
            continue
        now = _at_batch_of(old, other.pools[phase], run.model)
        words += _moved_rows(old, now, phase if len(before.pools) > 1 else "")
        if old.plan.layout.batch != new.plan.layout.batch:
            words.append(f"{phase} batch {old.plan.layout.batch} to {new.plan.layout.batch}")
    return "; ".join(words)


def _at_batch_of(old: Resolved, pool: Pool, model: ModelSpec) -> Resolved | None:
    kept = {"batch": old.plan.layout.batch}
    conditions = pool.conditions.model_copy(update={"layout": pool.conditions.layout.model_copy(update=kept)})
    try:
        return resolved_of(replace(pool, conditions=conditions), model)
    except UsageError:
        return None


def _times(resolved: Resolved) -> dict[str, tuple[float, str]]:
    parts = breakdown_of(resolved)
    times: dict[str, tuple[float, str]] = {}
    for row in parts.rows:
        before, _ = times.get(row.name, (0.0, ""))
        times[row.name] = (before + row.total, row.timed.bound)
    outside = {
        "gaps between operators": parts.gaps,
        "prefetched weights": -parts.prefetched,
        "weights still in L2": -parts.reused,
        "what overlaps": -parts.hidden,
        "host": parts.overhead,
        "measured at the site": parts.site,
    }
    times.update({name: (time, "") for name, time in outside.items() if time})
    times["step"] = (parts.step_time, "")
    return times


def _moved_rows(old: Resolved, new: Resolved | None, phase: str) -> list[str]:
    if new is None:
        return []
    before, after = _times(old), _times(new)
    step = before["step"][0]
    moves = {
        name: after.get(name, (0.0, ""))[0] - before.get(name, (0.0, ""))[0]
        for name in before.keys() | after.keys()
        if name != "step"
    }
    largest = sorted(moves, key=lambda name: (-abs(moves[name]), name))[:SHOWN_ROWS]
    words = []
    for name in largest:
        if abs(moves[name]) > UNFELT * step:
            bound = (before.get(name) or after[name])[1]
            times = [table.get(name, (0.0, ""))[0] * 1e3 for table in (before, after)]
            kind = f" ({bound})" if bound else ""
            words.append(f"{f'{phase} ' if phase else ''}{name} {times[0]:,.4g} to {times[1]:,.4g} ms a step{kind}")
    return words
