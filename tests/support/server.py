"""A server on a socket of the test's own: a thread for each connection, until stop()."""
import socket
import threading


class Server:
    """Has port; whoever derives from it gives _session(s)."""

    def __init__(self, address="127.0.0.1", port=0, backlog=128):
        self.host = address
        self.listener = socket.create_server((address, port), backlog=backlog)
        self.port = self.listener.getsockname()[1]
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def _accept(self):
        while True:
            try:
                s, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._session, args=(s,), daemon=True).start()

    def stop(self):
        try:
            self.listener.shutdown(socket.SHUT_RDWR)  # which ends accept
        except OSError:
            pass
        self.listener.close()
        self.accepting.join()
