import gzip
import itertools
import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from natjax.data import scan
from natjax.data.corpus import FilterReport, Limits, keep_pairs, normalise, read_lines, read_parallel, required_frames
from natjax.errors import DataError

# Letters that NFKC changes, combining marks, every odd space and a choice of invisible characters.
_HARD = (
    "aé ﬁ①Å\u0301\u0308\u0327\u00a0\u2003\u3000\u1680\u2028\u0085\t\u200b\u200d\u00ad\ufeff\u202e\x00\u2581\u1100\u1161"
)
texts = st.text(st.one_of(st.sampled_from(_HARD), st.characters(exclude_categories=["Cs"])), max_size=12)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  a  b ", "a b"),
        ("10\u00a0000\u202f€", "10 000 €"),
        ("a\u3000b\u2028c\u0085d\te", "a b c d e"),
        ("\ufeffWort\u200b", "Wort"),
        ("Schiff\u00adfahrt", "Schifffahrt"),
        ("ﬁne ① Ａ", "fine 1 A"),
        ("e\u0301", "é"),
        ("e\u200d\u0301", "é"),
        ("a\x00\x07b", "ab"),
        ("\u2581x", "x"),
        ("", ""),
        (" \u00a0\u200b ", ""),
    ],
)
def test_normalise(raw, expected):
    assert normalise(raw) == expected


@given(texts)
@settings(deadline=None, max_examples=500)
def test_normalised_text_is_nfkc_and_has_only_plain_spaces(text):
    clean = normalise(text)
    assert normalise(clean) == clean
    assert unicodedata.is_normalized("NFKC", clean)
    assert normalise(unicodedata.normalize("NFKC", text)) == clean
    assert "  " not in clean and clean.strip() == clean
    assert all(c == " " or unicodedata.category(c) not in ("Cc", "Cf", "Zs", "Zl", "Zp") for c in clean)


@given(st.text(st.characters(categories=["L", "N"]), max_size=20))
@settings(deadline=None)
def test_normalise_is_nfkc_where_nothing_is_invisible_or_space(text):
    # NFKC itself makes spaces (out of some compatibility letters): compare without them.
    assert normalise(text).replace(" ", "") == unicodedata.normalize("NFKC", text).replace(" ", "")


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\ufeff"), max_size=8)))
@settings(deadline=None)
def test_lines_come_back_as_written(tmp_path_factory, lines):
    folder = tmp_path_factory.mktemp("lines")
    text = "".join(line + "\n" for line in lines)
    (folder / "lf").write_bytes(text.encode())
    (folder / "crlf").write_bytes(text.replace("\n", "\r\n").encode())
    (folder / "lf.gz").write_bytes(gzip.compress(text.encode()))
    for block in (1, 2, 4096):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("natjax.data.lines.BLOCK", block)
            for name in ("lf", "crlf", "lf.gz"):
                assert read_lines(folder / name) == lines


def test_only_line_feeds_end_a_line(tmp_path):
    (tmp_path / "a").write_bytes("a\u2028b\u0085c\x0bd\x0ce\x1cf\rg\nh".encode())
    assert read_lines(tmp_path / "a") == ["a\u2028b\u0085c\x0bd\x0ce\x1cf\rg", "h"]


def test_a_leading_byte_order_mark_is_no_text(tmp_path):
    (tmp_path / "a").write_bytes(b"\xef\xbb\xbfeins\n\xef\xbb\xbfzwei\n")
    assert read_lines(tmp_path / "a") == ["eins", "\ufeffzwei"]


def test_a_byte_that_is_not_utf8_is_named_with_its_line_and_offset(tmp_path):
    (tmp_path / "a.txt").write_bytes("grün\nzwei\ndrei \udcff vier\n".encode(errors="surrogateescape"))
    with pytest.raises(DataError, match=r"a\.txt:3: not UTF-8 \(byte 0xff at offset 16\)"):
        read_lines(tmp_path / "a.txt")


@pytest.mark.parametrize("damage", ["cut", "flipped", "no gzip"])
def test_a_damaged_gzip_file(tmp_path, damage):
    data = gzip.compress(b"".join(b"line %d\n" % i for i in range(1000)))
    middle = len(data) // 2
    changed = {"cut": data[:middle], "flipped": data[:middle] + b"\xff\xff" + data[middle + 2 :], "no gzip": b"text"}
    (tmp_path / "a.gz").write_bytes(changed[damage])
    with pytest.raises(DataError, match=r"a\.gz: damaged gzip file"):
        read_lines(tmp_path / "a.gz")


def test_missing_files_and_folders_are_one_line(tmp_path):
    with pytest.raises(DataError, match=r"absent: cannot be read \(No such file or directory\)"):
        read_lines(tmp_path / "absent")
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read_lines(tmp_path)


def test_sides_of_unequal_length_are_named_with_their_counts(tmp_path):
    (tmp_path / "a").write_text("1\n2\n3\n")
    (tmp_path / "b").write_text("1\n2\n")
    with pytest.raises(DataError, match=r"/a has 3 lines but .*/b has 2"):
        read_parallel(tmp_path / "a", tmp_path / "b")
    assert read_parallel(tmp_path / "a", tmp_path / "a") == (["1", "2", "3"], ["1", "2", "3"])


