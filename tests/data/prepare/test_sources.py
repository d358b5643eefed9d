"""Documents are read as they stand, and what cannot be read is named with its place."""

import gzip
import http.server
import json
import os
import threading

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from gpt2lab.config import TextConfig, TextSource
from gpt2lab.data.prepare import builtin, files
from gpt2lab.data.prepare.files import FileReader, LongText, chunks_of, local_files
from gpt2lab.data.prepare.sources import HubSource, deciding, download, open_source, stem
from gpt2lab.errors import DataError

DOCUMENTS = ["First line.\r\nSecond ü🤗 line.", "<|endoftext|> is plain here", " \n"]


def texts(*paths, **options):
    reader = FileReader(list(paths), **options)
    return ["".join(chunks_of(document)) for document in reader.documents()]


def as_jsonl(documents, field="text", ascii_only=False):
    lines = [json.dumps({field: d, "id": 1}, ensure_ascii=ascii_only) for d in documents]
    return ("\n".join(lines) + "\n").encode()


def packed(data, suffix):
    if suffix == ".gz":
        return gzip.compress(data)
    return pyarrow.compress(data, codec="zstd", asbytes=True) if suffix == ".zst" else data


def refused(call, *arguments):
    with pytest.raises(DataError) as caught:
        call(*arguments)
    (problem,) = caught.value.problems
    return problem


# --- kinds of files


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_each_line_of_jsonl_is_a_document(tmp_path, suffix, ascii_only):
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(packed(as_jsonl([*DOCUMENTS, ""], "body", ascii_only) + b"\n", suffix))
    assert texts(path, text_field="body") == DOCUMENTS  # an empty one is none


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_a_txt_file_is_one_document_to_the_byte(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(packed(DOCUMENTS[0].encode(), suffix))
    assert texts(path) == DOCUMENTS[:1]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_packed_file_of_several_members_is_read_to_its_end(tmp_path, suffix):
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(packed(b"one ", suffix) + packed(b"two", suffix))
    assert texts(path) == ["one two"]


def test_each_row_of_parquet_is_a_document(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "PARQUET_ROWS", 2)
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"id": range(3), "body": DOCUMENTS}), path)
    assert texts(path, text_field="body") == DOCUMENTS


def test_folders_and_globs_are_read_by_name(tmp_path):
    for name in ("b.txt", "a.jsonl", "c/d.txt", "notes.md", "e.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(as_jsonl(["x"]))
    names = [p.relative_to(tmp_path).as_posix() for p in local_files(str(tmp_path))]
    assert names == ["a.jsonl", "b.txt", "c/d.txt"]
    assert [p.name for p in local_files(f"{tmp_path}/*.txt")] == ["b.txt"]
    assert [p.name for p in local_files(f"{tmp_path}/**/*.txt")] == ["b.txt", "d.txt"]


def test_what_is_not_there_is_refused_as_it_was_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a.md").write_text("x")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "a.docx").write_text("x")
    assert refused(local_files, "no/such").startswith("no/such: does not exist; ")
    assert refused(local_files, "folder").startswith("folder: there is no text file; ")
    assert refused(local_files, "folder/*.txt").startswith("folder/*.txt: there is no text file; ")
    assert refused(local_files, "empty.txt").startswith("empty.txt: is empty; ")
    assert refused(local_files, "a.docx").startswith("a.docx: is of an unknown kind; ")


# --- bytes and characters


@settings(max_examples=40)
@given(text=st.text(max_size=60), size=st.integers(1, 7))
def test_a_character_cut_by_a_chunk_is_whole_again(tmp_path_factory, text, size):
    path = tmp_path_factory.getbasetemp() / "cut.txt"
    path.write_bytes(text.encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "CHUNK_BYTES", size)
        for errors in ("strict", "replace"):
            reader = FileReader([path], errors=errors)
            found = ["".join(chunks_of(document)) for document in reader.documents()]
            assert found == ([text] if text else [])
            assert not any(reader.replaced.values())  # U+FFFD in the text itself is no fault


@pytest.mark.parametrize("size", [1, 2, 3, 5, 100])
@pytest.mark.parametrize(
    ("data", "offset"), [(b"caf\xc3\xa9 \xff!", 6), (b"abc\xe2\x82", 3), (b"\xc3\xa9\xe2\x82x", 2)]
)
def test_bytes_that_are_not_utf8_are_named_by_their_offset(
    tmp_path, monkeypatch, data, offset, size
):
    monkeypatch.setattr(files, "CHUNK_BYTES", size)
    path = tmp_path / "a.txt"
    path.write_bytes(data)
    assert refused(texts, path).startswith(f"{path}: byte {offset} is not UTF-8; ")


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_replaced_bytes_are_counted(tmp_path, monkeypatch, size):
    monkeypatch.setattr(files, "CHUNK_BYTES", size)
    path = tmp_path / "a.txt"
    path.write_bytes(b"\xff one \xef\xbf\xbd two \xfe \xe2\x82")
    reader = FileReader([path], errors="replace")
    for _ in range(2):  # a second reading does not count them twice
        (document,) = reader.documents()
        assert "".join(chunks_of(document)) == "\ufffd one \ufffd two \ufffd \ufffd"
        assert reader.replaced == {path: 3}


def test_a_long_text_is_read_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "CHUNK_BYTES", 4)
    path = tmp_path / "a.txt"
    path.write_text("0123456789")
    reader = FileReader([path])
    (document,) = reader.documents()
    assert isinstance(document, LongText)
    assert list(document.chunks()) == ["0123", "4567", "89"]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (b'{"text": "a"', "2: is not JSON ("),
        (b'{"body": "a"}', "2: has no text in field 'text', but 'body'; set data.text_field"),
        (b'{"text": null}', "2: has no text in field 'text', but 'text'; "),
        (b"[1]", "2: has no text in field 'text', but list; "),
        (b'{"text": "\\ud83d"}', "2: \\ud83d is half of a character; "),
    ],
)
def test_a_line_that_is_no_document_is_named(tmp_path, line, what):
    path = tmp_path / "a.jsonl"
    path.write_bytes(as_jsonl(["x"]) + line + b"\n" + as_jsonl(["x"]))
    assert refused(texts, path).startswith(f"{path}:{what}")


