"""P22: who speaks another protocol is closed at once, on every listener, and nothing that follows is read as a command."""
import ssl
import subprocess

import pytest
from node import BIN, Node, Sink, Smtp, free_port, wait_for

EVIL = b"EHLO evil.test\r\nMAIL FROM:<evil@cam.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\nQUIT\r\n"
HTTP = b" HTTP/1.1\r\nHost: relay.cam.example\r\nContent-Length: %d\r\n\r\n" % len(EVIL)
HELLO = b"\x16\x03\x01\x00\x31\x01\x00\x00\x2d\x03\x03" + b"A" * 32 + b"\x00\x00\x02\x13\x01\x01\x00"
SPOKEN = {
    "get": b"GET /" + HTTP, "post": b"POST /" + HTTP, "connect": b"CONNECT mx.example.org:25" + HTTP, "any method": b"X-ANY /" + HTTP, "long": b"POST /" + b"x" * 5000 + HTTP,
    "tls hello": HELLO, "old tls hello": b"\x80\x2e\x01\x03\x01\x00\x15\x00\x00\x00\x10" + b"A" * 37,
    "proxy v1": b"PROXY TCP4 127.0.0.1 127.0.0.1 4096 25\r\n", "proxy v2": b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\x7f\0\0\1\x7f\0\0\1\0\1\0\x19", "ssh": b"SSH-2.0-OpenSSH_9.2\r\n", "sip": b"INVITE sip:b@cam.example SIP/2.0\r\n",
}
# name of the listener: whether the client begins TLS first
LISTENERS = {"port": None, "smtps": "implicit", "submission": None, "submissions": "implicit", "lmtp": None, "normalise": None, "balanced": None}
WAYS = [(at, how) for at, tls in LISTENERS.items() for how in ((tls, None) if tls else (None, "starttls") if at != "balanced" else (None,))]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    tmp, sink = tmp_path_factory.mktemp("foreign"), Sink()
    ports = {name: free_port() for name in ("lmtp", "normalise", "balanced")}
    (tmp / "passwords").write_text(subprocess.run([BIN / "weirctl", "auth", "hash", "user"], input="secret\n", capture_output=True, text=True, check=True).stdout)
    n = Node(tmp, sink.port, engine="trivial", submission=True, extra=f"auth: {{password_file: {tmp}/passwords}}\nbalancers: [127.0.0.77]\nlimits: {{tls_handshakes: 0}}\n", listeners=[
        f'{{address: "127.0.0.1:{ports["lmtp"]}", role: lmtp}}', f'{{address: "127.0.0.1:{ports["normalise"]}", bare_lf: normalise}}', f'{{address: "127.0.0.1:{ports["balanced"]}", proxy: yes}}'])
    for name, port in ports.items():
        setattr(n, name, port)
    n.sink = sink
    yield n
    n.stop()
    sink.stop()


def connection(node, at, how):
    c = Smtp(getattr(node, at), greet=False, timeout=20)
    if how == "starttls":
        assert c.reply().startswith("220") and c.cmd("STARTTLS").startswith("220")
    if how:
        c = Smtp(0, sock=ssl._create_unverified_context().wrap_socket(c.s), greet=False)
    return c


@pytest.mark.parametrize("spoken", SPOKEN)
@pytest.mark.parametrize("at,how", WAYS)
def test_p22_another_protocol_is_closed_at_once(node, at, how, spoken):
    """However it begins: in the clear, under TLS, or in the clear where TLS should be."""
    if spoken == "tls hello" and LISTENERS[at] == "implicit" and not how:
        return  # there it is what should come
    c = connection(node, at, how)
    heard = b""
    try:
        c.send(SPOKEN[spoken] + EVIL)
        while data := c.s.recv(65536):
            heard += data
    except (ConnectionError, ssl.SSLError):
        pass  # a reset is an end
    c.close()
    replies = [line for line in heard.split(b"\r\n") if line[:3].isdigit() and not line.startswith(b"220")]
    # nothing, or one refusal; the signature of PROXY v2 is empty lines and a QUIT with a bare LF
    assert not [r for r in replies if r[:1] not in b"5" and not (spoken == "proxy v2" and at == "normalise" and r == replies[-1] and r.startswith(b"221 "))], heard
    assert len(replies) <= (4 if spoken == "proxy v2" else 1), heard


def test_p22_nothing_came_of_it(node):
    assert wait_for(lambda: node.counters()["sessions_open"] == 0)
    assert node.queue() == [] and node.sink.count == 0 and node.counters()["messages_accepted_total"] == 0
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", ["b@example.org"], b"Subject: x\r\n\r\n").startswith("250")
    c.close()
