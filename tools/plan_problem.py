"""Plan problems and plans as files of google/minimalloc: comma-separated values with a header."""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from niwaki.ir.errors import UsageError
from niwaki.passes.arenas.problem import ArenaBuffer, ArenaPlan, ArenaProblem
from niwaki.printable import printable

_COLUMNS = ("id", "lower", "upper", "size")
_MOST_BYTES, _MOST_ROWS = 16 << 20, 50_000
_MOST_TOTAL = 2**53
_NUMBER = re.compile(r"-?[0-9]{1,15}")


@dataclass(frozen=True)
class PlanFile:
    """The rows of a file, and the problem that they state, in the same order."""

    columns: tuple[str, ...]
    rows: tuple[Mapping[str, str], ...]
    problem: ArenaProblem

    def with_offsets(self, plan: ArenaPlan) -> bytes:
        """The same rows with the offsets of `plan` in the column `offset`."""
        text = io.StringIO()
        columns = [c for c in self.columns if c != "offset"]
        writer = csv.DictWriter(text, [*columns, "offset"], lineterminator="\n")
        writer.writeheader()
        for row, offset in zip(self.rows, plan.offsets, strict=True):
            writer.writerow({**row, "offset": offset})
        return text.getvalue().encode()


def read_plan_file(path: Path) -> PlanFile:
    """Reads the columns id, lower, upper, size, and alignment and offset (pinned) where present.

    A buffer is live during [lower, upper). Other columns are kept as they are. Raises UsageError
    for a file that is none of this, with the line.
    """
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise UsageError(f"{path} is larger than {_MOST_BYTES >> 20} MiB: no plan problem")
        text = io.StringIO(path.read_text(encoding="utf-8-sig"), newline="")
        reader = csv.reader(text, strict=True)
        lines = [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"cannot read {path}: {error}") from None
    columns = tuple(name.strip() for name in lines[0][1]) if lines else ()
    _check_columns(path, columns)
    if len(lines) - 1 > _MOST_ROWS:
        raise UsageError(f"{path} has {len(lines) - 1} buffers, the most are {_MOST_ROWS}")
    rows: list[dict[str, str]] = []
    buffers: list[ArenaBuffer] = []
    line_of: dict[str, int] = {}
    for number, cells in lines[1:]:
        place = f"{path}, line {number}"
        if len(cells) != len(columns):
            raise UsageError(f"{place}: {len(cells)} values for {len(columns)} columns")
        row = dict(zip(columns, (cell.strip() for cell in cells), strict=True))
        first = line_of.setdefault(row["id"], number)
        if first != number:
            raise UsageError(f"{place}: id '{printable(row['id'])}' is taken by line {first}")
        rows.append(row)
        buffers.append(_buffer(place, row))
    if sum(b.occupied + (b.pinned or 0) for b in buffers) > _MOST_TOTAL:
        raise UsageError(f"{path}: sizes and offsets add up to more than 2**53")
    return PlanFile(columns, tuple(rows), ArenaProblem(tuple(buffers)))


def _check_columns(path: Path, columns: Sequence[str]) -> None:
    missing = [name for name in _COLUMNS if name not in columns]
    if missing:
        raise UsageError(
            f"{path} has no column '{missing[0]}': the first line must name the columns "
            f"{', '.join(_COLUMNS)}, and if wanted alignment and offset"
        )
    if len(set(columns)) < len(columns):
        raise UsageError(f"{path} names a column twice")


def _buffer(place: str, row: Mapping[str, str]) -> ArenaBuffer:
    lower, upper = _number(place, row, "lower"), _number(place, row, "upper")
    size = _number(place, row, "size", least=0)
    if lower >= upper:
        raise UsageError(f"{place}: lower must be less than upper, they are {lower} and {upper}")
    if row.get("gaps"):
        raise UsageError(f"{place}: gaps in a lifetime are not supported")
    alignment = _number(place, row, "alignment", least=1) if row.get("alignment") else 1
    pinned = _number(place, row, "offset", least=0) if row.get("offset") else None
    if pinned is not None and pinned % alignment:
        raise UsageError(f"{place}: offset {pinned} is no multiple of alignment {alignment}")
    return ArenaBuffer(size, lower, upper, alignment, pinned)


def _number(place: str, row: Mapping[str, str], column: str, least: int | None = None) -> int:
    text = row[column]
    if not _NUMBER.fullmatch(text):
        raise UsageError(
            f"{place}: {column} must be a whole number of at most 15 digits, "
            f"not '{printable(text[:40])}'"
        )
    if least is not None and int(text) < least:
        raise UsageError(f"{place}: {column} must be at least {least}, not {text}")
    return int(text)
