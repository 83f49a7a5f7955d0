"""Pages that quote the program: their commands are run, and each quoted line is what is printed."""

from pathlib import Path

import pytest

from benchmarks.quoted import COLUMNS, Block, blocks, moved, pages, rewritten
from tests import process
from tests.conftest import pinned

ROOT = Path(__file__).resolve().parent.parent
PAGES = pages(ROOT)


def _outputs(page: Path, folder: Path) -> list[tuple[Block, str, int]]:
    found: list[tuple[Block, str, int]] = []
    for block in blocks(page.read_text(encoding="utf-8")):
        done = process.run(*block.words, env=pinned(COLUMNS=COLUMNS), cwd=folder)
        found.append((block, done.stderr + done.stdout, done.returncode))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_each_quoted_line_is_printed(page: Path, tmp_path: Path) -> None:
    """All at once, with what is printed now; ``benchmarks/update_docs.py quoted`` writes them anew."""
    wrong = []
    for block, output, code in _outputs(page, tmp_path):
        refused = any(line.startswith("error: ") for line in block.quoted)
        if code not in ((2,) if refused else (0, 3)):
            wrong.append(f"{page.name}:{block.line}: {block.command}: ends with {code}: {output.strip()}")
        wrong += [f"{page.name}: {one}" for one in moved(block, output)]
    assert wrong == [], "\n".join([*wrong, "write them anew: python benchmarks/update_docs.py quoted"])


TEXT = """\
# A page

```console
$ moeplan solve 'a b'
answer   5 cards
serves   7 tokens,
         of them 3
...
last     1
```
"""
PRINTED = "note: x\nhead\n\nanswer   6 cards\nserves   7 tokens\nTPOT     4\nlast     1\n"


def test_a_quoted_line_that_moved_is_told_with_what_is_printed_now() -> None:
    (block,) = blocks(TEXT)
    assert (block.words, block.line) == (["solve", "a b"], 4)
    assert moved(block, PRINTED) == [
        "line 5: quoted 'answer   5 cards'; now 'answer   6 cards'",
        "line 6: quoted 'serves   7 tokens,'; now 'serves   7 tokens'",
        "line 7: quoted '         of them 3'; now nothing like it",
    ]


def test_a_page_is_written_anew_with_as_many_lines_as_are_printed() -> None:
    anew = rewritten(TEXT, lambda words: PRINTED)
    assert anew == TEXT.replace("5 cards", "6 cards").replace("tokens,\n         of them 3", "tokens")
    assert moved(blocks(anew)[0], PRINTED) == []
    assert rewritten(anew, lambda words: PRINTED) == anew


def test_lines_in_another_order_or_apart_are_told() -> None:
    (block,) = blocks(TEXT.replace("5 cards", "6 cards").replace("tokens,\n         of them 3", "tokens"))
    assert moved(block, PRINTED) == []
    assert moved(block, PRINTED.replace("cards\n", "cards\n\n")) != []
    assert moved(block, "last     1\nanswer   6 cards\nserves   7 tokens\n") != []


def test_a_line_that_nothing_printed_is_like_is_left_to_its_writer() -> None:
    with pytest.raises(ValueError, match="write it by hand"):
        rewritten(TEXT, lambda words: "wholly other\n")
    with pytest.raises(ValueError, match="begins with"):
        blocks("```console\nls\n```\n")
