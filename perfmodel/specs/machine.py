"""The machine: a die, the package it sits in, the system of tiers around it, the software stack on it.

A die is one compute die; a package is what is bought and called a card (910B: one die, 910C: two).
Peaks are facts of the die; efficiencies and fixed costs are facts of the stack; they meet in
``perfmodel.supply.rates``.
"""

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from pydantic import Field, StringConstraints, model_validator

from perfmodel.algebra import as_float
from perfmodel.specs.base import (
    LEAST,
    PositiveBytes,
    PositiveCount,
    PositiveFlop,
    PositiveHertz,
    PositiveNumber,
    PositiveParts,
    PositiveRate,
    PositiveWatts,
    Source,
    Spec,
)
from perfmodel.specs.kernels import Link
from perfmodel.specs.precision import BlockForm
from perfmodel.units import Bytes, Dimensionless, Fraction, PerSecond, Seconds, Unit

Share = Annotated[Fraction, Le(1.0)]
PositiveShare = Annotated[Fraction, Gt(0.0), Ge(LEAST), Le(1.0)]


#: spreads stand in exponents
Spread = Annotated[Dimensionless, Le(10.0)]


class CubeWork(Spec):
    """FLOP of one cube core in one cycle (a multiply-add counts two)."""

    bf16: PositiveFlop
    int8: PositiveFlop
    #: left out where the core has no unit of the kind
    fp8: PositiveFlop | None = None
    fp4: PositiveFlop | None = None


class VectorWork(Spec):
    """FLOP of one vector core in one cycle."""

    fp16: PositiveFlop
    fp32: PositiveFlop


class Hbm(Spec):
    """Memory of one die."""

    capacity: PositiveBytes
    bandwidth: PositiveRate
    #: bytes one cube core can stream per cycle; cores x this x clock can lie below the pin rate
    core_bytes_per_cycle: PositiveBytes
    #: share of the capacity that a framework sees; the rest is the driver's
    reported: PositiveShare = 1.0


class L2(Spec):
    """Second-level cache of one die, with the rate of one core."""

    capacity: PositiveBytes
    core_read_bytes_per_cycle: PositiveBytes
    core_write_bytes_per_cycle: PositiveBytes


class Buffers(Spec):
    """On-core buffers."""

    l0a: PositiveBytes
    l0b: PositiveBytes
    l0c: PositiveBytes
    l1: PositiveBytes
    ub: PositiveBytes


class DieSpec(Spec):
    """One compute die."""

    cube_cores: PositiveParts
    vector_cores: PositiveParts
    clock: PositiveHertz
    cube_flop_per_cycle: CubeWork
    vector_flop_per_cycle: VectorWork
    #: forms with scales of blocks that its units multiply as they are
    block_forms: tuple[BlockForm, ...] = ()
    hbm: Hbm
    l2: L2
    buffers: Buffers | None = None


class PackageSpec(Spec):
    """One package (card): how many dies it holds."""

    dies: PositiveParts


class Headline(Spec):
    """Vendor's headline rates of one die, which include the vector cores; for comparison only."""

    fp16: Annotated[object, Unit("FLOP/s")]
    int8: Annotated[object, Unit("FLOP/s")]


