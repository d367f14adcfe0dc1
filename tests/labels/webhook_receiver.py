"""A server that webhooks point at; how it behaves is the path."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    """Takes deliveries: /ok, /fail, /hang, /flood, /redirect, /gone, /drip."""

    def __init__(self):
        self.requests = []
        self.released = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                receiver.requests.append((self.path, dict(self.headers), body))
                receiver.behave(self)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def behave(self, handler):
        """Answer as the path says."""
        kind = handler.path.strip("/")
        if kind == "hang":
            self.released.wait(30)
            return
        status = {"ok": 204, "fail": 500, "gone": 410, "redirect": 302}.get(kind, 200)
        handler.send_response(status)
        if kind == "redirect":
            handler.send_header("Location", self.url("ok"))
        handler.end_headers()
        if kind == "flood":
            try:
                while not self.released.is_set():
                    handler.wfile.write(b"x" * 65536)
            except OSError:
                self.released.set()
        while kind == "drip" and not self.released.wait(0.1):
            handler.wfile.write(b"x")

    def url(self, path, host="127.0.0.1"):
        """Where it behaves so."""
        return f"http://{host}:{self.server.server_port}/{path}"

    def close(self):
        """Nobody listens any more."""
        self.released.set()
        self.server.shutdown()
        self.server.server_close()
