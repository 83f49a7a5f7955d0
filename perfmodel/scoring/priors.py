"""What is known of a number before anything is measured or published of it: by its class, never by a product."""

from dataclasses import dataclass
from math import exp
from typing import Any

from perfmodel.formulas.statistics import HALF_OF_90_PERCENT
from perfmodel.specs.kernels import (
    AllToAllKernel,
    BulkKernel,
    ChoiceKernel,
    CollectiveKernel,
    DecodeAttentionKernel,
    MatmulKernel,
    MessageKernel,
    PrefillAttentionKernel,
    VectorKernel,
)


@dataclass(frozen=True, slots=True)
class Prior:
    """What is known of a parameter before measuring: a value, its spread as a logarithm, and bounds."""

    value: float
    spread: float
    low: float
    high: float

    @property
    def ends(self) -> tuple[float, float]:
        """The ends of its 90 % range, cut at the bounds."""
        reach = exp(HALF_OF_90_PERCENT * self.spread)
        return max(self.low, self.value / reach), min(self.high, self.value * reach)


_START = Prior(5e-6, 3.0, 1e-7, 1e-3)
_COMPUTE = Prior(0.85, 0.15, 0.2, 1.0)
_STREAM = Prior(0.85, 0.15, 0.2, 1.0)

#: Priors by kind of kernel.  Starts are the vendor tool's static costs; shares are those of published
#: kernels and links (CloudMatrix384 tables 1, 8, 9 and 10); sizes are those of the hardware: rows of a
#: cube tile, tokens of a cache block, a sixth of an L2; one peer gets what a port of 196 GB/s writes at
#: that share.  Spreads are wide where nothing is published.
PRIORS: dict[type[Any], dict[str, Prior]] = {
    MatmulKernel: {
        "start": _START,
        "stream": _STREAM,
        "resident": Prior(32e6, 0.7, 1e6, 150e6),
        "resident_stream": Prior(1.2, 0.3, 0.5, 3),
        "compute": _COMPUTE,
        "overlap_rows": Prior(128, 0.7, 1, 1000),
        "activation_passes": Prior(1, 0.7, 0.01, 10),
    },
    DecodeAttentionKernel: {
        "start": Prior(20e-6, 0.7, 1e-6, 1e-3),
        "start_per_sequence": Prior(0.5e-6, 1.0, 1e-8, 1e-5),
        "stream": Prior(0.85, 0.3, 0.2, 1.0),
        "compute": Prior(0.65, 0.3, 0.2, 1.0),
        "overlap": Prior(0.7, 0.3, 0.01, 1.0),
        "block_tokens": Prior(512, 0.7, 16, 1e5),
    },
    PrefillAttentionKernel: {
        "start": Prior(20e-6, 0.7, 1e-6, 1e-3),
        "task_time": Prior(5e-6, 1.0, 1e-8, 1e-3),
        "compute": Prior(0.6, 0.5, 0.1, 1.0),
        "overhead_tokens": Prior(256, 1.0, 1, 4000),
        "spill": Prior(0.3, 1.0, 0.001, 5),
    },
    VectorKernel: {
        "start": Prior(2e-6, 1.0, 1e-7, 1e-4),
        "stream": Prior(0.6, 0.3, 0.1, 1.0),
        "compute": Prior(0.3, 0.5, 0.05, 1.0),
    },
    ChoiceKernel: {
        "start": Prior(4e-6, 1.0, 1e-7, 1e-4),
        "passes": Prior(4, 0.7, 1, 100),
    },
    CollectiveKernel: {
        "start": Prior(2e-6, 1.0, 1e-7, 1e-3),
        "start_per_pair": Prior(0.1e-6, 1.0, 1e-9, 1e-5),
        "peer_rate": Prior(20e9, 1.0, 1e9, 5e11),
        "push_rate": Prior(50e9, 1.0, 1e9, 5e11),
        "pair_rate": Prior(137e9, 0.3, 1e9, 5e11),
        "bulk_start": Prior(130e-6, 0.7, 1e-6, 1e-2),
        "bulk_start_per_peer": Prior(10e-6, 1.0, 1e-8, 1e-3),
        "bulk_overlap": Prior(0.7, 0.5, 0.01, 1.0),
        "read_share": Prior(0.85, 0.1, 0.3, 1.0),
        "write_share": Prior(0.7, 0.1, 0.3, 1.0),
        "package_share": Prior(0.95, 0.05, 0.3, 1.0),
    },
    AllToAllKernel: {
        "start": Prior(5e-6, 1.0, 1e-7, 1e-3),
        "start_per_doubling": Prior(3e-6, 1.0, 1e-8, 1e-3),
        "link_share": Prior(0.8, 0.2, 0.2, 1.0),
        "overlap": Prior(0.5, 0.5, 0.01, 1.0),
        "spill_passes": Prior(2, 0.7, 0.05, 10),
    },
    MessageKernel: {
        "start": Prior(18e-6, 0.3, 1e-6, 1e-3),
        "per_message": Prior(100e-9, 0.7, 1e-9, 1e-5),
    },
    BulkKernel: {
        "start": Prior(50e-6, 0.5, 1e-6, 1e-2),
        "link_share": Prior(0.6, 0.5, 0.05, 1.0),
        "peers_at_half": Prior(128, 1.0, 1, 1e5),
    },
}

#: Priors of numbers of a stack, of terms and of links that no operator shows, by what they are.
#: A framework written in Python spends from a part of a millisecond to some milliseconds between steps, and as long to
#: start a graph; a link gives from half of its pin rate to nearly all; experts drawn by their own logits differ by a
#: factor of some e^1.5; half of what may overlap does, give or take.
OUTSIDE_OPERATORS: dict[str, Prior] = {
    "link_hidden": Prior(0.5, 0.5, 0.05, 1.0),
    "link_efficiency": Prior(0.8, 0.2, 0.3, 1.0),
    "overhead.decode_host_gap": Prior(2e-3, 0.7, 1e-5, 5e-2),
    "overhead.prefill_host_gap": Prior(5e-3, 0.7, 1e-5, 5e-2),
    "overhead.graph_launch": Prior(0.5e-3, 0.7, 1e-6, 5e-3),
    "overhead.sampling": Prior(0.5e-3, 0.5, 1e-5, 1e-2),
    "overhead.request_path": Prior(80e-3, 0.6, 1e-3, 2.0),
    "overhead.draft_gap": Prior(1e-3, 0.7, 1e-6, 1e-2),
    "host_bandwidth": Prior(20e9, 0.7, 1e9, 1e11),
    "pool_bandwidth": Prior(2e9, 1.2, 1e8, 5e10),
    "outer_overlap": Prior(0.5, 0.7, 0.01, 1.0),
    "latency": Prior(2e-6, 0.5, 1e-7, 1e-4),
    "skew": Prior(1.1, 0.3, 0.3, 2.5),
    "variety": Prior(1.5, 0.2, 0.5, 2.5),
    "residual": Prior(0.12, 0.4, 0.0, 1.0),
    "dispatch_in_place": Prior(1.1, 0.08, 1.0, 2.0),
    "combine_in_place": Prior(1.1, 0.08, 1.0, 2.0),
    "decode_gap": Prior(1.02, 0.02, 1.0, 1.2),
    "prefill_gap": Prior(1.06, 0.03, 1.0, 1.3),
}
