"""What a route says about its mail beside where it goes: life and notices, size, hold, source address; addresses that have moved; what waits when a host is back
(rules A7, C8, F1, F2)."""
import datetime
import os
import signal

import pytest
from node import Smtp, free_port, wait_for

HEAD = b"From: a@cam.example\r\nSubject: test\r\n\r\n"


def send(node, *addrs, sender="s@example.com", data=HEAD):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    r = c.message(sender, addrs, data)
    c.close()
    return r


def to(sink):
    return sorted(t for m in list(sink.messages) if m["from"] for t in m["to"])


def deferred(node, n=1):
    return wait_for(lambda: [m["state"] for m in node.queue()] == ["deferred"] * n)


def reload(node, text):
    """The same configuration with other text behind its last line of routes."""
    node.config.write_text(text)
    p = node.ctl_text("config", "reload")
    assert p.returncode == 0, p.stderr
    return p


# ---- life and notices (F2) ----

def test_queue_life_and_delay_notice_are_the_routes(make_node, make_sink):
    """F2: one route returns mail at once, one never; one tells of the delay, one does not. Nobody is told what was not asked for."""
    sink = make_sink()
    down = f'to: "smtp:[127.0.0.1]:{free_port()}"'
    node = make_node(sink.port, routes=f'[{{domain: "*", to: "smtp:[127.0.0.1]:{sink.port}", tls: never}}, '
                     f"{{domain: short.example, {down}, life: 1s, delay_notice: off}}, {{domain: ever.example, {down}, life: unlimited, delay_notice: off}}, "
                     f"{{domain: told.example, {down}, life: unlimited, delay_notice: 1s}}]",
                     extra="delivery: {queue_life: 2s, delay_notice: 1s, retry_first: 1s, retry_max: 1s}\n")
    for name in ("short", "ever", "told", "plain"):
        assert send(node, f"u@{name}.example").startswith("250")
    reports = {"short": b"5.4.7", "told": b"Action: delayed"}
    for name, word in reports.items():
        assert wait_for(lambda: any(word in m["data"] and f"u@{name}.example".encode() in m["data"] for m in sink.messages)), name
    assert wait_for(lambda: all(r["attempts"] > 3 for m in node.queue() for r in node.ctl("queue", "show", m["id"]) if "rcpt" in r))
    assert sorted(m["to"] for m in node.queue()) == ["u@ever.example", "u@told.example"]
    assert not any(b"u@ever.example" in m["data"] for m in sink.messages)
    assert not any(b"delayed" in m["data"] and b"u@short.example" in m["data"] for m in sink.messages)


# ---- size (A7) ----

@pytest.fixture
def small(make_node, sink):
    return make_node(sink.port, routes=f'[{{domain: "*", to: "smtp:[127.0.0.1]:{sink.port}", tls: never}}, '
                     f'{{domain: small.example, to: "smtp:[127.0.0.1]:{sink.port}", tls: never, size: 10K}}]')


def test_declared_size_is_refused_at_rcpt(small, sink):
    """A7: the destination's limit, not ours: 552 5.3.4 for its recipients, the others get the message."""
    c = Smtp(small.port)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<s@example.com> SIZE=10241")
    assert c.cmd("RCPT TO:<u@small.example>").startswith("552 5.3.4")
    assert c.cmd("RCPT TO:<u@big.example>").startswith("250")
    c.cmd("RSET")
    c.cmd("MAIL FROM:<s@example.com> SIZE=10240")
    assert c.cmd("RCPT TO:<u@small.example>").startswith("250")


def test_size_without_declaration(small, sink):
    """A7: at the end of data when nobody could get it, else a report for those who cannot. DATA and BDAT alike."""
    large = HEAD + b"x" * 78 + b"\r\n" + (b"y" * 78 + b"\r\n") * 200
    assert send(small, "u@small.example", data=large).startswith("552 5.3.4")
    c = Smtp(small.port)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<s@example.com>")
    c.cmd("RCPT TO:<u@small.example>")
    c.send(b"BDAT %d LAST\r\n" % len(large) + large)
    assert c.reply().startswith("552 5.3.4")
    assert send(small, "u@small.example", "u@big.example", data=large).startswith("250")
    assert wait_for(lambda: to(sink) == ["u@big.example"])
    assert wait_for(lambda: any(not m["from"] and b"rfc822;u@small.example" in m["data"] and b"5.3.4" in m["data"] for m in sink.messages))
    assert send(small, "u@small.example").startswith("250")
    assert wait_for(lambda: to(sink) == ["u@big.example", "u@small.example"])
    assert wait_for(lambda: small.queue() == [])


# ---- hold (F2) ----

HELD = '{domain: held.example, to: "smtp:[127.0.0.1]:%d", tls: never%s}'


