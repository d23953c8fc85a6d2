"""A web server for files, on the loopback, that can break off, know no ranges, or have a file changed."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class FileServer:
    """What it serves and how; `asked` is the headers of each request so far."""

    files: dict[str, bytes] = field(default_factory=dict)
    etags: dict[str, str] = field(default_factory=dict)
    breaks_after: list[int] = field(default_factory=list)
    knows_ranges: bool = True
    heeds_if_range: bool = True
    statuses: list[int] = field(default_factory=list)
    address: str = ""
    asked: list[dict[str, str]] = field(default_factory=list)

    def url(self, name: str) -> str:
        return f"{self.address}/{name}"


@contextmanager
def file_server(**how: object) -> Iterator[FileServer]:
    served = FileServer(**how)  # type: ignore[arg-type]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.asked.append(dict(self.headers))
            name = self.path.partition("?")[0].lstrip("/")
            status = served.statuses.pop(0) if served.statuses else 200 if name in served.files else 404
            content, etag = served.files.get(name, b""), served.etags.get(name, "")
            start = int(match[1]) if (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))) else 0
            is_same = self.headers.get("If-Range", etag) == etag or not served.heeds_if_range
            if status == 200 and start and served.knows_ranges and is_same:
                status = 206 if start < len(content) else 416
            body = content[start:] if status == 206 else content if status == 200 else b""
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            if status == 206:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if etag:
                self.send_header("ETag", etag)
            self.end_headers()
            self.wfile.write(body[: served.breaks_after.pop(0)] if served.breaks_after and body else body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