class ChipSpec(Spec):
    """A chip in one bin."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    #: an ambiguous name that this bin is one variant of
    family: str | None = None
    family_default: bool = False
    die: DieSpec
    package: PackageSpec
    headline: Headline | None = None
    sources: dict[str, Source]


class TierSpec(Spec):
    """One level of the network: the dies it joins and what each die may send over it, one way."""

    name: Literal["package", "node", "supernode", "scale_out"]
    link: Link
    #: dies joined at this level, inner levels included
    dies: PositiveParts
    bandwidth: PositiveRate
    latency: Seconds
    #: through a switch any pair has the whole bandwidth; in a mesh each peer has its own equal part of it
    fabric: Literal["switch", "mesh"] = "switch"


class SystemSpec(Spec):
    """A named machine: memory size, link form and chip bin are all fixed by the name."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    #: an ambiguous name that this system is one variant of
    family: str | None = None
    family_default: bool = False
    chip: str
    packages_per_server: PositiveParts
    #: packages that one instance may span: a supernode's, or a server group's
    max_packages: PositiveParts
    #: most that a server takes in, where a source states it
    server_power: PositiveWatts | None = None
    tiers: tuple[TierSpec, ...] = Field(min_length=1)
    #: name of the tier that carries the KV cache from prefill to decode
    kv_transfer_tier: Literal["package", "node", "supernode", "scale_out"]
    default_stack: str

    @model_validator(mode="after")
    def _tiers_fit(self) -> "SystemSpec":
        names = [tier.name for tier in self.tiers]
        if self.kv_transfer_tier not in names:
            raise ValueError(f"kv_transfer_tier {self.kv_transfer_tier!r}; allowed: one of {', '.join(names)}")
        sizes = [as_float(tier.dies) for tier in self.tiers]
        if sizes != sorted(sizes):
            raise ValueError(f"tiers hold {sizes} dies; allowed: from the innermost outwards, never fewer")
        return self

    sources: dict[str, Source]


class LinkEfficiencies(Spec):
    """Share of a link's one-way pin rate that transfers reach, for the links of the systems it runs on."""

    sio: PositiveShare | None = None
    ub: PositiveShare | None = None
    hccs: PositiveShare | None = None
    nvlink: PositiveShare | None = None
    pcie: PositiveShare | None = None
    roce: PositiveShare | None = None
    infiniband: PositiveShare | None = None


class StepOverheads(Spec):
    """Time of a step outside its operators."""

    decode_host_gap: Seconds
    prefill_host_gap: Seconds
    #: time of the host to start one graph: a decode step has one, and one more for each draft
    graph_launch: Seconds
    sampling: Seconds
    #: what each draft adds besides, where it is a step of the framework of its own
    draft_gap: Seconds = 0.0
    #: time of the host to start one kernel, where it starts each by itself
    kernel_launch: Seconds = 0.0
    #: of a request that a client sends, before and after its steps: HTTP, tokens, schedule, stream
    request_path: Seconds = 0.0


class PriorsSpec(Spec):
    """Terms that ``moeplan calibrate --evidence`` fits, before the fit; each states a range."""

    residual: Dimensionless | None = None
    decode_gap: Dimensionless | None = None
    prefill_gap: Dimensionless | None = None


class LeftOut(Spec):
    """Spread of what the model leaves out, as a logarithm: of a source as a whole, and of each of its rows besides."""

    source: Spread
    row: Spread


class LeftOutBy(Spec):
    """That of runs by a loop that feeds full batches, of engines that a client measured, and of first tokens.

    A first token under a load waits for what an engine's scheduler does with others, of which more is left out.
    """

    driver: LeftOut
    service: LeftOut
    first_token: LeftOut
    #: besides, of a source whose model has attention of which no kernel is measured
    unmeasured_attention: Spread = 0.0


class TermsSpec(Spec):
    """What no table of operators shows: terms of a step in service, the same for every stack that names them."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    #: spread of the logarithm of an expert's lasting popularity
    skew: Spread
    #: spread of the logarithm of real over foreseen popularity, at most the skew: what placement does not even out
    residual: Spread
    #: spread of the logarithm of what one sequence makes of an expert's popularity
    variety: Spread
    #: 1 where requests are handed to ranks without a look at their lengths, 0 where ranks have equal contexts
    context_spread: Share = 1.0
    #: cost of a message of dispatch and combine beside other work, over its cost alone
    dispatch_in_place: PositiveNumber
    combine_in_place: PositiveNumber
    #: time of a step's layers over the sum of their operators
    decode_gap: PositiveNumber
    prefill_gap: PositiveNumber
    #: time of a step at the user's site over the prediction, where rows were measured there
    decode_site: PositiveNumber | None = None
    prefill_site: PositiveNumber | None = None
    #: what the model leaves out: scales of Student's t with six degrees of freedom
    left_out: LeftOutBy
    #: what was known of the terms that are fitted to published steps, before the fit
    priors: PriorsSpec | None = None
    sources: dict[str, Source]


class MemorySpec(Spec):
    """What of the memory that a framework sees an engine takes, what of it is not the plan's, and what comes on top."""

    utilization: PositiveShare
    #: taken beside weights, cache, activations and exchange buffers
    runtime: Bytes
    #: least that is kept for activations, as measured at start on the largest step
    activations: Bytes = 0.0
    #: of captured graphs, on top of the engine's share
    graphs: Bytes = 0.0
    kv_block_tokens: PositiveCount


