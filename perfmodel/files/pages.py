"""What pages and words are made of: templates, styles and scripts of HTML, the texts of a language."""

from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, cast

import yaml

from perfmodel.errors import UsageError
from perfmodel.files.document import LOADER


def page_files(language: str) -> dict[str, Any]:
    """Return what a page of HTML is made of: template, style, script, plotly.js and the words of a language.

    Raises ``UsageError`` where plotly is not installed.
    """
    folder = Path(__file__).resolve().parent.parent / "report" / "html"
    try:
        library = resources.files("plotly") / "package_data" / "plotly.min.js"
    except ModuleNotFoundError:
        raise UsageError("plotly is not installed; a page takes its plots from it; run: pip install plotly") from None
    return {
        "template": (folder / "page.html").read_text(encoding="utf-8"),
        "style": (folder / "page.css").read_text(encoding="utf-8"),
        "script": (folder / "page.js").read_text(encoding="utf-8"),
        "plotly": library.read_text(encoding="utf-8"),
        "words": yaml.load((folder / f"words.{language}.yaml").read_text(encoding="utf-8"), Loader=LOADER),
    }


def day_of(path: str) -> str:
    """Return the day, in UTC, on which a file was last changed."""
    changed = Path(path).stat().st_mtime
    return datetime.fromtimestamp(changed, UTC).date().isoformat()


def glossary(language: str) -> dict[str, Any]:
    """Return the texts of results in a language, by their English."""
    path = Path(__file__).resolve().parent.parent / "report" / "lang" / f"{language}.yaml"
    return cast("dict[str, Any]", yaml.load(path.read_text(encoding="utf-8"), Loader=LOADER))
