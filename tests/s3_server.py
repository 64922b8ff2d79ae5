"""A read-only S3 of our own on the loopback address: as much of its HTTP interface as pyarrow asks for to list and read files."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

DATE = "2026-01-01T00:00:00.000Z"


@contextmanager
def s3_server(buckets: Mapping[str, Path]) -> Iterator[int]:
    """Serves the files of folders, each as a bucket; gives the port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            asked = urlsplit(self.path)
            bucket, _, key = unquote(asked.path).lstrip("/").partition("/")
            folder = buckets.get(bucket)
            if folder is None:
                self.answer(404, error("NoSuchBucket"))
            elif not key:
                self.answer(200, listing(bucket, folder, parse_qs(asked.query)))
            elif not (folder / key).is_file():
                self.answer(404, error("NoSuchKey"))
            elif wanted := self.headers["Range"]:
                data = (folder / key).read_bytes()
                first, _, last = wanted.removeprefix("bytes=").partition("-")
                stop = min(int(last or len(data)) + 1, len(data))
                self.answer(206, data[int(first) : stop], f"bytes {first}-{stop - 1}/{len(data)}")
            else:
                self.answer(200, (folder / key).read_bytes())

        def do_HEAD(self) -> None:
            self.do_GET()

        def answer(self, status: int, body: bytes, content_range: str | None = None) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
            self.send_header("ETag", '"0"')
            if content_range:
                self.send_header("Content-Range", content_range)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Prints nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def error(code: str) -> bytes:
    """What S3 says when something is not there."""
    return f"<Error><Code>{code}</Code><Message>not here</Message></Error>".encode()


def listing(bucket: str, folder: Path, query: Mapping[str, list[str]]) -> bytes:
    """The answer to ListObjectsV2, in one page, without a delimiter."""
    (prefix,) = query.get("prefix", [""])
    keys = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    contents = "".join(
        f"<Contents><Key>{escape(key)}</Key><LastModified>{DATE}</LastModified><ETag>&quot;0&quot;</ETag>"
        f"<Size>{(folder / key).stat().st_size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        for key in keys
        if key.startswith(prefix)
    )
    return (
        f'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>{bucket}</Name>'
        f"<Prefix>{escape(prefix)}</Prefix><KeyCount>{contents.count('<Key>')}</KeyCount><MaxKeys>1000</MaxKeys>"
        f"<IsTruncated>false</IsTruncated>{contents}</ListBucketResult>"
    ).encode()
