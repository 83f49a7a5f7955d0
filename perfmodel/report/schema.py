"""JSON Schemas of what programs read: a document of any command, a plan file, a run-spec."""

from typing import Any

from perfmodel.specs.plan import PlanSpec
from perfmodel.specs.run import RunSpec
from perfmodel.units import SPELLINGS

DIALECT = "https://json-schema.org/draft/2020-12/schema"
KINDS = ("document", "plan", "run")
#: form of a document -> facts that programs may rely on
FACTS = {
    "moeplan.step/1": (
        *("model", "system", "phase", "instance", "layout", "isl", "osl", "acceptance", "fits", "time_by_bound"),
        *("step_time_s", "step_time_interval_s", "tokens_per_s", "tokens_per_s_per_card"),
        *("memory_planned_B", "memory_usable_B", "stack", "engine"),
    ),
    "moeplan.solution/1": ("status", "stack", "engine"),
    "moeplan.compare/1": ("first", "second", "differences"),
    "moeplan.compare-systems/1": (
        *("model", "isl", "osl", "tpot_target_s", "ttft_target_s", "best", "verdict", "within_doubt", "systems"),
    ),
    "moeplan.requests/1": ("name", "requests", "skipped", "isl_mean", "osl_mean", "isl_cv", "osl_cv", "rate"),
    "moeplan.replay/1": (
        *("name", "model", "deployment", "serving", "stack", "engine", "routing", "seed", "requests", "requests_per_s"),
        *("running", "within_limits", "goodput_per_s", "utilisation", "ttft_s", "ttft_p99_s", "plan"),
    ),
    "moeplan.list/1": ("count",),
    "moeplan.show/1": ("kind", "name", "values"),
}


def _closed(**properties: Any) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _listed(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def document_schema() -> dict[str, Any]:
    """Return the schema of what ``--format json`` prints: SI numbers under columns that name their units."""
    text = {"type": "string"}
    column = _closed(key=text, title=text, unit={"enum": [None, "", "row", *SPELLINGS]})
    met = {"type": "boolean"}  # true where there is no limit; a verdict in words stands beside it
    row = {
        "type": "object",
        "properties": {"met": met},
        "additionalProperties": {"type": ["number", "string", "boolean", "null"]},
    }
    table = _closed(title=text, columns=_listed(column), rows=_listed(row), notes=_listed(text))
    form = {"type": "string", "pattern": r"^moeplan\.[a-z_-]+/[0-9]+$"}
    return {
        "$schema": DIALECT,
        "title": "What a command of moeplan prints with --format json",
        **_closed(
            schema=form,
            title=text,
            answer=_listed(_closed(what=text, answer=text)),
            facts={"type": "object", "properties": {"tpot_met": met}},
            tables=_listed(table),
            notes=_listed(text),
        ),
        "allOf": [
            {
                "if": {"properties": {"schema": {"const": name}}},
                "then": {"properties": {"facts": {"required": list(facts)}}},
            }
            for name, facts in FACTS.items()
        ],
    }


def schema_of(kind: str) -> dict[str, Any]:
    """Return the schema of a kind of ``KINDS``."""
    if kind == "document":
        return document_schema()
    spec = PlanSpec if kind == "plan" else RunSpec
    return {"$schema": DIALECT, **spec.model_json_schema()}
