"""A stand-in for Google Cloud Storage: the four requests of its JSON API that are used, with their conditions.

No package gives a server of gs:// that honours ifGenerationMatch, on which leases rest.
"""

import json
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Objects = dict[str, tuple[int, bytes]]


class GcsServer(ThreadingHTTPServer):
    """Buckets: name -> object -> (generation, content)."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.buckets: dict[str, Objects] = {}
        self.generation = 1000
        self.lock = threading.Lock()
        self.seen: set[str] = set()
        """Values of the Authorization header."""


class _Handler(BaseHTTPRequestHandler):
    server: GcsServer

    def _take(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        asked = dict(urllib.parse.parse_qsl(url.query))
        parts = url.path.removeprefix("/upload").split("/")  # /storage/v1/b/BUCKET/o[/OBJECT]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.lock:
            self.server.seen.add(self.headers.get("Authorization", ""))
            objects = self.server.buckets.get(parts[4])
            if objects is None:
                self._answer(404, {"error": {"code": 404, "message": "The specified bucket does not exist."}})
            elif self.command == "POST":
                self._write(objects, asked, body)
            elif len(parts) == 6:
                self._list(objects, asked)
            else:
                self._one(objects, urllib.parse.unquote(parts[6]), asked)

    do_GET = do_POST = do_DELETE = _take

    def _list(self, objects: Objects, asked: dict[str, str]) -> None:
        first, end, prefix = asked.get("startOffset", ""), asked.get("endOffset"), asked.get("prefix", "")
        names = [n for n in sorted(objects) if n >= first and (not end or n < end) and n.startswith(prefix)]
        self._answer(200, {"kind": "storage#objects", "items": [{"name": n} for n in names]})

    def _write(self, objects: Objects, asked: dict[str, str], body: bytes) -> None:
        name = asked["name"]
        if self._refused(objects, name, asked):
            return
        self.server.generation += 1
        objects[name] = (self.server.generation, body)
        self._answer(200, {"name": name, "generation": str(self.server.generation), "size": str(len(body))})

    def _one(self, objects: Objects, name: str, asked: dict[str, str]) -> None:
        if self._refused(objects, name, asked):
            return
        if name not in objects:
            self._answer(404, {"error": {"code": 404, "message": f"No such object: {name}"}})
        elif self.command == "DELETE":
            del objects[name]
            self._answer(204, None)
        else:
            self._answer(200, objects[name][1], objects[name][0])

    def _refused(self, objects: Objects, name: str, asked: dict[str, str]) -> bool:
        now = objects[name][0] if name in objects else 0
        if int(asked.get("ifGenerationMatch", now)) != now:
            self._answer(412, {"error": {"code": 412, "message": "conditionNotMet"}})
        elif "ifGenerationNotMatch" in asked and int(asked["ifGenerationNotMatch"]) == now:
            self._answer(304, None, now)
        else:
            return False
        return True

    def _answer(self, status: int, value: Any, generation: int | None = None) -> None:
        body = value if isinstance(value, bytes) else b"" if value is None else json.dumps(value).encode()
        self.send_response(status)
        if generation is not None:
            self.send_header("X-Goog-Generation", str(generation))
            self.send_header("X-Goog-Metageneration", "1")
            self.send_header("X-Goog-Storage-Class", "STANDARD")
        if status not in (204, 304):
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
