"""Which stack and which engine a run has: as they are named, else the best stack on file that has the engine."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import SequenceMatcher

from perfmodel.errors import UsageError, nearest
from perfmodel.files.catalog import load_stack, load_system
from perfmodel.files.folders import is_path, names
from perfmodel.specs.base import Known
from perfmodel.specs.machine import EngineSpec, StackSpec, SystemSpec, links_lacking


@dataclass(frozen=True, slots=True, kw_only=True)
class Software:
    """The stack of a run, by the word that finds it; its engine, where the stack has any; what was chosen, in words."""

    stack: str
    engine: EngineSpec | None
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Having:
    """A stack, by the word that finds it, and an engine that it has."""

    word: str
    stack: StackSpec
    engine: EngineSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """An engine as it is asked for, and of what."""

    name: str
    version: str | None
    system: SystemSpec
    #: how an answer says where to change it, like ``--on``
    on: str

    @property
    def word(self) -> str:
        return self.name if self.version is None else f"{self.name}=={self.version}"


def software_of(
    system: str,
    *,
    stack: str | None = None,
    engine: str | None = None,
    own: str | None = None,
    option: str = "--stack",
    on: str = "--on",
) -> Software:
    """Return the stack and the engine of a run on a system, as they are named.

    An engine without a stack takes of the stacks on file that fit the system and have it: ``own``, by default the
    system's, if it is one of them, else the newest.  Without an engine it is the first of the stack.
    ``option`` and ``on`` are how stack and system are given.  Raises ``UsageError`` where the stack, or every stack of
    the system, is without the engine.
    """
    around = load_system(system).spec
    home = own or around.default_stack
    if engine is None:
        word = stack or home
        return Software(stack=word, engine=next(iter(load_stack(word).spec.engines), None))
    asked = _asked(engine, around, on)
    fitting = _fitting(around, (home,))
    if stack is None:
        having = _called(asked.name, fitting)
        if not having:
            raise UsageError(_nowhere(asked, fitting))
    else:
        known = load_stack(stack)
        if (why := _refused(asked, known, fitting, option)) is not None:
            raise UsageError(why)
        having = _called(asked.name, _engines(known.word, known.spec))
    of_version, remarks = _of_version(asked, having)
    taken, others = _best(of_version, load_stack(home).word)
    if stack is None:
        remarks += _chosen(asked, taken, others, load_stack(home).word, option)
    return Software(stack=taken.word, engine=taken.engine, remarks=tuple(remarks))


def kept_software(
    system: str, *, stack: str | None, engine: str | None, own: str, own_engine: str | None, option: str = "--stack"
) -> Software:
    """Return the stack and engine of a run that was set up before, with those that are given in place of its own.

    Its own engine is kept where the stack has it; else the stack's first takes its place, which is said.
    """
    if engine is not None or own_engine is None:
        return software_of(system, stack=stack, engine=engine, own=own, option=option)
    word = stack or own
    found = load_stack(word).spec.engines
    kept = next((one for one in found if own_engine in (one.word, one.name)), None)
    kept = kept or next((one for one in found if one.name.lower() == _name(own_engine)), None)
    if kept is not None or not found:
        return Software(stack=word, engine=kept)
    return Software(
        stack=word,
        engine=found[0],
        remarks=(
            f"engine {own_engine}: none of stack {word}; took {found[0].name}, its first; --engine takes another",
        ),
    )


def _name(text: str) -> str:
    return text.partition("==")[0].strip().lower()


def is_had(system: str, engine: str) -> bool:
    """Return whether a stack that fits a system has an engine, whatever its version."""
    return bool(_called(_name(engine), _fitting(load_system(system).spec)))


def engine_on(system: str, *, stack: str, engine: str, whose: str, again: str) -> Software:
    """Return an engine of a stack that cannot be another, because ``whose`` it is: as a plan's.

    Raises ``UsageError`` where the stack is without it, and says how to have it ``again`` with another stack.
    """
    known = load_stack(stack)
    held = _engines(known.word, known.spec)
    if _called(_name(engine), held):
        return software_of(system, stack=stack, engine=engine)
    asked = _asked(engine, load_system(system).spec, "--on")
    words = _nearest_first(asked.name, held)
    says = (
        f"engine {asked.name!r}: none of stack {known.word}, which {whose}; allowed, nearest first: "
        f"{', '.join(words) or 'none, no engine of it is on file'}"
    )
    if is_had(system, engine):
        raise UsageError(f"{says}; or search again with it, {again}")
    near = nearest(asked.name, words)
    guess = f"; did you mean {near!r}?" if near else ""
    others = _systems_with(asked.name)
    raise UsageError(f"{says}{guess}" + (f"; systems that have it: {', '.join(others)}" if others else ""))


def has_engine(stack: str, engine: str) -> bool:
    """Return whether a stack has an engine, whatever its version."""
    return any(one.name.lower() == _name(engine) for one in load_stack(stack).spec.engines)


def _systems_with(name: str) -> list[str]:
    """Return the systems on file of which a stack has an engine."""
    return [system for system in names("systems") if is_had(system, name)]


def _asked(text: str, system: SystemSpec, on: str) -> _Asked:
    name, equals, version = (part.strip() for part in text.partition("=="))
    if not name or "=" in name + version or bool(equals) != bool(version):
        raise UsageError(f"--engine: {text!r}; allowed: NAME or NAME==VERSION, like sglang or sglang==0.5")
    return _Asked(name=name.lower(), version=version.lower() or None, system=system, on=on)


def _engines(word: str, stack: StackSpec) -> list[_Having]:
    return [_Having(word=word, stack=stack, engine=engine) for engine in stack.engines]


def _called(name: str, having: Iterable[_Having]) -> list[_Having]:
    return [one for one in having if one.engine.name.lower() == name]


def _fitting(system: SystemSpec, beside: Iterable[str] = ()) -> list[_Having]:
    """Return the engines of all stacks on file that fit a system, and of some of the user's; none of the ideal one.

    A stack fits where it has every link of the system: it was measured on machines that have them.
    """
    return [one for known in stacks_that_fit(system, beside) for one in _engines(known.word, known.spec)]


def stacks_that_fit(system: SystemSpec, beside: Iterable[str] = ()) -> list[Known[StackSpec]]:
    """Return the stacks on file, and of some of the user's, that have every link of a system; not the ideal one."""
    words = dict.fromkeys((*names("stacks"), *(word for word in beside if is_path(word))))
    return [known for known in map(load_stack, words) if not known.spec.ideal and not links_lacking(system, known.spec)]


