"""The document of the terms fitted to published steps."""

import math
from collections.abc import Iterable

from perfmodel.algebra import as_float
from perfmodel.report.quantity import range_in_words
from perfmodel.report.table import Column, Document, Table
from perfmodel.scoring.evidence_fit import EvidenceFit
from perfmodel.scoring.spreads import FittedSpread
from perfmodel.specs.machine import LeftOutBy


def evidence_fit_document(
    fit: EvidenceFit, on_file: dict[str, float], spreads: Iterable[FittedSpread], left_out: LeftOutBy
) -> Document:
    """Return priors, fitted values and errors before and after, and what the model leaves out.

    ``on_file`` and ``left_out`` are the values that predictions use.
    """
    terms = Table(
        "Terms fitted to published steps",
        (
            Column("term", "term"),
            Column("prior", "prior"),
            Column("prior_range", "90 % range"),
            Column("source", "source of the prior", spare=1),
            Column("fitted", "fitted"),
            Column("range", "90 % range"),
            Column("on_file", "on file"),
        ),
        tuple(
            {
                "term": term.name,
                "prior": f"{term.prior.value:.4g}",
                "prior_range": range_in_words(term.prior.low, term.prior.high),
                "source": term.prior.note,
                "fitted": f"{term.value:.4g}",
                "range": range_in_words(term.low, term.high),
                "on_file": f"{on_file[term.name]:.4g}",
            }
            for term in fit.terms
        ),
    )
    rows = Table(
        "Golden rows that they were fitted to; above is slow",
        (Column("row", "row"), Column("before", "error at the priors", "%"), Column("after", "error fitted", "%")),
        tuple(
            {"row": row, "before": before, "after": after}
            for row, before, after in zip(fit.rows, fit.before, fit.after, strict=True)
        ),
    )
    beyond = Table(
        "What the model leaves out: scales of Student's t, of the logarithm of time",
        (
            Column("measured_on", "measured on"),
            Column("part", "spread of"),
            Column("fitted", "fitted"),
            Column("on_file", "on file"),
            Column("numbers", "numbers", "1"),
            Column("sources", "sources", "1"),
        ),
        tuple(
            {
                "measured_on": one.measured_on,
                "part": part,
                "fitted": f"{getattr(one, part):.3f}",
                "on_file": f"{as_float(getattr(getattr(left_out, one.measured_on), part)):.3f}",
                "numbers": one.rows,
                "sources": one.sources,
            }
            for one in spreads
            for part in ("source", "row")
        ),
        ("the likeliest, of published numbers predicted without their source and what was read off it",),
    )
    rms = math.sqrt(sum(error * error for error in fit.after) / len(fit.after))
    return Document(
        schema="moeplan.evidence_fit/1",
        title="Terms of a step in service",
        tables=(terms, beyond, rows),
        facts={"fitted_terms": len(fit.terms), "rows": len(fit.rows), "root_mean_square_error": rms},
        notes=(
            f"{len(fit.terms)} terms fitted once to {len(fit.rows)} golden rows together, rows of one source and phase "
            f"weighing as one; root mean square error {100 * rms:.1f} %",
        ),
    )
