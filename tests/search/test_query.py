import sqlite3

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from siglip.errors import InputError
from siglip.search.query import Term, combined, parse_query
from siglip.search.where import COLUMNS, parse_where


def text(words: str, weight: float = 1.0) -> Term:
    return Term(float(weight), text=words)


@pytest.mark.parametrize(
    ("query", "terms"),
    [
        ("dog on a beach", [text("dog on a beach")]),
        (
            "2:golden retriever + ./photo.jpg - 0.5:fence",
            [text("golden retriever", 2), Term(1.0, picture="./photo.jpg"), text("fence", -0.5)],
        ),
        ("a t-shirt, C++ and black+white", [text("a t-shirt, C++ and black+white")]),
        ("-5 degrees", [text("-5 degrees")]),
        ("- fence - wall", [text("fence", -1), text("wall", -1)]),
        ('"12:30" + "a - b"', [text("12:30"), text("a - b")]),
        ('3:"2:1"', [text("2:1", 3)]),
        ("at 5:30", [text("at 5:30")]),
        ("~/a b.png + https://x.org/a.jpg", [Term(1.0, picture="~/a b.png"), Term(1.0, picture="https://x.org/a.jpg")]),
        ("photo.jpg", [text("photo.jpg")]),
        ('"./photo.jpg"', [text("./photo.jpg")]),
        ("  many   spaces ", [text("many spaces")]),
        (".5:x", [text("x", 0.5)]),
    ],
)
def test_a_query_is_read_as_documented(query: str, terms: list[Term]):
    assert parse_query(query) == terms


def test_pictures_to_add_and_subtract_stand_before_the_words():
    assert parse_query("x", like=["a.jpg"], not_like=["b.jpg"]) == [
        Term(1.0, picture="a.jpg"),
        Term(-1.0, picture="b.jpg"),
        text("x"),
    ]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ("a + ", "nothing after"),
        ("a + + b", "nothing after"),
        ('a "b', "without its partner"),
        ("0:a", "weight 0"),
        ('a + ""', "empty term"),
        ("\udc80", "not UTF-8"),
        (" + ".join("x" * 101), "limit is 100"),
    ],
)
def test_what_is_no_query_is_refused(query: str, message: str):
    with pytest.raises(InputError, match=message):
        parse_query(query)


@given(st.text())
def test_any_text_is_a_query_or_refused_in_words(query: str):
    try:
        terms = parse_query(query)
    except InputError:
        return
    assert terms
    assert all(term.weight and bool(term.text) != bool(term.picture) for term in terms)


def test_terms_are_summed_by_weight_and_brought_to_length_one():
    vectors = np.eye(3, dtype=np.float32)
    terms = [text("a", 2), text("b", -1), text("c", 2)]
    assert combined(terms, vectors) == pytest.approx([2 / 3, -1 / 3, 2 / 3])
    assert combined([text("a", -3)], vectors[:1]) == pytest.approx([-1, 0, 0])
    for scale in (5e-324, 1e-200, 1e300):
        assert combined([text("a", scale), text("b", -scale)], vectors[:2]) == pytest.approx(
            combined([text("a"), text("b", -1)], vectors[:2])
        )
    with pytest.raises(InputError, match="cancel out"):
        combined([text("a"), text("a", -1)], vectors[[0, 0]])