def _nearness(name: str, known: str) -> tuple[float, str]:
    return -SequenceMatcher(None, name, known).ratio(), known


def _nearest_first(name: str, having: Iterable[_Having]) -> list[str]:
    return sorted({one.engine.name for one in having}, key=lambda known: _nearness(name, known))


def _stacks(having: Iterable[_Having]) -> list[str]:
    return list(dict.fromkeys(one.word for one in having))


def _nowhere(asked: _Asked, fitting: list[_Having]) -> str:
    """Return why an engine that no stack of a system has is refused: which systems have it, and what this one has."""
    here = asked.system.name
    known = _nearest_first(asked.name, fitting)
    listed = f"allowed on {here}, nearest first: {', '.join(known)}" if known else f"no engine is on file for {here}"
    systems = _systems_with(asked.name)
    if systems:
        return (
            f"engine {asked.name!r}: no stack that fits {here} has it; {listed}; systems that have it: "
            f"{', '.join(systems)}; write --engine {known[0] if known else asked.name}, or {asked.on} {systems[0]}"
        )
    near = nearest(asked.name, known)
    fix = f"did you mean {near!r}?" if near else "write --engine with one of these"
    return f"engine {asked.name!r} is not on file; {listed}; {fix}"


def _refused(asked: _Asked, known: Known[StackSpec], fitting: list[_Having], option: str) -> str | None:
    """Return why an engine does not run on the stack given, and what to write; none where it does.

    The ideal stack has every engine, and runs those that some other stack of the system has.
    """
    stack, word, here = known.spec, known.word, asked.system.name
    held = _engines(word, stack)
    having = _stacks(_called(asked.name, fitting))
    lacking = links_lacking(asked.system, stack)
    if _called(asked.name, held):
        if not lacking and (having or not stack.ideal or not fitting):
            return None
        if not having:
            return _nowhere(asked, fitting)
        why = f"stack {word} does not fit {here}, of whose links it has no {', '.join(lacking)}"
    elif not having:
        return _nowhere(asked, fitting)
    else:
        listed = ", ".join(_nearest_first(asked.name, held))
        why = f"none of stack {word}, which has {listed or 'no engine on file'}"
    return (
        f"engine {asked.name!r}: {why}; allowed on {here}: stack {', '.join(having)}; write {option} {having[0]}, or "
        f"leave {option} out"
    )


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"[0-9]{1,9}", version))


