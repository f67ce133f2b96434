"""Routing against a real server: nsd for MX and addresses."""
import subprocess
import textwrap
import time

import pytest
from node import Smtp, free_port, have, wait_for

HEAD = b"From: a@cam.example\r\nSubject: test\r\n\r\n"


@pytest.fixture
def nsd(tmp_path):
    if not have("nsd"):
        pytest.skip("nsd is not installed")
    port = free_port()
    (tmp_path / "zone").write_text(textwrap.dedent("""\
        $ORIGIN example.
        $TTL 60
        @ SOA ns. root. 1 60 60 60 60
        @ NS ns.example.
        ns A 127.0.0.1
        both MX 10 dead.example.
        both MX 20 live.example.
        dead A 127.0.0.9
        live A 127.0.0.1
        implicit A 127.0.0.1
        null MX 0 .
        nothing TXT "no mail here"
        alias CNAME both.example.
        backed MX 10 live.example.
        backed MX 20 relay.cam.example.
        backed MX 20 dead.example.
        backed MX 30 dead.example.
        ours MX 10 relay.cam.example.
        ours MX 20 live.example.
        """))
    (tmp_path / "nsd.conf").write_text(textwrap.dedent(f"""\
        server:
          ip-address: 127.0.0.1@{port}
          username: ""
          chroot: ""
          zonesdir: "{tmp_path}"
          pidfile: "{tmp_path}/nsd.pid"
          database: ""
          xfrdfile: "{tmp_path}/xfrd"
          zonelistfile: "{tmp_path}/zonelist"
          server-count: 1
        remote-control:
          control-enable: no
        zone:
          name: example
          zonefile: zone
        """))
    p = subprocess.Popen(["nsd", "-d", "-c", tmp_path / "nsd.conf"], stderr=subprocess.DEVNULL)
    time.sleep(0.5)
    yield port
    p.terminate()
    p.wait(10)


def test_mx_delivery(nsd, make_node, sink):
    node = make_node(routes="[]", extra=f'dns: {{servers: ["127.0.0.1:{nsd}"]}}\ndelivery: {{port: {sink.port}, retry_first: 1h, connect_timeout: 2s}}\n')
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    rcpts = ["u@both.example", "u@implicit.example", "u@null.example", "u@nothing.example", "u@missing.example", "u@alias.example", "u@[127.0.0.1]"]
    assert c.message("sender@both.example", rcpts, HEAD).startswith("250")
    good = {"u@both.example", "u@implicit.example", "u@alias.example", "u@[127.0.0.1]"}
    assert wait_for(lambda: {t for m in sink.messages if m["from"] for t in m["to"]} == good, 30)

    def bounced():
        return {r for r in rcpts if any(not m["from"] and f"rfc822;{r}".encode() in m["data"] for m in sink.messages)}

    assert wait_for(lambda: bounced() == set(rcpts) - good, 30), bounced()
    reports = b"".join(m["data"] for m in sink.messages if not m["from"])
    assert b"5.1.10" in reports and b"5.1.2" in reports
    assert wait_for(lambda: node.queue() == [])


def test_dns_dead_defers(make_node, sink):
    node = make_node(routes="[]", extra=f'dns: {{servers: ["127.0.0.1:{free_port()}"], timeout: 1s}}\ndelivery: {{retry_first: 1h}}\n')
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", ["u@both.example"], HEAD).startswith("250")
    assert wait_for(lambda: [m["state"] for m in node.queue()] == ["deferred"])
    assert "4.4.3" in node.queue()[0]["reason"]


def test_lmtp_results_are_each_recipients_own(make_node, make_sink):
    sink = make_sink(lmtp=True, decide=lambda kind, text: "552 5.2.2 mailbox full" if kind == "end" and "full@" in text else None)
    node = make_node(routes=f'[{{domain: cam.example, to: "lmtp:[127.0.0.1]:{sink.port}"}}]', extra="delivery: {retry_first: 1h, port: 1}\n")
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", ["one@cam.example", "full@cam.example", "two@cam.example"], HEAD).startswith("250")
    assert wait_for(lambda: sink.count == 2)
    dsn = sink.messages[1]
    assert dsn["to"] == ["a@cam.example"] and b"rfc822;full@cam.example" in dsn["data"] and b"5.2.2" in dsn["data"]
    assert b"one@cam.example" not in dsn["data"].split(b"message/delivery-status")[1].split(b"message/rfc822")[0]


def test_a_backup_exchanger_delivers_only_to_better_ones(nsd, make_node, make_sink):
    """B1: it holds the mail while they are down, and never gives it to its equals or itself."""
    state = {"down": True}
    sink = make_sink(decide=lambda kind, text: "421 4.3.2 down" if kind == "connect" and state["down"] else None)
    node = make_node(routes="[]", extra=f'dns: {{servers: ["127.0.0.1:{nsd}"]}}\ndelivery: {{port: {sink.port}, retry_first: 1s, retry_max: 1s, connect_timeout: 2s}}\n'
                     "relay_clients: [192.0.2.1]\nmail_domains: [{domain: backed.example, backup_mx: yes}, {domain: ours.example, backup_mx: yes}]\n")
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("s@both.example", ["u@backed.example", "u@elsewhere.example"], HEAD).startswith("550 5.7.1")
    c.cmd("RSET")
    assert c.message("s@both.example", ["u@backed.example"], HEAD).startswith("250")
    assert wait_for(lambda: [m["state"] for m in node.queue()] == ["deferred"])
    assert "127.0.0.9" not in node.log_text()
    state["down"] = False
    assert wait_for(lambda: [m["to"] for m in sink.messages] == [["u@backed.example"]])
    assert c.message("s@both.example", ["u@ours.example"], HEAD).startswith("250")
    assert wait_for(lambda: any(not m["from"] and b"5.4.6" in m["data"] for m in sink.messages))