def hold_node(make_node, sink, hold, **kw):
    base = f'{{domain: "*", to: "smtp:[127.0.0.1]:{sink.port}", tls: never}}'
    node = make_node(sink.port, routes=f"[{base}, {HELD % (sink.port, hold)}]", **kw)
    return node, node.config.read_text()


def test_a_domain_on_hold_waits_until_it_is_released(make_node, sink):
    """F2: accepted, not tried, nobody is told; what waits is shown with the forecast; it survives a restart; released by command, which holds for this hold only."""
    node, text = hold_node(make_node, sink, ", hold: yes, hold_reason: the store moves, life: 1s, delay_notice: 1s")
    assert send(node, "one@held.example").startswith("250")
    assert send(node, "two@held.example", "u@free.example").startswith("250")
    assert wait_for(lambda: to(sink) == ["u@free.example"])
    assert deferred(node, 2)
    assert {m["reason"] for m in node.queue()} == {"on hold: the store moves"}
    node.ctl("queue", "retry", "--all", "--domain", "held.example")
    assert wait_for(lambda: node.ctl("hold", "show", "held.example")[0]["messages"] == 2)
    node.stop()
    node.start()
    assert wait_for(lambda: node.ctl("hold", "show", "held.example")[0]["messages"] == 2)
    row = wait_for(lambda: [h for h in node.ctl("hold", "list") if h["full_in_days"] > 0])[0]
    assert row["bytes"] == 2 * len(HEAD) and row["bytes_a_day"] > 0 and row["room"] > 1 << 20
    status = node.ctl_text("status").stdout
    assert "On hold\n  held.example  on hold: the store moves" in status and "is full in" in status
    assert "[on hold: the store moves" in node.ctl_text("route", "one@held.example", "--client", "127.0.0.1").stdout
    assert to(sink) == ["u@free.example"] and all(m["from"] for m in sink.messages)

    assert node.ctl_text("hold", "release", "free.example").returncode == 1
    p = node.ctl_text("hold", "release", "held.example")
    assert p.returncode == 0, p.stderr
    assert wait_for(lambda: to(sink) == ["one@held.example", "two@held.example", "u@free.example"])
    assert wait_for(lambda: node.queue() == [])
    assert node.ctl_text("hold", "show", "held.example").returncode == 1
    reload(node, text)
    assert send(node, "three@held.example").startswith("250")
    assert wait_for(lambda: "three@held.example" in to(sink))
    assert all(m["from"] for m in sink.messages)
    # taken out and put in again it is another hold
    reload(node, text.replace("hold: yes, ", ""))
    reload(node, text)
    assert wait_for(lambda: node.ctl("hold", "list"))
    assert send(node, "four@held.example").startswith("250")
    assert deferred(node)


def test_a_hold_ends_at_its_date_and_life_begins_there(make_node, make_sink):
    """F2: the end by the date needs nobody; what waited longer than its life is still tried for all of it."""
    sink = make_sink(decide=lambda kind, text: "450 4.2.0 not yet" if kind == "rcpt" and "late@" in text else None)
    end = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=6)
    node, _ = hold_node(make_node, sink, f", hold_until: {end:%Y-%m-%dT%H:%M:%SZ}, life: 4s, delay_notice: off",
                        extra="delivery: {retry_first: 1s, retry_max: 1s}\n")
    assert send(node, "on-time@held.example").startswith("250")
    assert send(node, "late@held.example").startswith("250")
    assert deferred(node, 2) and f"until {end:%Y-%m-%dT%H:%M:%SZ}" in node.queue()[0]["reason"]
    assert wait_for(lambda: to(sink) == ["on-time@held.example"])
    assert datetime.datetime.now(datetime.timezone.utc) >= end.replace(microsecond=0)
    bounce = wait_for(lambda: [m for m in sink.messages if not m["from"]])
    assert b"late@held.example" in bounce[0]["data"] and b"5.4.7" in bounce[0]["data"]
    assert sum(b"late@held.example" in line and b"RCPT" in line for line in bytes(sink.raw).split(b"\r\n")) > 1


# ---- a host that is back (F2) ----