def _apart(one: str, other: str) -> tuple[int, ...]:
    first, second = _numbers(one), _numbers(other)
    width = max(len(first), len(second))
    padded = ((*numbers, *(0,) * (width - len(numbers))) for numbers in (first, second))
    return tuple(abs(a - b) for a, b in zip(*padded, strict=True))


def _nearest_version(version: str, held: list[str]) -> str:
    """Return the next older or the next newer of some versions, oldest first; the older where both are as far."""
    older = [one for one in held if _numbers(one) <= _numbers(version)]
    newer = [one for one in held if _numbers(one) > _numbers(version)]
    return min((*older[-1:], *newer[:1]), key=lambda one: _apart(version, one))


def _of_version(asked: _Asked, having: list[_Having]) -> tuple[list[_Having], list[str]]:
    """Return those of the version asked for, a shorter one standing for the newest that begins with it, and remarks.

    Raises ``UsageError`` where versions are on file and none is it.
    """
    if asked.version is None:
        return having, []
    held = sorted({one.engine.version for one in having if one.engine.version is not None}, key=_numbers)
    if not held:
        return having, [f"engine {asked.word}: no version of {asked.name} is on file; took what is on file of it"]
    under = [one for one in held if one == asked.version or one.startswith(f"{asked.version}.")]
    if not under:
        nearest = _nearest_version(asked.version, held)
        known = ", ".join(
            f"{one} (stack {', '.join(_stacks(h for h in having if h.engine.version == one))})" for one in held
        )
        raise UsageError(
            f"engine {asked.word}: no such version on file for {asked.system.name}; known: {known}; nearest: "
            f"{nearest}; write --engine {asked.name}=={nearest}"
        )
    taken = asked.version if asked.version in under else under[-1]
    remarks = [] if taken == asked.version else [f"engine {asked.word}: took {taken}, the newest of these on file"]
    return [one for one in having if one.engine.version == taken], remarks


def _best(having: list[_Having], home: str) -> tuple[_Having, list[_Having]]:
    """Return the engine of the stack that comes first, and of those that are as good.

    The run's own stack comes first, then the newest, a stack without a date last; of an engine in several versions
    the newest.
    """

    def rank(one: _Having) -> tuple[bool, str, tuple[int, ...]]:
        return one.word == home, one.stack.date or "", _numbers(one.engine.version or "")

    best = max(map(rank, having))
    taken, *others = (one for one in having if rank(one) == best)
    return taken, others


def _chosen(asked: _Asked, taken: _Having, others: list[_Having], home: str, option: str) -> list[str]:
    """Return what is to be said of a stack that was taken for its engine."""
    if taken.word == home:
        return []
    remarks = [f"engine {asked.name}: took stack {taken.word}, which has it; {home} has not"]
    equal = [word for word in _stacks(others) if word != taken.word]
    if equal:
        remarks.append(f"stack {', '.join(equal)}: as new, and has {asked.name} too; {option} takes it")
    return remarks
