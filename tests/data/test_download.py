"""Downloads: continued after interruptions, whole by their checksum, unpacked safely."""

import hashlib
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

import ligr_jax.data.sources.download
from ligr_jax.cli import main
from ligr_jax.data.schema import BadInput
from ligr_jax.data.sources.adapter import Archive
from ligr_jax.data.sources.download import download
from ligr_jax.data.sources.formats import ADAPTERS
from ligr_jax.data.sources.unpack import unpack_archive
from tests.data.test_kuairand import write_csv_layout

CONTENT = np.random.default_rng(0).bytes(300_000)


class Server(ThreadingHTTPServer):
    """Serves `content` at every path, with faults.

    ranges: whether it has HTTP ranges.
    drops: number of replies that end after `drop_after` bytes.
    status: of all replies, if not 0.
    asked: the Range header of each request.
    """

    content, ranges, drops, drop_after, status = CONTENT, True, 0, 100_000, 0

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[str | None] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/archive.tar.gz"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, asked = self.server, self.headers["Range"]
        server.asked.append(asked)
        size = len(server.content)
        start = int(asked[6:-1]) if asked and server.ranges else 0
        if server.status or start >= size:
            self.send_error(server.status or 416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        end = size
        if server.drops:
            server.drops -= 1
            end = start + server.drop_after
        self.wfile.write(server.content[start:end])

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setattr(ligr_jax.data.sources.download, "WAIT_S", 0)
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def checksum(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


def test_a_download_that_drops_is_continued(server: Server, tmp_path: Path) -> None:
    server.drops = 2
    file = download(server.url, checksum(CONTENT), tmp_path / "a" / "file")
    assert file.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-", "bytes=200000-"]
    assert [p.name for p in file.parent.iterdir()] == ["file"]
    assert download(server.url, checksum(CONTENT), file) == file
    assert len(server.asked) == 3  # kept, not downloaded again


def test_a_server_without_ranges_starts_again(server: Server, tmp_path: Path) -> None:
    server.ranges, server.drops = False, 1
    file = download(server.url, checksum(CONTENT), tmp_path / "file")
    assert file.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=100000-"]


def test_a_partial_file_of_an_earlier_process_is_continued(server: Server, tmp_path: Path) -> None:
    for size, asked in ((250_000, 1), (len(CONTENT), 1), (len(CONTENT) + 9, 1)):
        server.asked.clear()
        (tmp_path / "file.partial").write_bytes((CONTENT + bytes(9))[:size])
        if size > len(CONTENT):
            with pytest.raises(BadInput, match=r"md5 is .* the file was removed"):
                download(server.url, checksum(CONTENT), tmp_path / "file")
        else:
            download(server.url, checksum(CONTENT), tmp_path / "file").unlink()
        assert server.asked == [f"bytes={size}-"] * asked
        assert not list(tmp_path.iterdir())


def test_failures_say_what_to_do(server: Server, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"md5 is .*, expected 0000"):
        download(server.url, "md5:0000", tmp_path / "file")
    server.status = 404
    with pytest.raises(BadInput, match=r"HTTP 404: .* copy it to .*/file"):
        download(server.url, checksum(CONTENT), tmp_path / "file")
    server.status = 503
    server.asked.clear()
    with pytest.raises(BadInput, match="HTTP 503"):
        download(server.url, checksum(CONTENT), tmp_path / "file")
    assert len(server.asked) == ligr_jax.data.sources.download.TRIES
    server.status, server.drops, server.drop_after = 0, 99, 0
    (tmp_path / "file.partial").write_bytes(CONTENT[:7])
    with pytest.raises(BadInput, match=r"ended after 7 of 300,000 bytes.*partial is kept"):
        download(server.url, checksum(CONTENT), tmp_path / "file")
    (tmp_path / "file.partial").unlink()
    with pytest.raises(BadInput, match=r"cannot download .* copy it to .*/file"):
        download("http://127.0.0.1:9/file", checksum(CONTENT), tmp_path / "file")


def tar_of(members: dict[str, str], links: dict[str, str] | None = None) -> bytes:
    """Return a tar.gz file of texts and symbolic links by name."""
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as archive:
        for name, text in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            archive.addfile(member)
    return stream.getvalue()


@pytest.mark.parametrize(
    ("members", "links"),
    [
        ({"top/a": "1", "../b": "2"}, {}),
        ({"top/a": "1"}, {"top/link": "/etc"}),
        ({"top/a": "1"}, {"top/link": "../../.."}),
    ],
)
def test_a_tar_file_that_leaves_its_directory_is_refused(
    tmp_path: Path, members: dict[str, str], links: dict[str, str]
) -> None:
    (tmp_path / "a.tar.gz").write_bytes(tar_of(members, links))
    with pytest.raises(BadInput, match=r"a.tar.gz: cannot be unpacked \("):
        unpack_archive(tmp_path / "a.tar.gz", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["a.tar.gz"]


def test_zip_files_are_unpacked_without_their_top_directory(tmp_path: Path) -> None:
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("top/a", "1")
        opened.writestr("__MACOSX/._a", "")
    unpack_archive(archive, tmp_path / "out")
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a"]
    assert len(list(tmp_path.iterdir())) == 2
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("../a", "1")
    with pytest.raises(BadInput, match=r"member '../a' is outside"):
        unpack_archive(archive, tmp_path / "out2")
    archive.write_bytes(b"PK damaged")
    with pytest.raises(BadInput, match="download it again"):
        unpack_archive(archive, tmp_path / "out2")


def test_the_command_prepares_a_directory_for_prepare(
    server: Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    write_csv_layout(tmp_path / "KuaiRand-Pure")
    files = (tmp_path / "KuaiRand-Pure").rglob("*.csv")
    server.content = tar_of({str(f.relative_to(tmp_path)): f.read_text() for f in files})
    archives = {"kuairand-pure": Archive(server.url, checksum(server.content))}
    monkeypatch.setitem(ADAPTERS["kuairand"].__dict__, "archives", archives)
    words = ["download", "kuairand-pure", "--out", str(tmp_path / "out")]
    for _ in range(2):
        assert main(words) == 0
        assert "CC BY-SA" in capsys.readouterr().out
    assert len(server.asked) == 1
    directory = tmp_path / "out" / "kuairand-pure"
    assert ADAPTERS["kuairand"].lacking(directory) == []
    assert main(["download", "kuairand", "--out", str(tmp_path)]) == 1
    assert "the names are kuairand-pure" in capsys.readouterr().err
    assert main(["download", "mind", "--out", str(tmp_path)]) == 1
    assert "Microsoft Research terms" in capsys.readouterr().err
