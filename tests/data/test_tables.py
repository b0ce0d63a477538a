"""Tables out of spreadsheets, and names that nearly match."""

from __future__ import annotations

from pathlib import Path

import pytest

from synbrain.data.tables import nearest, numbers, read_list, read_table
from synbrain.errors import SynBrainError

TEXT = "image,repeat,x\nim café.png,0,1.5\nNA,1,2\nnull,2,-3e2\n"


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separator_and_encoding_are_seen(separator: str, encoding: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    text = TEXT.replace(",", separator).replace("\n", end)
    if separator == ";":
        text = "sep=;" + end + text.replace("1.5", "1,5")
    path.write_bytes(text.encode(encoding))
    table = read_table(path, ("image", "repeat"))
    assert table["image"].tolist() == ["im café.png", "NA", "null"]
    assert numbers(table, "x").tolist() == [1.5, 2.0, -300.0]


def test_cells_blanks_and_lines(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text('a , b,\n" x, y ", 1,\n\n,2\nz\n')
    table = read_table(path)
    assert table["a"].tolist()[0] == "x, y"
    assert table["a"].isna().tolist() == [False, True, False]
    assert table["b"].isna().tolist() == [False, False, True]
    path.write_text("a,b\n1,2,3\n")
    with pytest.raises(SynBrainError, match="line 2 has 3 cells for 2 columns"):
        read_table(path)
    path.write_text("a,a\n1,2\n")
    with pytest.raises(SynBrainError, match=r"\['a'\] twice"):
        read_table(path)
    path.write_text("Image,b\n1,2\n")
    with pytest.raises(SynBrainError, match=r"lacks the columns \['image'\].*there is 'Image'"):
        read_table(path, ("image",))
    path.write_bytes(b"a,b\n\x00\x01,2\n")
    with pytest.raises(SynBrainError, match="zero bytes"):
        read_table(path)
    path.write_bytes(b"\xef\xbb\xbfone.png\r\n\r\n two.png \r\n")
    assert read_list(path) == ["one.png", "two.png"]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("sub\\im1.png", "slashes"),
        ("SUB/Im1.png", "case"),
        ("sub/im1", "suffix"),
        ("sub/im1.jpg", "suffix"),
        ("im1.png", "folder"),
        ("stimuli/sub/im1.png", "folder"),
        ("sub/cafe\u0301.png", "accents"),
        ("sub/imm1.png", "nearest"),
    ],
)
def test_near_names_say_the_difference(name: str, told: str) -> None:
    hint = nearest(name, ["other.png", "sub/im1.png", "sub/caf\u00e9.png"])
    assert told in hint


def test_far_names_have_no_hint() -> None:
    assert nearest("zebra.png", ["im1.png"]) == ""