@pytest.mark.parametrize("block", [1, 2, 3, 4, 5])
def test_sides_of_unequal_length_wherever_a_block_ends(tmp_path, monkeypatch, block):
    monkeypatch.setattr("natjax.data.lines.BLOCK", block)
    for a, b in itertools.product(range(6), repeat=2):
        (tmp_path / "a").write_text("x\n" * a)
        (tmp_path / "b").write_text("y\n" * b)
        if a == b:
            assert read_parallel(tmp_path / "a", tmp_path / "b") == (["x"] * a, ["y"] * b)
        else:
            with pytest.raises(DataError, match=rf"/a has {a} lines but .*/b has {b};"):
                read_parallel(tmp_path / "a", tmp_path / "b")


@given(texts)
@settings(deadline=None, max_examples=300)
def test_a_first_look_sees_which_lines_are_empty(text):
    assert scan._empty(text) == (normalise(text) == "")


@given(st.lists(st.integers(4, 6), max_size=10))
def test_required_frames_by_groups(labels):
    runs = [len(list(run)) for _, run in itertools.groupby(labels)]
    assert required_frames(labels) == sum(2 * run - 1 for run in runs)


def test_required_frames_is_the_shortest_alignment_that_exists():
    """Every frame sequence over {blank, 1, 2} is collapsed; the shortest that gives a target is what it requires."""
    shortest = {}
    for T in range(7):
        for frames in itertools.product(range(3), repeat=T):
            target = tuple(token for token, _ in itertools.groupby(frames) if token)
            shortest.setdefault(target, T)
    for target in itertools.chain.from_iterable(itertools.product((1, 2), repeat=n) for n in range(4)):
        assert required_frames(target) == shortest[target]


def test_each_pair_counts_under_the_first_reason():
    limits = Limits(max_length=8, max_ratio=2.0, frames_ratio=1.0)
    pairs = {
        "kept": ([5, 6], [7, 8]),
        "kept, short enough for any ratio": ([5], [4, 5]),
        "kept, longest source": ([4] * 7, [4, 5, 6, 7]),
        "kept, longest target": ([4] * 7, [4, 5] * 4),
        "empty source": ([], [4] * 20),
        "empty target": ([4], []),
        "source too long": ([4] * 8, [4]),
        "target too long": ([4, 5], [4] * 9),
        "ratio, and infeasible": ([4], [4] * 6),
        "infeasible": ([5], [6, 7, 8]),
        "infeasible by a repeat": ([5, 6], [6, 7, 7]),
    }
    kept, report = keep_pairs(*zip(*pairs.values()), limits)
    assert kept.tolist() == [0, 1, 2, 3] and kept.dtype == np.int64
    assert report == FilterReport(limits, total=11, kept=4, empty=2, too_long=2, ratio=1, infeasible=2)
    assert report.describe() == (
        "11 pairs read, 4 kept; dropped: 2 empty, 2 too long (> 8 pieces), 1 ratio > 2.0, "
        "2 infeasible at 1.0 frames a piece"
    )


def test_filters_that_are_off_neither_drop_nor_speak():
    kept, report = keep_pairs([[4], [4]], [[5] * 40, []], Limits(max_length=128))
    assert kept.tolist() == [0]
    assert report.describe() == "2 pairs read, 1 kept; dropped: 1 empty, 0 too long (> 128 pieces)"


def test_target_eos_takes_one_frame_and_one_piece():
    source, target = [[4, 5]], [[4, 5, 6]]
    for target_eos, frames_kept, length_kept in ((False, 1, 1), (True, 0, 0)):
        assert len(keep_pairs(source, target, Limits(9, None, 1.0, target_eos))[0]) == frames_kept
        assert len(keep_pairs(source, target, Limits(3, None, None, target_eos))[0]) == length_kept


rows = st.lists(st.integers(4, 6), max_size=9)


@given(st.lists(st.tuples(rows, rows), max_size=8), st.sampled_from([1.0, 1.5, 2.0, 2.5]), st.booleans())
@settings(deadline=None)
def test_filters_agree_with_the_definitions_and_add_up(pairs, ratio, target_eos):
    limits = Limits(max_length=8, max_ratio=1.5, frames_ratio=ratio, target_eos=target_eos)
    source, target = [s for s, _ in pairs], [t for _, t in pairs]
    kept, report = keep_pairs(source, target, limits)

    def fine(s, t):
        stored_source, stored_target = [*s, 2], t + [2] * target_eos
        frames = -(-int(2 * ratio) * len(stored_source) // 2)  # in halves, exactly
        return (
            s and t and len(stored_source) <= 8 and len(stored_target) <= 8
            and (max(len(s), len(t)) <= 5 or max(len(s), len(t)) / min(len(s), len(t)) <= 1.5)
            and required_frames(stored_target) <= frames
        )  # fmt: skip

    assert kept.tolist() == [i for i, pair in enumerate(pairs) if fine(*pair)]
    counts = report.counts()
    assert counts["total"] == len(pairs) == sum(counts.values()) - counts["total"]
    middle = len(pairs) // 2
    parts = [keep_pairs(source[part], target[part], limits)[1] for part in (slice(middle), slice(middle, None))]
    assert parts[0] + parts[1] == report
