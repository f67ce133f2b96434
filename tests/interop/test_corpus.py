"""P8, F5: thousands of real messages, and those that are there because they broke a parser, come out as they went in, and a DKIM signature that was good still is.

Where they are from: Debian's packages of a threading library (the SpamAssassin project's public corpus of mail), of enmime and of Python's email package (their test data)."""
import concurrent.futures
import hashlib
import re
import subprocess

import dkim
import pytest
from letters import below_trace
from mta import unpacked
from nasty import Nasty
from node import Node, Sink, Smtp, wait_for

SOURCES = {"golang-github-gatherstars-com-jwz-dev": ("*.eml", 2000), "golang-github-jhillyerd-enmime-dev": ("*.raw", 60), "libpython3.11-testsuite": ("test_email/data/msg_*.txt", 40)}
SIGNED_EACH = 6
BOTH = ("PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING")


def crlf(data):
    """As a client sends it: what is no line end of mail was none before either."""
    return re.sub(rb"\r\n?|\n", b"\r\n", data).replace(b"\0", b"")


def letters():
    """(name, message)"""
    for package, (pattern, least) in SOURCES.items():
        files = sorted(unpacked(package).rglob(pattern))
        assert len(files) >= least, (package, len(files))
        for path in files:
            data = crlf(path.read_bytes())
            if data and data.count(b"\nReceived:") < 25:  # more is a loop (B6)
                yield f"{package}/{path.name}", data if data.endswith(b"\r\n") else data + b"\r\n"


class Signer:
    """A domain's key; `simple` in header and body: every octet counts."""

    def __init__(self, tmp):
        key = tmp / "dkim.pem"
        subprocess.run(["openssl", "genrsa", "-traditional", "-out", key, "1024"], check=True, capture_output=True)
        public = subprocess.run(["openssl", "rsa", "-in", key, "-pubout", "-outform", "PEM"], check=True, capture_output=True, text=True).stdout
        self.private, self.record = key.read_bytes(), ("v=DKIM1; k=rsa; p=" + "".join(public.split("\n")[1:-2])).encode()

    def signed(self, data):
        return dkim.sign(data, b"s", b"cam.example", self.private, canonicalize=(b"simple", b"simple"), include_headers=[b"from", b"subject", b"to", b"date"]) + data

    def is_good(self, data):
        return dkim.verify(data, dnsfunc=lambda name, timeout=5: self.record)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The same relay to a server without CHUNKING and to one with it; received by DATA and by BDAT, in the clear."""
    tmp = tmp_path_factory.mktemp("corpus")
    sink, chunks = Sink(extensions=("PIPELINING", "8BITMIME", "SMTPUTF8")), Nasty(extensions=BOTH)
    node = Node(tmp, routes=f'[{{domain: chunks.example, to: "smtp:[127.0.0.1]:{chunks.port}", tls: never}}, {{domain: "*", to: "smtp:[127.0.0.1]:{sink.port}", tls: never}}]')
    yield node, sink, chunks, Signer(tmp)
    node.stop()
    sink.stop()
    chunks.stop()


def send(c, i, data):
    for cmd in (f"MAIL FROM:<a{i}@cam.example> BODY=8BITMIME", f"RCPT TO:<b{i}@{'chunks' if i % 3 == 0 else 'lines'}.example>"):
        assert c.cmd(cmd).startswith("250"), i
    if i % 4 < 2:
        assert c.cmd("DATA").startswith("354")
        c.send(re.sub(rb"(?m)^\.", b"..", data) + b".\r\n")
    else:
        half = i % len(data)
        c.send(b"BDAT %d\r\n" % half + data[:half] + b"BDAT %d LAST\r\n" % (len(data) - half) + data[half:])
        assert c.reply().startswith("250")
    r = c.reply()
    assert r.startswith("250"), (i, r)


def session(node, messages):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    for i, data in messages.items():
        send(c, i, data)
    c.close()


def test_p8_messages_are_octet_for_octet_the_same_and_signatures_hold(world):
    node, sink, chunks, signer = world
    sent, names, signed = {}, {}, set()
    for i, (name, data) in enumerate(letters()):
        if i % SIGNED_EACH == 0 and re.search(rb"(?mi)^From:", data.split(b"\r\n\r\n")[0]):
            data = signer.signed(re.sub(rb"\AFrom [^\r]*\r\n", b"", data))
            assert signer.is_good(data), name
            signed.add(i)
        sent[i], names[i] = data, name
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(session, node, {i: d for i, d in sent.items() if i % 8 == k}) for k in range(8)]:
            done.result()
    assert len(sent) > 2100 and len(signed) > 300
    print(f"{len(sent)} messages, {sum(map(len, sent.values())) >> 20} MiB, {len(signed)} signed, {sum(not d.isascii() for d in sent.values())} 8-bit")
    assert wait_for(lambda: len(sink.messages) + len(chunks.messages) >= len(sent), 120), (len(sink.messages), len(chunks.messages))
    came = {int(m["from"][1:].split("@")[0]): m["data"] for m in sink.messages + chunks.messages}
    assert sorted(came) == sorted(sent) and len(sink.messages) + len(chunks.messages) == len(sent)
    for i, data in came.items():
        assert below_trace(data, sent[i]), (names[i], hashlib.sha1(data).hexdigest())
        assert i not in signed or signer.is_good(data), names[i]
    assert not re.search(rb"\r(?!\n)|(?<!\r)\n|\0", bytes(sink.raw))
