"""Published gains of techniques beside the predicted ones, and the catalogue, as a document."""

from collections.abc import Sequence
from typing import Any

from perfmodel.report.table import Column, Document, Table, answer_table, in_part
from perfmodel.scoring.gains import SIZE, ScoredGain
from perfmodel.specs.technique import Applies, Gain, TechniqueSpec

FEW = 3  # techniques that are all shown


def _conditions(gain: Gain) -> str:
    changes = {**{k: v for k, v in gain.change.items() if k != "layout"}, **gain.change.get("layout", {})}
    words = ", ".join(f"{key} {value}" for key, value in {**changes, **gain.beside}.items())
    base = f"{gain.base} with {words}" if words else gain.base
    return f"{base} ({gain.stands_in})" if gain.stands_in else base


def _row(one: ScoredGain) -> dict[str, Any]:
    gain = one.gain
    size = "not counted" if not gain.scored else "yes" if one.size_right else "no"
    return {
        "technique": one.technique.spec.name,
        "printed": gain.printed,
        "source": gain.source,
        "change": f"{gain.off} to {gain.on}",
        "quantity": gain.quantity.removeprefix("time:"),
        "published": gain.value,
        "predicted": one.predicted,
        "unit": "%" if gain.unit == "1" else gain.unit,
        "sign": "yes" if one.sign_right else "no",
        "size": size,
        "conditions": _conditions(gain),
        "explained": gain.explained or "",
    }


def _applies(applies: Applies) -> str:
    """Return where a technique can act, in words."""
    words = [" and ".join(applies.phases)]
    if len(applies.attention) == 1:
        words.append(f"{applies.attention[0]} attention")
    if applies.links:
        words.append(f"{' or '.join(applies.links)} links")
    if applies.tp_over:
        words.append(f"tp over {applies.tp_over}")
    words += [
        text for text, needed in (("drafts", applies.drafts), ("a shared expert", applies.shared_expert)) if needed
    ]
    words += [f"{key} {' or '.join(map(str, allowed))}" for key, allowed in applies.layout.items()]
    return ", ".join(words)


def catalogue_table(techniques: Sequence[TechniqueSpec]) -> Table:
    """Return what every technique is, where it acts and applies, who decides it, and what was published."""
    rows = tuple(
        {
            "technique": spec.name,
            "title": spec.title,
            "acts_on": spec.acts_on,
            "settings": ", ".join(spec.settings),
            "by": "traffic" if spec.traffic else "layout" if spec.free else "stack",
            "applies": _applies(spec.applies),
            "source": spec.named_by or ", ".join(dict.fromkeys(gain.source for gain in spec.gains)),
            "published": spec.published or "; ".join(gain.printed for gain in spec.gains),
        }
        for spec in techniques
    )
    columns = (
        Column("technique", "technique"),
        Column("title", "what it is"),
        Column("acts_on", "where it acts"),
        Column("settings", "settings"),
        Column("by", "decided by", spare=1),
        Column("applies", "applies to", spare=2),
        Column("source", "named by", spare=3),
        Column("published", "published effect", spare=4),
    )
    return Table("Techniques", columns, rows)


def _answer(signs: int, every: int, right: int, counted: int) -> Table:
    """Return how many published gains are predicted with the right sign, and within a third."""
    rows = [("answer", f"{every} published gains, {signs} predicted with the right sign")]
    if counted:
        rows.append(("size", f"{right} of {counted} that count within {SIZE:.0%} of the published value"))
    return answer_table([*rows, ("next", "moeplan gains NAME, moeplan what-if PLAN, --show gains")])


def gains_document(scored: Sequence[ScoredGain], techniques: Sequence[TechniqueSpec]) -> Document:
    """Return every published gain with its prediction, the share that is right, and the catalogue."""
    counted = [one for one in scored if one.gain.scored]
    right = sum(one.size_right for one in counted)
    signs = sum(one.sign_right for one in scored)
    columns = (
        Column("technique", "technique"),
        Column("printed", "published as"),
        Column("published", "published", "row"),
        Column("predicted", "predicted", "row"),
        Column("unit", "unit"),
        Column("sign", "sign right"),
        Column("size", "within a third"),
        Column("source", "source", spare=2),
        Column("change", "setting", spare=3),
        Column("quantity", "of", spare=4),
        Column("conditions", "conditions", spare=6),
        Column("explained", "why it is off", spare=5),
    )
    share = right / len(counted) if counted else None
    return Document(
        schema="moeplan.gains/1",
        title="Techniques: predicted against published gain",
        tables=(
            *in_part("gains", published=Table("Gains with a published number", columns, tuple(map(_row, scored)))),
            *in_part("techniques", catalogue=catalogue_table(techniques)),
        ),
        facts={
            "gains": len(scored),
            "signs_right": signs,
            "counted": len(counted),
            "sizes_right": right,
            "share_right": share,
        },
        answer=_answer(signs, len(scored), right, len(counted)),
        opening=("gains", "techniques") if len(techniques) <= FEW else (),
        notes=(
            f"sign right: {signs} of {len(scored)}; within a third: {right} of {len(counted)} counted"
            + (f" ({share:.0%})" if share is not None else ""),
            f"within a third: at most {SIZE:.0%} of the published value off; 'over N %' is taken as N",
            "not counted: a claim without conditions, or what a number of the technique was read off",
            "both sides are predicted under the conditions of the row named, with what it says changed; a stand-in is "
            "named where the source leaves conditions open or the model is not on file",
        ),
    )
