"""Tables and lists as spreadsheets, loggers and other programs write them; and names that nearly match.

Separator and encoding are taken from the file. Only an empty cell is missing: "NA" and "null" may be names.
"""

from __future__ import annotations

import codecs
import csv
import difflib
import io
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath

import pandas as pd

from synbrain.describe import counted
from synbrain.errors import POINTERS, SynBrainError, unreadable

SEPARATORS = ("\t", ",", ";", "|")
MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
MANY = 20_000  # names beyond which no fuzzy match is looked for


def read_text(path: Path) -> str:
    """A text file by its byte-order mark, else as UTF-8, else as Windows-1252; line ends become ``\\n``.

    Raises:
        SynBrainError: where it is missing, not fetched, or no text.
    """
    if not path.parent.exists():
        raise SynBrainError(f"there is no folder {path.parent}", "check the path")
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from error
    if raw.startswith(tuple(POINTERS)):
        raise unreadable(path, ValueError("a pointer"))
    encoding = next((name for mark, name in MARKS if raw.startswith(mark)), None)
    for attempt in (encoding,) if encoding else ("utf-8", "cp1252"):
        try:
            text = raw.decode(attempt)
            break
        except UnicodeDecodeError:
            continue
    else:
        raise SynBrainError(f"{path} is no text in UTF-8, UTF-16 or Windows-1252", "save it as UTF-8")
    if "\0" in text:
        raise SynBrainError(f"{path} is no text (it holds zero bytes)", "save it as UTF-8")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_list(path: Path) -> list[str]:
    """The lines of a text file, one name each, without blanks around them and without empty lines."""
    return [line for line in (line.strip() for line in read_text(path).split("\n")) if line]


def read_table(path: Path, columns: Sequence[str] = (), mend: str = "") -> pd.DataFrame:
    """A table of text whose first line names the columns; the separator is found out.

    Args:
        path: .csv, .tsv or text; separated by tab, comma, semicolon or bar.
        columns: names that must be there; they also tell the separator.
        mend: what to write, where they are not.

    Returns:
        Cells without blanks around them; empty ones are missing. ``attrs["separator"]`` says how it was
        separated; with semicolons, numbers may have a decimal comma (:func:`numbers`).

    Raises:
        SynBrainError: where a column lacks, stands twice, or a line has too many cells.
    """
    text = read_text(path)
    declared = None
    if text[:4].lower() == "sep=":  # Excel's own first line
        first, _, text = text.partition("\n")
        declared = first[4:5]
    if not text.strip():
        raise SynBrainError(f"{path} is empty", mend or "write a line of column names and one line per row")
    separator = declared or _separator(text.split("\n", 1)[0], columns, path.suffix)
    try:
        rows = [
            row for row in csv.reader(io.StringIO(text), delimiter=separator, skipinitialspace=True) if row
        ]
    except csv.Error as error:
        raise SynBrainError(f"{path} is no table ({error})", mend or "save it as CSV") from error
    header = [name.strip() for name in rows[0]]
    while header and not header[-1]:
        header.pop()
    double = sorted({name for name in header if header.count(name) > 1})
    if double:
        raise SynBrainError(f"{path} has the columns {double} twice", "give every column its own name")
    lacking = [name for name in columns if name not in header]
    if lacking:
        similar = nearest(lacking[0], header)
        raise SynBrainError(
            f"{path} lacks the columns {lacking}; it has {header}" + (f"; {similar}" if similar else ""),
            mend or "name them in the first line",
        )
    cells = [[cell.strip() for cell in row] for row in rows[1:]]
    for number, row in enumerate(cells, start=2):
        if any(row[len(header) :]):
            raise SynBrainError(
                f"{path} line {number} has {counted(len(row), 'cell')} for {counted(len(header), 'column')}",
                'put quotes around cells that hold the separator ("a, b")',
            )
    even = [(row + [""] * len(header))[: len(header)] for row in cells if any(row)]
    table = pd.DataFrame(even, columns=header, dtype=str)
    table = table.mask(table == "")
    table.attrs["separator"] = separator
    return table


def _separator(header: str, columns: Sequence[str], suffix: str) -> str:
    """The separator that finds most of ``columns`` in the header line, then most columns."""
    order = SEPARATORS if suffix == ".tsv" else (",", *[s for s in SEPARATORS if s != ","])

    def n_columns(separator: str) -> tuple[int, int]:
        names = [name.strip() for name in next(csv.reader([header], delimiter=separator), [])]
        return len(set(columns) & set(names)), len(names)

    return max(order, key=n_columns)


def numbers(table: pd.DataFrame, column: str) -> pd.Series[float]:
    """A column as float64, NaN where it holds no number; "0,5" is a half where semicolons separate."""
    text = table[column]
    if table.attrs.get("separator") != ",":
        text = text.str.replace(",", ".", regex=False)
    values: pd.Series[float] = pd.to_numeric(text, errors="coerce").astype("float64")
    return values


def nearest(name: str, known: Iterable[str]) -> str:
    """The known name that ``name`` nearly is, and in what they differ, as a hint; "" where there is none.

    >>> nearest("im1.PNG", ["im0.png", "im1.png"])
    "there is 'im1.png' (upper and lower case differ)"
    """
    there = list(known)
    for difference, form in _FORMS:
        wanted = form(name)
        match = next((other for other in there if form(other) == wanted), None)
        if match is not None:
            return f"there is {match!r} ({difference})"
    if len(there) > MANY:
        return ""
    # without suffixes, which most names share: 07.png is no misspelling of 20.png
    stems = {PurePosixPath(other).stem: other for other in there}
    close = difflib.get_close_matches(PurePosixPath(name).stem, stems, n=1, cutoff=0.8)
    return f"the nearest name is {stems[close[0]]!r}" if close else ""


def _slashes(name: str) -> str:
    return name.replace("\\", "/")


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


_FORMS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("written with slashes, not backslashes", _slashes),
    ("its accents are composed otherwise", lambda name: unicodedata.normalize("NFC", name)),
    ("upper and lower case differ", _folded),
    ("the suffix differs", lambda name: str(PurePosixPath(_folded(_slashes(name))).with_suffix(""))),
    ("the folder in front of it differs", lambda name: PurePosixPath(_folded(_slashes(name))).name),
    ("folder and suffix differ", lambda name: PurePosixPath(_folded(_slashes(name))).stem),
)