def test_a_byte_in_a_line_or_row_is_named_too(tmp_path):
    lines, rows = tmp_path / "a.jsonl", tmp_path / "a.parquet"
    lines.write_bytes(b'{"text": "a"}\n{"text": "\xff"}\n')
    assert refused(texts, lines).startswith(f"{lines}: byte 24 is not UTF-8; ")
    assert texts(lines, errors="replace") == ["a", "\ufffd"]
    column = pyarrow.array([b"a", b"b\xff"]).view(pyarrow.string())
    parquet.write_table(pyarrow.table({"text": column}), rows)
    assert refused(texts, rows).startswith(f"{rows}: row 2, byte 1 is not UTF-8; ")
    assert texts(rows, errors="replace") == ["a", "b\ufffd"]


def test_half_a_character_is_replaced_on_request(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "a\\ud83db \\ud83e\\udd17"}\n')
    assert texts(path, errors="replace") == ["a\ufffdb 🤗"]


def test_a_column_that_is_not_there_is_named(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.table({"body": ["a", None]}), path)
    assert refused(texts, path).startswith(f"{path}: has no column 'text', but body; ")
    with pytest.raises(DataError, match="row 2 has no text in column 'body'"):
        texts(path, text_field="body")


@pytest.mark.parametrize("name", ["a.txt.gz", "a.jsonl.zst", "a.parquet"])
def test_a_damaged_file_is_named(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(packed(as_jsonl(DOCUMENTS), path.suffix)[:-5])
    assert refused(texts, path).startswith(f"{path}: cannot be read (")


# --- Python's own documentation


def test_docstrings_are_prose_once_and_no_module_is_run(tmp_path):
    long, other = "An égale “long” story. " * 20, "Another plain story." * 20
    (tmp_path / "b.py").write_text(f'"""{other}"""\nclass A:\n  def f():\n    """{other}"""\n')
    (tmp_path / "c.py").write_text(f'raise SystemExit\ndef f():\n  """{long}"""\n')
    (tmp_path / "a.py").write_text('"""Too short."""\n')
    (tmp_path / "d.py").write_text("not python")
    assert list(builtin._modules(tmp_path)) == [other]  # é is no plain character


def test_help_topics_are_plain_ascii(monkeypatch, tmp_path):
    monkeypatch.setattr(builtin.sysconfig, "get_path", lambda name: str(tmp_path))
    documents = list(builtin.documents())
    assert len(documents) > 50
    assert all(document.isascii() for document in documents)
    assert documents == list(builtin.documents())


# --- datasets


@pytest.fixture
def dataset(tmp_path, monkeypatch):
    """A folder that `datasets` loads; its cache stays within the test."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    datasets.disable_progress_bars()
    folder = tmp_path / "books"
    folder.mkdir()
    (folder / "train.jsonl").write_bytes(as_jsonl(DOCUMENTS, "body"))
    (folder / "validation.jsonl").write_bytes(as_jsonl(["last"], "body"))
    return folder


def hub(folder, **options):
    chosen = {"dataset": folder and str(folder), "text_field": "body", "val_split": "validation"}
    return HubSource(TextConfig(source=TextSource.hub, **chosen | options))


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_gives_its_splits(dataset, streaming):
    source = hub(dataset, streaming=streaming)
    assert list(source.documents()) == DOCUMENTS
    assert list(source.documents(val=True)) == ["last"]
    assert source.total == (None if streaming else 4)
    assert source.position == (1 if streaming else 4)
    assert [p.name for p in source.files()] == ["train.jsonl", "validation.jsonl"]


def test_a_dataset_that_cannot_be_had_is_named(dataset):
    assert refused(hub, None).startswith("data.dataset: is null; ")
    problem = refused(lambda: hub(dataset, text_field="text"))
    assert problem.startswith(f"dataset {dataset}: has no column 'text', but body")
    problem = refused(lambda: hub(dataset, val_split="vaildation"))
    assert problem.startswith(f"data.dataset: {dataset} (config None, split vaildation) cannot be")
    problem = refused(lambda: hub("nobody/nothing-at-all"))
    assert problem.startswith("data.dataset: nobody/nothing-at-all (config None, split train)")


# --- downloads


class Site(http.server.BaseHTTPRequestHandler):
    requests = 0

    def do_GET(self):
        Site.requests += 1
        if self.path == "/missing.txt":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"hel" if self.path == "/cut.txt" else b"hello")

    def log_message(self, *arguments):
        pass


@pytest.fixture
def site():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_a_download_is_fetched_once(tmp_path, site):
    Site.requests = 0
    first = download(f"{site}/a.txt", tmp_path / "data")
    assert first.read_bytes() == b"hello"
    assert download(f"{site}/a.txt", tmp_path / "data") == first
    assert Site.requests == 1
    assert list(first.parent.iterdir()) == [first]


@pytest.mark.parametrize("name", ["missing.txt", "cut.txt"])
def test_a_download_is_whole_or_not_there(tmp_path, site, name):
    problem = refused(download, f"{site}/{name}", tmp_path)
    assert problem.startswith(f"data.url: {site}/{name} cannot be downloaded (")
    assert not list(tmp_path.iterdir())


def test_without_a_network_the_address_is_named(tmp_path):
    url = "http://127.0.0.1:9/a.txt"
    assert refused(download, url, tmp_path).startswith(f"data.url: {url} cannot be downloaded (")
    for address in ("file:///etc/a.txt", "http://127.0.0.1/a.exe"):
        assert "is not the http(s) address of a text file; give .txt" in refused(
            download, address, tmp_path
        )


# --- names


def test_a_source_without_a_path_is_refused(tmp_path):
    assert refused(open_source, TextConfig(), tmp_path).startswith("data.path: is null")


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"path": "x/my book.txt.gz"}, "my-book"),
        ({"path": "x/web/*.jsonl"}, "web"),
        ({"path": "/"}, "text"),
        ({"url": "http://x/y/input.txt"}, "input"),
        ({"source": TextSource.hub, "dataset": "a/fineweb-edu@v1"}, "fineweb-edu"),
        ({"source": TextSource.builtin}, "builtin"),
    ],
)
def test_the_stem_is_readable(options, name):
    assert stem(TextConfig(**options)) == name


def test_only_what_decides_the_ids_counts(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plain = deciding(TextConfig(path="a.txt"))
    absolute = os.path.join(tmp_path, "a.txt")  # noqa: PTH118
    assert plain == deciding(TextConfig(path=absolute, num_processes=3, eval_tokens=9))
    assert plain != deciding(TextConfig(path="a.txt", val_share=0.2))
    assert plain != deciding(TextConfig(path="b.txt"))


def test_a_file_that_links_lead_to_twice_is_read_once(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    (tmp_path / "self").symlink_to(".")
    (tmp_path / "b.txt").symlink_to("a.txt")
    for path in (tmp_path, tmp_path / "**" / "*.txt"):
        assert local_files(str(path)) == [tmp_path / "a.txt"]
