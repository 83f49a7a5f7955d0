"""The one place that writes to the terminal: results to stdout; remarks, what was read and progress to stderr."""

import logging
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from threading import Event, Lock, Thread
from time import monotonic
from typing import Any

from perfmodel.errors import UsageError, printable
from perfmodel.report.language import Glossary
from perfmodel.report.parts import asked_for, opened
from perfmodel.report.render import RENDERERS, to_markdown
from perfmodel.report.table import Document, Say, in_english
from perfmodel.report.text_table import to_table

_ASCII = str.maketrans("█░▏▎▍▌▋▊▉✓✗─━│├└┌┐┘┤┬┴·’", "#=    ###+x--|++++++++.'")
LOG = logging.getLogger("perfmodel")

ENGLISH = "en"  # what texts are written in
PIPED = 160  # columns where nobody's screen is the limit and COLUMNS says nothing
PATIENCE = 1.0  # seconds of silence that need no explanation


def coloured(stream: Any, environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether a stream takes colour: NO_COLOR forbids it, then FORCE_COLOR forces it, else terminals only.

    >>> coloured(None, {"FORCE_COLOR": "1"}), coloured(None, {"FORCE_COLOR": "1", "NO_COLOR": "1"})
    (True, False)
    """
    if environment.get("NO_COLOR"):
        return False
    if environment.get("FORCE_COLOR", "0") not in ("", "0"):
        return True
    return environment.get("TERM") != "dumb" and stream is not None and stream.isatty()


def write(text: str) -> None:
    """Write a line or more to stdout whole, in letters that it can take; a reader who left early is no fault."""
    PROGRESS.stop()
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        text = text.translate(_ASCII).encode(encoding, "replace").decode(encoding)
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit is quiet too
        if not isinstance(error, BrokenPipeError):
            raise UsageError(f"stdout: cannot be written: {error.strerror}; make room, or write elsewhere") from None


@dataclass(frozen=True, slots=True)
class Terminal:
    """A terminal in one format, and the parts that were asked for; where none were, people see those of opening."""

    format: str = "table"
    parts: tuple[str, ...] = ()

    def result(self, document: Document) -> None:
        """Write a document to stdout."""
        LOG.debug("worked out; drawing as %s", self.format)
        width = shutil.get_terminal_size((100 if sys.stdout.isatty() else PIPED, 24)).columns
        if self.parts:
            document = asked_for(document, self.parts)
        if self.format == "table":
            shown, kept = (document, ()) if self.parts else opened(document)
            write(to_table(shown, width, coloured(sys.stdout), VOICE.say, kept))
        elif self.format == "markdown":
            write(to_markdown(document, width, VOICE.say))
        else:
            write(RENDERERS[self.format](document, width))

    def remark(self, text: str) -> None:
        """Write a remark to stderr, in another language where the glossary has it."""
        LOG.info(VOICE.say(text))


class _ToStderr(logging.Handler):
    """Remarks as 'note: ...'; what only --verbose tells as '0.123 s  ...', counted from the start."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.start = start

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line, off the line that progress is shown on."""
        PROGRESS.stop()
        words = printable(record.getMessage())
        text = f"note: {words}" if record.levelno >= logging.INFO else f"{monotonic() - self.start:.3f} s  {words}"
        encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
        sys.stderr.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def listen(*, quiet: bool, verbose: bool, start: float) -> None:
    """Send remarks to stderr, none of them where ``quiet``, and what was read and when where ``verbose``."""
    LOG.handlers[:] = [_ToStderr(start)]
    LOG.propagate = False
    LOG.setLevel(logging.WARNING if quiet else logging.DEBUG if verbose else logging.INFO)


class Progress:
    """A line on stderr that says a long command is at work: on a terminal only, and only after a second."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._end = Event()
        self._shown = False
        self._worker: Thread | None = None

    def start(self, words: str) -> None:
        """Begin to wait; nothing is shown where stderr is no terminal that can take a line back."""
        if self._worker is None and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._worker = Thread(target=self._run, args=(words, monotonic()), daemon=True)
            self._worker.start()

    def _run(self, words: str, begun: float) -> None:
        while not self._end.wait(PATIENCE):
            with self._lock:
                if self._end.is_set():
                    return
                self._shown = True
                sys.stderr.write(f"\r{words}: at work, {monotonic() - begun:.0f} s (Ctrl-C stops)")
                sys.stderr.flush()

    def stop(self) -> None:
        """Take the line back, for good."""
        with self._lock:
            self._end.set()
            if self._shown:
                sys.stderr.write("\r\x1b[K")
                sys.stderr.flush()
                self._shown = False


@dataclass(slots=True)
class Voice:
    """The language of results; programs read keys and numbers, which have none."""

    language: str = ENGLISH
    say: Say = in_english

    def use(self, language: str, texts: Callable[[str], dict[str, Any]]) -> None:
        """Speak a language from now on; ``texts`` gives those of a language by their English."""
        self.language = language
        if language != ENGLISH:
            self.say = Glossary.of(texts(language)).say


PROGRESS = Progress()  # one process has one terminal
VOICE = Voice()
