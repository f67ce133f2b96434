"""A listener in front of an SMTP server that writes down what both sides say: what two programs agree on can be seen only there."""
import contextlib
import re
import socket
import threading

from node import free_port


class Session:
    def __init__(self):
        self.turns = []  # (who, bytes) as they came

    def said(self, who):
        return b"".join(data for w, data in self.turns if w == who)

    def commands(self, verb):
        return [x.decode() for x in re.findall(rb"(?mi)^(%s\b[^\r\n]*)\r\n" % verb.encode(), self.said("client"))]

    def pipelined(self):
        """The client did not wait for the answer to MAIL."""
        return any(re.search(rb"(?i)MAIL FROM:.*\r\nRCPT TO:", data) for who, data in self.turns if who == "client")


class Tap:
    def __init__(self, to=None):
        """`to` is the server's port; it can be put in later, and None is a server that ends every connection at once."""
        self.to, self.port, self.sessions, self.turned_away = to, free_port(), [], 0
        self.open = []
        self.listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(("127.0.0.1", self.to or 1), 10)
            except OSError:
                client.close()
                self.turned_away += 1
                continue
            server.settimeout(None)
            session = Session()
            self.open = [x for x in self.open if x.fileno() >= 0] + [client, server]
            self.sessions.append(session)
            for who, source, to in (("client", client, server), ("server", server, client)):
                threading.Thread(target=self._copy, args=(session, who, source, to), daemon=True).start()

    def cut(self):
        """Ends all sessions."""
        for s in self.open:
            with contextlib.suppress(OSError):
                s.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _copy(session, who, source, to):
        try:
            while data := source.recv(1 << 16):
                session.turns.append((who, data))
                to.sendall(data)
            to.shutdown(socket.SHUT_WR)
        except OSError:
            for s in (source, to):
                with contextlib.suppress(OSError):
                    s.shutdown(socket.SHUT_RDWR)

    def session(self, text):
        """The newest session in which the client said `text`, or None."""
        text = text.encode()
        return next((s for s in reversed(self.sessions) if text in s.said("client")), None)

    def stop(self):
        self.listener.close()
