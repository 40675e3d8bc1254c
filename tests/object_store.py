"""A server that answers gcsfs, TensorStore and Google's client as Google Cloud Storage does, as far as tests need it.

Objects live in memory, each with a generation that counts its versions, and the conditions on it are kept: TensorStore
relies on them.
"""

import contextlib
import http.server
import json
import os
import pathlib
import re
import sys
import threading
import urllib.parse

BUCKET = "bucket"


class ObjectStore(http.server.ThreadingHTTPServer):
    """One bucket.

    Attributes:
      objects: names to (generation, content).
      parts: ids of unfinished uploads to their content so far.
      requests: method and address of all so far.
      refuse: given method and address, the status of an error to answer with, or None.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.objects: dict[str, tuple[int, bytes]] = {}
        self.parts: dict[str, bytes] = {}
        self.requests: list[tuple[str, str]] = []
        self.refuse = lambda method, target: None
        self.lock = threading.Lock()
        self.generation = 0

    def put(self, folder: pathlib.Path, name: str) -> str:
        """Puts the files of a local folder under a name; returns its URL."""
        for file in filter(pathlib.Path.is_file, folder.iterdir()):
            self.generation += 1
            self.objects[f"{name}/{file.name}"] = self.generation, file.read_bytes()
        return f"gs://{BUCKET}/{name}"

    def handle_error(self, request, client_address):
        """Silent where the client did not wait for the end, as TensorStore does when it has read the status."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Silent."""

    def _serve(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        with self.server.lock:
            status, headers, content = self._answer(self.command, self.path, body)
        self.send_response(status)
        for name, value in {**headers, "Content-Length": len(content)}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_DELETE = _serve  # noqa: N815 (the base class looks for these names)

    def _answer(self, method, target, body):
        """Status, headers and content for a request."""
        self.server.requests.append((method, target))
        refused = self.server.refuse(method, target)
        if refused:
            return refused, {}, b'{"error": {"message": "refused"}}'
        url = urllib.parse.urlsplit(target)
        query = {key: values[0] for key, values in urllib.parse.parse_qs(url.query).items()}
        match = re.fullmatch(r"(?:/upload|/download)?/storage/v1/b/([^/]+)(?:/o(?:/(.+))?)?", url.path)
        if not match or match[1] != BUCKET:
            return 404, {}, b'{"error": {"code": 404, "message": "not found"}}'
        name = urllib.parse.unquote(match[2] or "")
        if method in ("POST", "PUT"):
            return self._upload(target, query, body)
        if name:
            return self._object(method, name, query, media=query.get("alt") == "media")
        if not url.path.endswith("/o"):
            return _json({"kind": "storage#bucket", "name": BUCKET, "location": "any"})
        return _json(self._list(query.get("prefix", ""), query.get("delimiter", "")))

    def _list(self, prefix, delimiter):
        names = sorted(name for name in self.server.objects if name.startswith(prefix))
        ends = {name: name.find(delimiter, len(prefix)) if delimiter else -1 for name in names}
        return {
            "kind": "storage#objects",
            "items": [self._resource(name) for name in names if ends[name] < 0],
            "prefixes": sorted({name[: ends[name] + 1] for name in names if ends[name] >= 0}),
        }

    def _resource(self, name):
        generation, content = self.server.objects[name]
        time = "2026-01-01T00:00:00.000Z"
        size = {"size": str(len(content)), "generation": str(generation), "metageneration": "1"}
        return {"kind": "storage#object", "bucket": BUCKET, "name": name, "timeCreated": time, "updated": time, **size}

    def _refused(self, name, query):
        """The status with which a condition on the generation fails, or None."""
        generation = self.server.objects.get(name, (0, b""))[0]
        if "ifGenerationMatch" in query and int(query["ifGenerationMatch"]) != generation:
            return 412
        return 304 if query.get("ifGenerationNotMatch") == str(generation) else None

    def _upload(self, target, query, body):
        name = query.get("name", "")
        if query["uploadType"] == "resumable" and "upload_id" not in query:  # the content comes to another address
            self.server.generation += 1
            name = urllib.parse.quote(name or json.loads(body)["name"], safe="")
            address = f"{os.environ['STORAGE_EMULATOR_HOST']}{target}&name={name}&upload_id={self.server.generation}"
            return 200, {"Location": address}, b""
        if "upload_id" in query:
            body = self.server.parts.pop(query["upload_id"], b"") + body
            if self.headers["Content-Range"].endswith("/*"):  # more is to come
                self.server.parts[query["upload_id"]] = body
                return 308, {"Range": f"bytes=0-{len(body) - 1}"}, b""
        if query["uploadType"] == "multipart":  # a JSON with the name, then the content
            _, about, content = body.split(b"\n\n", 2)
            about, body = (part[: part.rindex(b"\n--")] for part in (about, content))
            name = json.loads(about)["name"]
        refused = self._refused(name, query)
        if refused:
            return refused, {}, b""
        self.server.generation += 1
        self.server.objects[name] = self.server.generation, body
        return _json(self._resource(name))

    def _object(self, method, name, query, *, media):
        refused = self._refused(name, query)
        if name not in self.server.objects:
            return 404, {}, b""
        generation, content = self.server.objects[name]
        if refused:
            return refused, {"x-goog-generation": generation}, b""
        if method == "DELETE":
            del self.server.objects[name]
            return 204, {}, b""
        if not media:
            return _json(self._resource(name))
        span = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not span:
            return 200, {"x-goog-generation": generation}, content
        start, end = int(span[1]), min(len(content), int(span[2] or len(content)) + 1)
        if start >= len(content):
            return 416, {}, b""
        where = f"bytes {start}-{end - 1}/{len(content)}"
        return 206, {"x-goog-generation": generation, "Content-Range": where}, content[start:end]


def _json(value):
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


@contextlib.contextmanager
def running():
    """The server; while it runs, the environment of this process sends all clients to it, without credentials."""
    store = ObjectStore()
    url = f"http://127.0.0.1:{store.server_port}"
    environment = {
        "STORAGE_EMULATOR_HOST": url,
        "TENSORSTORE_GCS_HTTP_URL": url,
        "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",
        "GOOGLE_CLOUD_PROJECT": "any",
        "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",  # would ask another service for the kind of the bucket
    }
    before = dict(os.environ)
    os.environ.update(environment)
    threading.Thread(target=store.serve_forever, daemon=True).start()
    try:
        yield store
    finally:
        os.environ.clear()
        os.environ.update(before)
        store.shutdown()
        store.server_close()