def truth() -> list[dict[str, object]]:
    rng = np.random.default_rng(3)
    rows: list[dict[str, object]] = []
    for number in range(60):
        taken = f"20{rng.integers(20, 25)}-0{rng.integers(1, 9)}-1{rng.integers(0, 9)}T0{rng.integers(0, 9)}:30:00"
        rows.append(
            {
                "path": f"/photos/{rng.choice(['holiday', 'Work', 'x%y'])}/{number}.jpg",
                "size": int(rng.integers(0, 100)),
                "width": int(rng.integers(0, 5)) * 500,
                "taken": None if number % 7 == 0 else taken,
                "camera": None if number % 5 == 0 else str(rng.choice(["Canon EOS", "it's"])),
                "latitude": float(rng.normal() * 50),
            }
        )
    return rows


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ("taken >= 2024-01-01 and path like '%holiday%' and width > 1000",
         lambda r: (r["taken"] or "") >= "2024-01-01" and "holiday" in r["path"] and r["width"] > 1000),
        ("taken <= 2022-03", lambda r: r["taken"] is not None and r["taken"][:7] <= "2022-03"),
        ("taken = 2023", lambda r: (r["taken"] or "")[:4] == "2023"),
        ("taken > '2022-05-11 04:30'", lambda r: (r["taken"] or "")[:16] > "2022-05-11T04:30"),
        ("not (taken = 2023) and not camera is null", lambda r: (r["taken"] or "")[:4] != "2023" and r["camera"]),
        ("camera = 'it''s' or latitude < -1.5e1", lambda r: r["camera"] == "it's" or r["latitude"] < -15),
        ("WIDTH IN (500, 1500) AND NOT name LIKE '1%'",
         lambda r: r["width"] in (500, 1500) and not r["path"].rpartition("/")[2].startswith("1")),
        ("size != 3 and size <> 4 and size == size_", None),
        ("path not like '%work%' and camera is not null", lambda r: "Work" not in r["path"] and r["camera"]),
        ("width not in (0) and (taken is null or size >= 50)",
         lambda r: r["width"] != 0 and (r["taken"] is None or r["size"] >= 50)),
    ],
)  # fmt: skip
def test_a_filter_keeps_what_python_would_keep(where: str, holds: object):
    if holds is None:
        with pytest.raises(InputError, match="expected a number"):
            parse_where(where)
        return
    rows = truth()
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE f(path BLOB, name BLOB, size, mtime_ns)")
    db.execute("CREATE TABLE i(n, taken, width, height, format, camera, latitude, longitude, seconds)")
    for number, row in enumerate(rows):
        path = str(row["path"]).encode()
        db.execute("INSERT INTO f VALUES (?, ?, ?, 0)", (path, path.rpartition(b"/")[2], row["size"]))
        db.execute("INSERT INTO i(n, taken, width, camera, latitude) VALUES (?, ?, ?, ?, ?)",
                   (number, row["taken"], row["width"], row["camera"], row["latitude"]))  # fmt: skip
    condition = parse_where(where)
    found = {
        row[0]
        for row in db.execute(f"SELECT i.n FROM f JOIN i ON f.rowid = i.rowid WHERE {condition.sql}", condition.values)
    }
    expected = {number for number, row in enumerate(rows) if holds(row)}  # type: ignore[operator]
    assert found == expected
    assert 0 < len(expected) < len(rows)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("", "expected one of the columns"),
        ("widht > 3", "did you mean 'width'"),
        ("width > 3; drop table file", "is not understood"),
        ("width > (select 1)", "expected a number"),
        ("width > 3 order", "expected 'and', 'or' or the end"),
        ("width", "expected a comparison"),
        ("width > 'a'", "expected a number"),
        ("path like holiday", "expected a text in quotes"),
        ("taken > yesterday", "expected a time"),
        ("taken > 2024-13-45", "expected a time"),
        ("taken = '2023-02-29'", "expected a time"),
        ("modified < '2024-02-29 24:30'", "expected a time"),
        ("(width > 3", r"expected '\)'"),
        ("path = 'x", "is not understood"),
        ("(" * 60 + "width > 1" + ")" * 60, "more than 50 brackets"),
        ("f.path = 'x'", "is not understood"),
        ("width > 99999999999999999999", "below 9e18"),
    ],
)
def test_what_is_no_filter_is_refused_and_says_where(where: str, message: str):
    with pytest.raises(InputError, match=message):
        parse_where(where)


@given(st.text() | st.lists(st.sampled_from([*COLUMNS, "and", "or", "not", "(", ")", "=", "<", "'a'", "1", "in",
                                             "2024-01", "like", "is", "null", ","])).map(" ".join))  # fmt: skip
def test_whatever_is_written_never_reaches_sql_unparsed(where: str):
    try:
        condition = parse_where(where)
    except InputError:
        return
    db = sqlite3.connect(":memory:")
    db.execute("CREATE TABLE f(path BLOB, name BLOB, size, mtime_ns)")
    db.execute("CREATE TABLE i(taken, width, height, format, camera, latitude, longitude, seconds)")
    db.execute(f"SELECT 1 FROM f, i WHERE {condition.sql}", condition.values)
    assert condition.sql.count("?") == len(condition.values)