def test_what_waits_goes_when_the_host_is_back(make_node, make_sink):
    """F2: one success makes everything due that waits for the destination, whatever its next attempt; what waits for others stays."""
    state = {"down": True}
    sink = make_sink(decide=lambda kind, text: "421 4.3.2 down" if kind == "connect" and state["down"] else None)
    node = make_node(sink.port, workers=1, routes=f'[{{domain: "*", to: "smtp:[127.0.0.1]:{free_port()}", tls: never}}, {{domain: back.example, to: "smtp:[127.0.0.1]:{sink.port}", tls: never}}]',
                     extra="delivery: {retry_first: 1h, retry_max: 2h}\n")
    for i in range(20):
        assert send(node, f"u{i}@back.example", *(["x@else.example"] if i % 4 == 0 else [])).startswith("250")
    assert send(node, "y@else.example").startswith("250")
    assert deferred(node, 21)
    state["down"] = False
    first = next(m["id"] for m in node.queue() if m["to"] == "u7@back.example")
    node.ctl("queue", "retry", first)
    assert wait_for(lambda: to(sink) == sorted(f"u{i}@back.example" for i in range(20)))
    assert wait_for(lambda: len(node.queue()) == 6)
    assert {r["attempts"] for m in node.queue() for r in node.ctl("queue", "show", m["id"]) if r.get("state") == "deferred" and "rcpt" in r} == {1}
    assert "destination-back" in node.log_text()


# ---- source addresses (F1) ----

def test_source_address_by_route_and_family(make_node, make_sink):
    """F1: the route's address, else the node's, of the family of the host; without one of it the system chooses."""
    four, own, six = (make_sink(host=h) for h in ("127.0.0.1", "127.0.0.1", "::1"))
    node = make_node(four.port, routes=f'[{{domain: four.example, to: "smtp:[127.0.0.1]:{four.port}", tls: never}}, '
                     f'{{domain: own.example, to: "smtp:[127.0.0.1]:{own.port}", tls: never, source: ["::1", 127.0.0.8]}}, '
                     f'{{domain: six.example, to: "smtp:[::1]:{six.port}", tls: never}}]', extra="delivery: {source: [127.0.0.7], retry_first: 1h}\n")
    for name in ("four", "own", "six"):
        assert send(node, f"u@{name}.example").startswith("250")
    assert wait_for(lambda: all(s.messages for s in (four, own, six)))
    assert (four.peers, own.peers, six.peers) == ({"127.0.0.7"}, {"127.0.0.8"}, {"::1"})


def test_a_source_address_that_is_not_here(make_node, sink):
    """F1: said at the configuration check, in the status, and to the message; of several the one that is here serves."""
    node = make_node(sink.port, routes=f'[{{domain: "*", to: "smtp:[127.0.0.1]:{sink.port}", tls: never, source: [192.0.2.25]}}, '
                     f'{{domain: two.example, to: "smtp:[127.0.0.1]:{sink.port}", tls: never, source: [192.0.2.25, 127.0.0.3, 192.0.2.26]}}]',
                     extra="delivery: {retry_first: 1h}\n")
    p = node.ctl_text("config", "check", node.config)
    assert p.returncode == 0 and "warning: source: 192.0.2.25 is not an address of this machine" in p.stderr and "127.0.0.3" not in p.stderr
    assert send(node, "u@two.example").startswith("250")
    assert wait_for(lambda: to(sink) == ["u@two.example"])
    assert send(node, "u@one.example").startswith("250")
    assert deferred(node)
    assert "4.3.5" in node.queue()[0]["reason"] and "192.0.2.25 is not one of this node" in node.queue()[0]["reason"]
    assert wait_for(lambda: "the source address that is configured" in node.ctl_text("status").stdout)


# ---- addresses that have moved, sub-domains elsewhere (C8) ----

def test_single_addresses_move_to_a_new_store(make_node, make_sink):
    """C8: those in the list go to the new next hop, in any case and through aliases; the rest the old way; a new list counts at once, for what is queued too."""
    state = {"down": False}
    old = make_sink(decide=lambda kind, text: "421 4.3.2 down" if kind in ("connect", "mail") and state["down"] else None)
    new = make_sink(lmtp=True)
    node = make_node(old.port, start=False, extra="mail_domains:\n"
                     f'  - {{domain: store.example, to: "smtp:[127.0.0.1]:{old.port}", tls: never, moved: {{file: moved, to: "lmtp:[127.0.0.1]:{new.port}", tls: never}}}}\n'
                     "  - {domain: alias.example, aliases: names}\n")
    (node.dir / "moved").write_bytes(b"# the first ones\r\n\r\nAnn   # went on Monday\n\"odd one\"\n")
    (node.dir / "names").write_text("both: ann@store.example, bob@store.example\n")
    node.start()
    assert send(node, "aNN@store.example", "bob@store.example", '"odd one"@store.example').startswith("250")
    assert wait_for(lambda: len(to(new)) == 2 and to(old) == ["bob@store.example"])
    assert send(node, "both@alias.example").startswith("250")
    assert wait_for(lambda: len(to(new)) == 3 and to(old) == ["bob@store.example"] * 2)
    moved = node.ctl("route", "ann@store.example")[-1]
    assert moved["rule"] == "C8" and moved["what"] == "moved" and str(new.port) in moved["to"]
    assert str(old.port) in node.ctl("route", "bob@store.example")[-1]["to"]

    state["down"] = True
    assert send(node, "carl@store.example").startswith("250")
    assert deferred(node)
    (node.dir / "moved").write_text("ann\ncarl\n")
    assert node.ctl_text("tables", "compile").returncode == 0
    assert wait_for(lambda: "carl@store.example" in to(new))
    assert wait_for(lambda: node.queue() == [])
    (node.dir / "moved").write_text("ann\ncarl@store.example\nann\n\xe9 x\n")
    p = node.ctl_text("tables", "compile")
    assert p.returncode and "moved:2: write the local part alone" in p.stderr and "moved:4: " in p.stderr and 'moved:3: "ann" is there already' in p.stderr
    assert str(new.port) in node.ctl("route", "carl@store.example")[-1]["to"]


