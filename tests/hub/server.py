"""A small Hugging Face Hub: two real HTTP servers (the Hub and its CDN, which is another origin) over one state."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs

from tests.hub import job_routes, routes  # noqa: F401 - their endpoints are found once they are imported
from tests.hub.faults import Fault
from tests.hub.protocol import Answer, Request, World, answer
from tests.hub.state import Account, State, as_json


class LocalHub:
    """The hub while it runs; ``requests`` lists "METHOD path" as they came, ``faults`` is what to do wrong."""

    def __init__(self, store: Path, listener: socket.socket | None = None) -> None:
        self.requests: list[str] = []
        self.faults: list[Fault] = []
        self._hub, self._cdn = self._serve(listener), self._serve(None)
        endpoint, cdn = (f"http://127.0.0.1:{s.server_address[1]}" for s in (self._hub, self._cdn))
        self.world = World(State(), endpoint, cdn, store)

    @property
    def endpoint(self) -> str:
        return self.world.endpoint

    @property
    def state(self) -> State:
        return self.world.state

    def reset(self) -> None:
        """Forget everything but the address."""
        self.world.state, self.requests, self.faults = State(), [], []

    def add_account(self, name: str, write: bool = True) -> str:
        """A new token of the user ``name``."""
        token = f"hf_{name}_{len(self.state.accounts)}"
        self.state.accounts[token] = Account(name, write)
        return token

    def close(self) -> None:
        for server in (self._hub, self._cdn):
            server.shutdown()
            server.server_close()

    def _serve(self, listener: socket.socket | None) -> ThreadingHTTPServer:
        handler = type("Handler", (_Handler,), {"hub": self})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler, bind_and_activate=listener is None)
        if listener is not None:
            server.socket.close()
            server.socket, server.server_address = listener, listener.getsockname()
            server.server_activate()
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: LocalHub

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        body = self._body()
        line = f"{self.command} {path}"
        self.hub.requests.append(line)
        fault = next((fault for fault in self.hub.faults if fault.strikes(line)), None)
        if fault and fault.kind == "drop":
            self.close_connection = True
            return
        if fault and isinstance(fault.kind, int):
            self._send(Answer(fault.kind, as_json({"error": "on demand"}), fault.headers))
            return
        made = self._answer(path, query, body)
        if fault and fault.kind == "stall":
            self.close_connection = True
            self.rfile.read(1)  # until the client gives up
            return
        self._send(made, cut=fault is not None)

    do_HEAD = do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, path: str, query: str, body: bytes) -> Answer:
        headers = {name.lower(): value for name, value in self.headers.items()}
        token = headers.get("authorization", "").removeprefix("Bearer ")
        account = self.hub.state.accounts.get(token)
        on_cdn = path.startswith(("/upload/", "/blob/"))
        if token and account is None and not on_cdn:
            wrong = "Invalid credentials in Authorization header"
            return Answer(401, as_json({"error": wrong}), {"X-Error-Message": wrong})
        return answer(self.hub.world, Request(self.command, path, parse_qs(query), headers, body, account))

    def _send(self, made: Answer, cut: bool = False) -> None:
        """Head and body in one write: two would wait for each other on a socket."""
        lines = [f"HTTP/1.1 {made.status} {'OK' if made.status < 300 else 'No'}"]
        headers = {"Content-Type": "application/json", "Content-Length": str(len(made.body))} | made.headers
        lines += [f"{name}: {value}" for name, value in headers.items()]
        body = b"" if self.command == "HEAD" else made.body
        message = "\r\n".join([*lines, "", ""]).encode() + body
        if cut:
            message = message[: len(message) - max(1, len(body) // 2)] if body else message[: len(message) // 2]
            self.close_connection = True
        self.wfile.write(message)

    def log_message(self, *_: object) -> None:
        """Say nothing: what came is in ``requests``."""
