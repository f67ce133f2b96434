"""P11: what a remote server says is data. It is cut and stripped, and makes no field or part of a report, no line of the log, no record of the spool, no row of weirctl."""
import email
import email.policy
import json
import re

import pytest
from nasty import Nasty
from node import Sink, Smtp, wait_for

TEXT = b"From: s@cam.example\r\nSubject: test\r\n\r\nthe text itself\r\n"
FORGED = b'" event=delivered id=FORGED rcpt=x@far.example \\" reply="x'
# of one line, for fields; of many; and longer than anything that is kept
HOSTILE = {
    "quotes": FORGED,
    "controls": b"\x1b[2J\x1b]0;owned\x07\x00\x08\x7f\x9b31m " + FORGED,
    "eight bit": b"\xff\xfe\xe2\x80\xae\xc2\x85\xe2\x80\xa8 " + FORGED,
    "fields": b"\tFinal-Recipient: rfc822;forged@far.example Action: delivered Status: 2.0.0 --=_weir_",
    "folding": b"x\r\n550-\tX-Forged: folded\r\n550-X-Forged: yes\r\n550-\r\n550-\r\n550---=_weir_\r\n550-Content-Type: text/html\r\n550-\r\n550 <b>forged</b>",
    "format": b"%s%n%999999d ${jndi:ldap://x} $(reboot) `reboot` {{7*7}} <script>alert(1)</script>",
    "long": b"z" * 1900 + b" " + FORGED,
    "many long": b"z" * 1900 + b"\r\n550-" + b"y" * 1900 + b"\r\n550-" + b"w" * 1900 + b"\r\n550 end",
}
NAMES = list(HOSTILE)
LATER = {"451": b"451 4.7.1 ", "550": b"550 5.7.1 "}


def hostile(code, name):
    return LATER[code] + HOSTILE[name].replace(b"\r\n550", b"\r\n" + code.encode()) + b"\r\n" if b"\r\n550" not in HOSTILE[name] else \
        code.encode() + b"-" + HOSTILE[name].replace(b"\r\n550", b"\r\n" + code.encode()) + b"\r\n"


class World:
    """Row i: i.far.example says it for good, i.later.example for now, i.good.example when it takes the message; i.hello.example in its greeting and to EHLO."""

    def __init__(self, make_node):
        self.sink, self.servers = Sink(), []
        routes = ""
        for i, name in enumerate(NAMES):
            routes += self.route(f"r{i}.far.example", {"rcpt": hostile("550", name)})
            routes += self.route(f"r{i}.later.example", {"rcpt": hostile("451", name)})
            good = hostile("550", name).replace(b"550", b"250").replace(b"5.7.1", b"2.0.0")
            routes += self.route(f"r{i}.good.example", {"end": good})
            routes += self.route(f"r{i}.hello.example", {"connect": good.replace(b"250", b"220"), "ehlo": good})
        routes += f'\n  - {{domain: "*", to: "smtp:[127.0.0.1]:{self.sink.port}", tls: never}}'
        self.node = make_node(routes=routes, workers=1, engine="trivial", extra="delivery: {retry_first: 1h, retry_max: 1h, idle: 300ms}\nreports: {per_sender: 0, per_host: 0}\n")
        c = Smtp(self.node.port)
        c.cmd("EHLO client.test")
        for i in range(len(NAMES)):
            for kind in ("far", "later", "good", "hello"):
                assert c.message(f"s{i}@cam.example", [f"a@r{i}.{kind}.example"], TEXT).startswith("250")
        c.close()
        assert wait_for(lambda: self.sink.count == len(NAMES), 30), self.sink.count
        assert wait_for(lambda: self.node.counters()["recipients_deferred_total"] >= len(NAMES), 30)

    def route(self, domain, script):
        self.servers.append(Nasty(script))
        return f'\n  - {{domain: {domain}, to: "smtp:[127.0.0.1]:{self.servers[-1].port}", tls: never}}'

    def report(self, i):
        m, = [m for m in self.sink.messages if m["to"] == [f"s{i}@cam.example"]]
        return m["data"]

    def stop(self):
        for s in self.servers:
            s.stop()
        self.sink.stop()