def test_the_moved_are_not_guessed_without_tables(make_node, make_sink):
    """C8, C1: who has moved is not known: the mail waits, and does not go the old way."""
    old, new = make_sink(), make_sink()
    node = make_node(old.port, start=False, extra="mail_domains:\n"
                     f'  - {{domain: store.example, to: "smtp:[127.0.0.1]:{old.port}", tls: never, moved: {{file: moved, to: "smtp:[127.0.0.1]:{new.port}", tls: never}}}}\n')
    (node.dir / "moved").write_text("ann\n")
    node.start()
    tables = node.run / "tables"
    for gen in tables.glob("gen-*"):
        gen.unlink()
    for pid in node.pids("weir-dataplane"):
        os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: node.ctl("route", "ann@store.example", check=False) and "451" in str(node.ctl("route", "ann@store.example", check=False)), 30)
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("s@example.com", ["ann@store.example"], HEAD).startswith("451 4.3.0")
    assert not old.messages


def test_sub_domains_of_providers_and_backups_keep_their_way(make_node, make_sink):
    """C8, B1: a provider's sub-domain goes to the provider whatever its parent does; a parent with a dot takes the other ones."""
    inner, provider, parent = make_sink(), make_sink(), make_sink()
    node = make_node(inner.port, routes=f'[{{domain: "*", to: "smtp:[127.0.0.1]:{inner.port}", tls: never}}, '
                     f'{{domain: .uni.example, to: "smtp:[127.0.0.1]:{parent.port}", tls: never}}]', extra="mail_domains:\n"
                     f'  - {{domain: news.uni.example, to: "smtp:[127.0.0.1]:{provider.port}", tls: never, size: 1M}}\n'
                     '  - {domain: closed.uni.example, retired: "closed in 2019"}\n')
    assert send(node, "u@news.uni.example", "u@dept.uni.example", "u@uni.example").startswith("250")
    assert wait_for(lambda: (to(provider), to(parent), to(inner)) == (["u@news.uni.example"], ["u@dept.uni.example"], ["u@uni.example"]))
    assert send(node, "u@closed.uni.example") == "550 5.1.6 closed in 2019"


# ---- the configuration ----

@pytest.mark.parametrize("row, complaint", [
    ("life: never", 'life "never" is not possible; write for example 12h or 30d (at least 1s), or unlimited'),
    ("delay_notice: soon", 'delay_notice "soon" is not possible'),
    ("size: big", 'size "big" is not possible; write for example 512K or 25M'),
    ("hold: yes, hold_until: 2027-01-05", "hold or hold_until, not both"),
    ("hold_until: tomorrow", 'hold_until "tomorrow" is not a date; write for example 2027-01-05T08:00 (UTC)'),
    ("hold: 2027-01-05", "a date is written as hold_until"),
    ("source: [relay.example]", '"relay.example" is not an address'),
])
def test_mistakes_are_named_with_their_line(make_node, row, complaint):
    """F2, A7, F1: file, line and what would be right."""
    node = make_node(1, start=False, routes="[\n  {domain: x.example, to: mx, %s}]" % row)
    p = node.ctl_text("config", "check", node.config)
    line = next(i for i, text in enumerate(node.config.read_text().split("\n"), 1) if "x.example" in text)
    assert p.returncode == 1 and f"weir.yaml:{line}: " in p.stderr and complaint in p.stderr, p.stderr


def test_terms_of_domains_without_a_route_are_refused(make_node):
    node = make_node(1, start=False, extra="mail_domains:\n  - {domain: x.example, forward: a@cam.example, hold: yes}\n"
                     "  - {domain: y.example, retired: gone, moved: {file: m, to: \"smtp:h.example:25\"}}\n")
    p = node.ctl_text("config", "check", node.config)
    assert "hold go with to and backup_mx" in p.stderr and "moved goes with to, backup_mx or unlisted: deliver" in p.stderr