class StackTechnique(Spec):
    """A technique that a stack has, the setting it comes in, and where that is said."""

    name: str
    setting: str
    source: str
    note: str | None = None


class EngineSpec(Spec):
    """How an engine on the stack schedules, and where that is said."""

    name: str
    #: of the engine, where what is said is said of one
    version: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._+-]{0,39}$")] | None = None
    #: what instances do that run both phases: prompts in pieces beside decode, or before it
    mixed: Literal["chunked", "prefill_first"]
    #: tokens of a data-parallel rank in one step
    token_budget: PositiveCount
    #: requests that a data-parallel rank runs at once; open: as many as its cache holds
    max_running: PositiveCount | None = None
    #: steps that a prompt waits until all ranks of an instance have one, where the engine has them begin together
    align_steps: PositiveCount | None = None
    source: str
    note: str | None = None

    @property
    def word(self) -> str:
        """Name, and version where it has one, as ``--engine`` takes them."""
        return self.name if self.version is None else f"{self.name}=={self.version}"


class StackSpec(Spec):
    """A software stack: the kernels it uses and the overheads around them, apart from the peaks."""

    name: str
    title: str
    aliases: tuple[str, ...] = ()
    #: year, or year and month, of the newest software that its numbers are of; of stacks that have an engine the newest
    #: is taken
    date: Annotated[str, StringConstraints(pattern=r"^20[0-9]{2}(-(0[1-9]|1[0-2]))?$")] | None = None
    #: all efficiencies 1: the pin rate is then the one memory roof and links have no latency
    ideal: bool = False
    layered_kv_transfer: bool
    #: part of the shorter of compute and link time that two micro-batches hide under overlap "link"
    link_hidden: Share
    #: whether the weights that follow an exchange are brought to L2 while it runs
    weight_prefetch: bool
    #: whether the host starts every kernel by itself; else a graph starts them all
    eager: bool = False
    #: the same of prefill alone: engines capture graphs of the few sizes that decode has
    eager_prefill: bool = False
    #: part of a kernel's start that is left where kernels are merged into one task
    start_share: Share = 1.0
    #: what a die reads of the host's memory, and of a pool of caches of earlier prompts; open where never used
    host_bandwidth: PositiveRate | None = None
    pool_bandwidth: PositiveRate | None = None
    #: requests a second that one front-end process takes, and how many a prefill instance has; open: no limit
    frontend_rate: PerSecond | None = None
    frontends: PositiveCount | None = None
    #: techniques of the catalogue that the stack has, each with the setting it comes in
    techniques: tuple[StackTechnique, ...] = ()
    #: engines that run on it, the one it comes with first
    engines: tuple[EngineSpec, ...] = ()
    #: terms of a step in service
    terms: str
    #: kernel sets, the first that has an operator class gives it
    kernels: tuple[str, ...] = Field(min_length=1)
    #: share of a link's one-way pin rate that transfers reach where no kernel says
    link_efficiency: LinkEfficiencies
    overhead: StepOverheads
    memory: MemorySpec
    sources: dict[str, Source]


def links_lacking(system: SystemSpec, stack: StackSpec) -> list[str]:
    """Return the links of a system that a stack says nothing of: it fits where there are none."""
    links = dict.fromkeys(tier.link for tier in system.tiers)
    return [link for link in links if getattr(stack.link_efficiency, link) is None]
