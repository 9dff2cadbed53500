"""Corpora as text, and as token ids on the disk."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import SENTENCES
from tfm.core.tokenizer import Tokenizer
from tfm.train.config import DataConfig, parse_config
from tfm.train.corpus_files import Meter
from tfm.train.data import held_out, iter_blocks, iter_documents, iter_pairs, wanted_filter
from tfm.train.tasks.reading import divided, in_blocks
from tfm.train.token_store import INDEX, TokenStore, id_type, written

TOKENIZER = Tokenizer.train(SENTENCES, vocab_size=400)


# --------------------------------------------------------------------------- pairs
def test_pairs_are_the_same_from_every_kind_of_file(tmp_path: Path) -> None:
    pairs = [("A dog.", "Ein Hund."), ("Größe \u2028 x", "y"), ("two", "zwei")]
    plain = {
        "a.en": "".join(f"{source}\n" for source, _ in pairs),
        "a.de": "".join(f" {target}\r\n" for _, target in pairs),
        "a.tsv": "".join(f"{n}\t{target}\t{source}\n" for n, (source, target) in enumerate(pairs)),
        "a.jsonl": "".join(json.dumps({"translation": {"en": s, "de": t}}) + "\n" for s, t in pairs),
    }
    for name, text in plain.items():
        (tmp_path / name).write_bytes(text.encode())
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
    tsv = DataConfig(format="tsv", source_field="3", target_field="2")
    objects = DataConfig(format="jsonl", source_field="translation.en", target_field="translation.de")
    for end in ("", ".gz"):
        en, de, one, jsonl = (str(tmp_path / name) + end for name in plain)
        assert list(iter_pairs(en, de, "", DataConfig())) == pairs
        assert list(iter_pairs("", "", one, tsv)) == pairs
        meter = Meter([jsonl])
        assert list(iter_pairs("", "", jsonl, objects, meter)) == pairs
        assert meter.done == meter.total == Path(jsonl).stat().st_size


def test_empty_sides_are_left_out_and_case_is_lowered_if_asked(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("A\tB\n \tC\nD\t\n\nE\tF\n")
    lower = DataConfig(format="tsv", lowercase=True)
    assert list(iter_pairs("", "", str(tmp_path / "a.tsv"), lower)) == [("a", "b"), ("e", "f")]


@pytest.mark.parametrize(
    ("format_", "content", "message"),
    [
        ("tsv", "a\tb\nonly one\n", "line 2: 1 column"),
        ("jsonl", '{"source": "a", "target": "b"}\n{"source": "a"}\n', "line 2: no text under 'target'"),
        ("jsonl", '{"source": "a", "target": 3}\n', "line 1: no text under 'target'"),
        ("jsonl", "[1]\n", "line 1: no text under 'source'"),
        ("jsonl", '\n{"source"', "line 2"),
    ],
)
def test_broken_pairs_are_named(tmp_path: Path, format_: str, content: str, message: str) -> None:
    (tmp_path / "pairs").write_text(content)
    with pytest.raises(ValueError, match=message):
        list(iter_pairs("", "", str(tmp_path / "pairs"), DataConfig(format=format_)))  # type: ignore[arg-type]


def test_files_of_unequal_length_and_columns_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1\n2\n3\n")
    (tmp_path / "b").write_text("1\n")
    with pytest.raises(ValueError, match=r"a has 3 lines but .*b has 1"):
        list(iter_pairs(str(tmp_path / "a"), str(tmp_path / "b"), "", DataConfig()))
    for field in ("english", "0", "-1"):
        with pytest.raises(ValueError, match=r"data\.source_field must be a column number"):
            list(iter_pairs("", "", str(tmp_path / "a"), DataConfig(format="tsv", source_field=field)))


# --------------------------------------------------------------------------- documents
@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"turns": "no"}', "line 1: no list of turns"),
        ('{"turns": ["a", 3]}', "line 1: no text under"),
        ('\n{"turns"', "line 2"),
    ],
)
def test_broken_dialogues_are_named(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "talk").write_text(content)
    with pytest.raises(ValueError, match=message):
        list(iter_documents(str(tmp_path / "talk"), DataConfig(format="dialogue")))


def test_turns_may_be_texts_or_messages_and_one_alone_is_no_conversation(tmp_path: Path) -> None:
    talks = [
        {"turns": ["Hi. ", "", {"text": "Hello."}]},
        {"turns": ["alone"]},
        {"turns": [{"role": "user", "content": "x"}, {"content": "y"}]},
    ]
    (tmp_path / "talk").write_text("\n".join(map(json.dumps, talks)))
    found = list(iter_documents(str(tmp_path / "talk"), DataConfig(format="dialogue")))
    assert found == [["Hi.", "Hello."], ["x", "y"]]


@pytest.mark.parametrize("format_", ["lines", "jsonl", "dialogue", "text"])
def test_documents_are_the_same_from_gzip(tmp_path: Path, format_: str) -> None:
    text = {
        "jsonl": '{"text": "Größe"}\n{"text": "b"}\n', "dialogue": '{"turns": ["Größe", "b"]}\n',
    }.get(format_, "Größe\nb\n")  # fmt: skip
    (tmp_path / "plain").write_text(text)
    (tmp_path / "packed.gz").write_bytes(gzip.compress(text.encode()))
    plain, packed = str(tmp_path / "plain"), str(tmp_path / "packed")  # found without its ending
    if format_ == "text":
        assert list(iter_blocks(packed)) == list(iter_blocks(plain)) == ["Größe\nb"]
    else:
        data = DataConfig(format=format_)  # type: ignore[arg-type]
        found = list(iter_documents(packed, data))
        assert found == list(iter_documents(plain, data))
        assert found == ([["Größe", "b"]] if format_ == "dialogue" else [["Größe"], ["b"]])


def test_documents_and_the_drop_pattern(tmp_path: Path) -> None:
    (tmp_path / "docs").write_text('{"body": "keep me"}\n{"body": "call 555-1234"}\n')
    data = DataConfig(format="jsonl", text_field="body")
    documents = list(iter_documents(str(tmp_path / "docs"), data))
    assert documents == [["keep me"], ["call 555-1234"]]
    assert [wanted_filter(r"\d{3}-\d{4}")(document) for document in documents] == [True, False]
    assert [wanted_filter("")(document) for document in documents] == [True, True]
    with pytest.raises(ValueError, match=r"one"):
        parse_config({"name": "x", "objective": "causal-lm", "model": {}, "data": {
            "train": "a", "format": "text", "drop_pattern": "x"}}, "test")  # fmt: skip


WORDS = st.sampled_from(
    ["a", "dog's", "  ", " ", "\n", "3.5", "Größe", "\u2028", ",", "it", "\t", " \n ", "犬"]
)


@given(words=st.lists(WORDS, max_size=60), size=st.integers(20, 60))
@settings(deadline=None, max_examples=200)
def test_blocks_are_tokenised_as_the_whole_is(
    tmp_path_factory: pytest.TempPathFactory, words: list[str], size: int
) -> None:
    text = "".join(words).rstrip("\n")
    path = tmp_path_factory.mktemp("blocks") / "text"
    path.write_text(text, newline="")
    blocks = list(iter_blocks(str(path), size=size))
    assert "".join(blocks) == text
    assert [token for block in blocks for token in TOKENIZER.encode(block)] == TOKENIZER.encode(text)


def test_a_text_without_spaces_is_cut_anyhow(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("\n".join("字" * 9 for _ in range(100)))
    blocks = list(iter_blocks(str(tmp_path / "text"), size=10))
    assert max(map(len, blocks)) <= 170
    assert "".join(blocks) == (tmp_path / "text").read_text()


# --------------------------------------------------------------------------- splits and blocks
def test_a_share_is_held_out_by_position() -> None:
    held = [position for position in range(5000) if held_out(position, 0.1)]
    assert len(held) == pytest.approx(500, rel=0.15)
    assert not any(held_out(position, 0.0) for position in range(100))
    assert list(divided(iter("abc"), iter("xy"), 0.9)) == [
        ("train", "a"), ("train", "b"), ("train", "c"), ("valid", "x"), ("valid", "y"),
    ]  # fmt: skip


def test_blocks_keep_the_order_of_each_split() -> None:
    examples = list(divided(iter(range(9000)), None, 0.3))
    blocks = list(in_blocks(iter(examples), lambda _: 1))
    assert all(len(block) <= 2000 for _, block in blocks)
    for wanted in ("train", "valid"):
        flat = [number for split, block in blocks if split == wanted for number in block]
        assert flat == [number for split, number in examples if split == wanted]
    assert len(list(in_blocks(iter(examples[:10]), lambda _: 1 << 20))) >= 5  # large ones: few at a time


# --------------------------------------------------------------------------- token store
@given(rows=st.lists(st.lists(st.integers(0, 65_535), max_size=5), max_size=20), cut=st.integers(0, 20))
@settings(deadline=None, max_examples=50)
def test_rows_come_back_as_they_were_written(
    tmp_path_factory: pytest.TempPathFactory, rows: list[list[int]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("store") / "tokens"
    with written(folder, {"a": "uint16", "b": "uint8"}) as writer:
        writer.extend("a", rows[:cut])
        writer.extend("a", rows[cut:])
        writer.count("long", 3)
        writer.count("long")
    store = TokenStore.open(folder)
    assert store is not None and store.notes == {"long": 4}
    found = store.rows("a")
    assert [row.tolist() for row in found] == rows
    assert found.lengths.tolist() == [len(row) for row in rows]
    assert [row.tolist() for row in found[:cut]] == rows[:cut]
    assert len(store.rows("b")) == 0
    assert not any(row.flags.writeable for row in found if len(row))
    with pytest.raises(IndexError):
        found[len(rows)]


def test_what_is_not_whole_is_no_store(tmp_path: Path) -> None:
    folder = tmp_path / "tokens"
    assert TokenStore.open(folder) is None
    with pytest.raises(ZeroDivisionError), written(folder, {"a": "uint16"}) as writer:
        writer.extend("a", [[1, 2]])
        1 / 0  # noqa: B018
    assert list(tmp_path.iterdir()) == []
    with written(folder, {"a": "uint16"}) as writer:
        writer.extend("a", [[1, 2], [3]])
    assert TokenStore.open(folder) is not None
    whole = (folder / "a.bin").read_bytes()
    (folder / "a.bin").write_bytes(whole[:-1])
    assert TokenStore.open(folder) is None
    (folder / "a.bin").write_bytes(whole)
    index = (folder / INDEX).read_text()
    (folder / INDEX).write_text(index.replace('"format":1', '"format":2'))
    assert TokenStore.open(folder) is None
    (folder / INDEX).write_text(index[:-5])
    assert TokenStore.open(folder) is None


def test_ids_are_as_small_as_the_vocabulary_allows() -> None:
    assert [id_type(size) for size in (300, 65_536, 65_537)] == ["uint16", "uint16", "uint32"]
    assert np.iinfo("uint16").max == 65_535


# --------------------------------------------------------------------------- dataset folders
def write_dataset(folder: Path, rows: list[dict[str, object]], n_files: int = 1) -> Path:
    """What ``datasets.Dataset.save_to_disk`` writes: Arrow streams, and a state that names them."""
    arrow = pytest.importorskip("pyarrow", reason="pyarrow, of the extra `datasets`, is not installed")
    folder.mkdir(parents=True)
    names = [f"data-{n:05}-of-{n_files:05}.arrow" for n in range(n_files)]
    share = -(-len(rows) // n_files)
    for number, name in enumerate(names):
        table = arrow.Table.from_pylist(rows[number * share : (number + 1) * share])
        with (
            arrow.OSFile(str(folder / name), "wb") as sink,
            arrow.ipc.new_stream(sink, table.schema) as stream,
        ):
            stream.write_table(table, max_chunksize=2)
    state = {"_data_files": [{"filename": name} for name in names], "_fingerprint": "x", "_split": None}
    (folder / "state.json").write_text(json.dumps(state))
    (folder / "dataset_info.json").write_text("{}")
    return folder


def test_a_dataset_folder_is_read_like_json_lines(tmp_path: Path) -> None:
    pairs = [(f"A dog {n}.", f"Ein Hund {n}.") for n in range(7)]
    rows: list[dict[str, object]] = [{"translation": {"en": s, "de": t}, "id": 1} for s, t in pairs]
    folder = write_dataset(tmp_path / "pairs" / "train", rows, n_files=2)
    data = DataConfig(format="jsonl", source_field="translation.en", target_field="translation.de")
    meter = Meter([folder])
    assert list(iter_pairs("", "", str(folder), data, meter)) == pairs
    assert meter.total * 0.5 < meter.done <= meter.total  # but for the marks at the ends of the streams
    talks = write_dataset(tmp_path / "talks", [{"turns": [{"content": "Hi."}, {"content": "Hello."}]}])
    assert list(iter_documents(str(talks), DataConfig(format="dialogue"))) == [["Hi.", "Hello."]]


def test_a_dataset_folder_that_cannot_be_used_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_dataset(tmp_path / "all" / "train", [{"text": "x"}] * 5)
    (tmp_path / "all" / "dataset_dict.json").write_text('{"splits": ["train", "validation"]}')
    data = DataConfig(format="jsonl")
    with pytest.raises(ValueError, match=r"has the splits train, validation; name one"):
        Meter([tmp_path / "all"])
    with pytest.raises(ValueError, match=r"train, row 1: no text under 'body'"):
        list(iter_documents(str(folder), DataConfig(format="jsonl", text_field="body")))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"pip install 'tfm-tui\[datasets\]'"):
        list(iter_documents(str(folder), data))
    monkeypatch.undo()
    [file] = folder.glob("*.arrow")
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"arrow is damaged") as caught:
        list(iter_documents(str(folder), data))
    assert "\n" not in str(caught.value)
    file.unlink()
    with pytest.raises(ValueError, match=r"no whole dataset: data-.*arrow is missing"):
        list(iter_documents(str(folder), data))