@pytest.fixture
def world(make_node):
    w = World(make_node)
    yield w
    w.stop()


def test_reports_log_queue_and_trace(world):
    """P11: all in one, as the node is the same."""
    reports(world)
    log(world)
    queue_and_trace(world)
    survives_a_restart(world)


def reports(world):
    for i, name in enumerate(NAMES):
        data = world.report(i)
        assert re.fullmatch(rb"[\t\r\n -~]*", data) and not re.search(rb"\r(?!\n)|(?<!\r)\n", data), name
        assert max(map(len, data.split(b"\r\n"))) <= 998, (name, max(map(len, data.split(b"\r\n"))))
        m = email.message_from_bytes(data, policy=email.policy.default)
        assert not m.defects
        text, status, original = m.iter_parts()
        assert [p.get_content_type() for p in (text, status, original)] == ["text/plain", "message/delivery-status", "message/rfc822"], name
        of_message, row = status.get_payload()
        assert set(of_message.keys()) == {"Reporting-MTA", "Arrival-Date"}, of_message.items()
        assert set(row.keys()) == {"Final-Recipient", "Action", "Status", "Remote-MTA", "Diagnostic-Code", "Last-Attempt-Date"}, row.items()
        assert row["Final-Recipient"] == f"rfc822;a@r{i}.far.example" and row["Action"] == "failed" and row["Status"] == ("5.7.1" if b"\r\n" not in HOSTILE[name] else "5.1.1")
        assert row["Diagnostic-Code"].startswith("smtp;550") and len(row["Diagnostic-Code"]) <= 1100
        assert "X-Forged" not in {k for part in m.walk() for k in part.keys()}


def log(world):
    lines = world.node.log_path.read_bytes().split(b"\n")
    for line in lines:
        assert re.fullmatch(rb"[ -~]*", line), line
        # what is between quotes is one value, and no word outside of them is forged
        bare = re.sub(rb'"(\\.|[^"\\])*"', b'""', line)
        assert b"FORGED" not in bare and b'"' not in bare.replace(b'""', b""), line
        assert len(line) < 4096
    assert sum(b"FORGED" in line for line in lines) >= 6


def queue_and_trace(world):
    waiting = {m["sender"]: m["id"] for m in world.node.queue()}
    assert len(waiting) == len(NAMES)
    for i in range(len(NAMES)):
        shown = world.node.ctl("queue", "show", waiting[f"s{i}@cam.example"])
        assert [r["rcpt"] for r in shown[1:]] == [f"a@r{i}.later.example"] and shown[1]["reply"].startswith("451") and len(shown[1]["reply"]) <= 1100
        for args in (("queue", "show", waiting[f"s{i}@cam.example"]), ("queue", "list"), ("trace", f"s{i}@cam.example")):
            out = world.node.ctl_text(*args)
            assert out.returncode == 0 and re.fullmatch(r"[\n -~]*", out.stdout), (args, out.stdout)
        for kind, ends in (("far", ["bounced"]), ("later", ["deferred"]), ("good", ["delivered"]), ("hello", ["delivered"])):
            found = world.node.ctl("trace", f"a@r{i}.{kind}.example")
            assert json.dumps(found).isascii() and not found["rejected"]
            assert [m["id"] for m in found["messages"] if m["events"][0]["from"]] == [m["id"] for m in found["messages"] if m["events"][0]["from"] == f"s{i}@cam.example"]
            told = [e for m in found["messages"] for e in m["events"] if e["event"] in ("delivered", "deferred", "bounced")]
            assert [e["event"] for e in told if e["to"] == f"a@r{i}.{kind}.example"] == ends, told
            assert all(e.get("id") != "FORGED" and "rcpt" not in e for e in told)


def survives_a_restart(world):
    """The spool keeps it with its length."""
    before = sorted((m["id"], m["sender"]) for m in world.node.queue())
    world.node.stop()
    p = world.node.ctl_text("spool", "check", str(world.node.run / "spool" / "p0"))
    assert p.returncode == 0, p.stdout + p.stderr
    world.node.start()
    assert sorted((m["id"], m["sender"]) for m in world.node.queue()) == before
