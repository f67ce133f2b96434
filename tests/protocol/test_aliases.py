"""Alias tables: expansion, refusals, generations and their switch, the operator's view (rules B4, C1, C3, C6, C7, C8)."""
import os
import signal
import threading
import time

import pytest
from node import Smtp, wait_for

HEAD = b"From: a@cam.example\r\nSubject: test\r\n\r\n"

DOMAINS = """mail_domains:
  - {domain: dept.example, aliases: dept}
  - {domain: staff.example, aliases: staff, forwarding: users, unlisted: deliver}
  - {domain: long-staff.example, long_form_of: staff.example}
  - {domain: old.example, retired: "old.example was closed, see www.cam.example"}
  - {domain: press.example, to: "smtp:[127.0.0.1]:%d", tls: never}
  - {domain: fixed.example, forward: "Desk@dept.example"}
"""
DEPT = ("# the department\r\n\r\nHead: prof@staff.example, Secretary@dept.example # two\r\nsecretary: sec@staff.example\r\n"
        "all: head@dept.example, secretary@dept.example, ext@example.org\r\nring1: ring2@dept.example\r\nring2: ring1@dept.example\r\n"
        "nowhere: gone@dept.example\r\nhalf: gone@dept.example, ext@example.org\r\ndesk: one@example.org,two@example.org\r\n"
        "closed: x@old.example\r\n")
STAFF = "prof: abc12@staff.example\n"
USERS = "abc12: abc12@staff.example, copy@example.net\n"


def configure(node, sink_port, domains=None, **files):
    for name, text in {"dept": DEPT, "staff": STAFF, "users": USERS, **files}.items():
        (node.dir / name).write_bytes(text.encode())
    base = node.config.read_text().split("mail_domains:")[0]
    node.config.write_text(base + (DOMAINS % sink_port if domains is None else domains))


@pytest.fixture
def tables(make_node, sink):
    """A node that is an open door for nobody: its client is from outside."""
    node = make_node(sink.port, start=False, extra="relay_clients: [192.0.2.1]\n")
    configure(node, sink.port)
    return node.start()


def rcpt(node, *addrs, c=None):
    c = c or Smtp(node.port)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<s@example.com>")
    return [c.cmd(f"RCPT TO:<{a}>") for a in addrs]


def send(node, *addrs):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    r = c.message("s@example.com", addrs, HEAD)
    c.close()
    return r


def delivered(sink, n):
    """Recipients of what arrived, when there are n of them."""
    assert wait_for(lambda: sum(len(m["to"]) for m in sink.messages) >= n), sink.messages
    time.sleep(0.2)
    return sorted(a for m in sink.messages for a in m["to"])


def test_expansion_nested_across_domains_without_case_and_without_duplicates(tables, sink):
    assert send(tables, "ALL@Dept.Example", "head@dept.example", "desk@dept.example").startswith("250")
    assert delivered(sink, 6) == ["abc12@staff.example", "copy@example.net", "ext@example.org", "one@example.org", "sec@staff.example",
                                  "two@example.org"]


def test_a_plain_recipient_after_an_expanded_one_is_not_doubled(tables, sink):
    node = tables
    c = Smtp(node.port)
    assert rcpt(node, "head@dept.example", "sec@staff.example", "sec@staff.example", "Sec@staff.example", c=c) == ["250 2.1.5 Ok"] * 4
    assert c.cmd("DATA").startswith("354")
    c.send(HEAD + b".\r\n")
    assert c.reply().startswith("250")
    # a local part of a domain that is delivered elsewhere is opaque: Sec is not sec
    assert delivered(sink, 4) == ["Sec@staff.example", "abc12@staff.example", "copy@example.net", "sec@staff.example"]


def test_the_original_recipient_is_kept(make_node, make_sink):
    sink = make_sink(extensions=("PIPELINING", "8BITMIME", "DSN"))
    node = make_node(sink.port, start=False, extra="relay_clients: [192.0.2.1]\n")
    configure(node, sink.port)
    node.start()
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<s@example.com>")
    assert c.cmd("RCPT TO:<Desk@dept.example> NOTIFY=FAILURE").startswith("250")
    assert c.cmd("RCPT TO:<secretary@dept.example> ORCPT=rfc822;first@example.com").startswith("250")
    c.cmd("DATA")
    c.send(HEAD + b".\r\n")
    assert c.reply().startswith("250")
    delivered(sink, 3)
    raw = bytes(sink.raw)
    assert b"RCPT TO:<one@example.org> NOTIFY=FAILURE ORCPT=rfc822;Desk@dept.example\r\n" in raw
    assert b"RCPT TO:<two@example.org> NOTIFY=FAILURE ORCPT=rfc822;Desk@dept.example\r\n" in raw
    assert b"RCPT TO:<sec@staff.example> ORCPT=rfc822;first@example.com\r\n" in raw


def test_refusals(tables):
    replies = rcpt(tables, "gone@dept.example", "x@old.example", "ring1@dept.example", "nowhere@dept.example", "closed@dept.example",
                   "x@example.org", "half@dept.example", "anyone@press.example", "unlisted@long-staff.example", "x@fixed.example")
    assert replies[0].startswith("550 5.1.1 gone@dept.example")
    assert replies[1] == "550 5.1.6 old.example was closed, see www.cam.example"
    assert replies[2].startswith("550 5.4.6")
    assert replies[3].startswith("550 5.1.1")
    assert replies[4].startswith("550 5.1.6")
    assert replies[5].startswith("550 5.7.1")
    assert all(r.startswith("250") for r in replies[6:]), replies
    assert wait_for(lambda: "event=alias-dangling" in tables.log_text())
    assert tables.counters()["recipients_unknown_total"] == 5


def test_postmaster_is_always_accepted(tables, sink):
    domains = ("dept", "staff", "long-staff", "old", "press", "fixed")
    assert all(r.startswith("250") for r in rcpt(tables, "PostMaster", *[f"postMASTER@{d}.example" for d in domains]))
    assert send(tables, "postmaster@dept.example", "Postmaster@old.example").startswith("250")
    assert delivered(sink, 1) == ["postmaster@cam.example"]


def test_long_form_forwarding_and_routes(tables, sink, make_sink):
    assert send(tables, "prof@long-staff.example", "new@long-staff.example", "any@fixed.example", "x@press.example").startswith("250")
    assert delivered(sink, 6) == ["abc12@staff.example", "copy@example.net", "new@staff.example", "one@example.org", "two@example.org",
                                  "x@press.example"]


def test_a_bounce_to_an_alias_goes_where_the_alias_goes(make_node, make_sink):
    sink = make_sink(decide=lambda kind, text: "550 5.1.1 no" if kind == "rcpt" and "bad@" in text else None)
    node = make_node(sink.port, start=False)
    configure(node, sink.port)
    node.start()
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("desk@dept.example", ["bad@example.org"], HEAD).startswith("250")
    assert delivered(sink, 2) == ["one@example.org", "two@example.org"]
    assert sink.messages[0]["from"] == ""


def test_the_switch_is_between_two_commands(tables, sink):
    node = tables
    c = Smtp(node.port)
    assert rcpt(node, "new@dept.example", "desk@dept.example", c=c)[0].startswith("550 5.1.1")
    (node.dir / "dept").write_text(DEPT + "new: fresh@example.org\n")
    assert node.ctl("tables", "compile") == {"generation": 2}
    assert wait_for(lambda: c.cmd("RCPT TO:<new@dept.example>").startswith("250"), 5)
    c.cmd("DATA")
    c.send(HEAD + b".\r\n")
    assert c.reply().startswith("250")
    assert delivered(sink, 3) == ["fresh@example.org", "one@example.org", "two@example.org"]
    d = node.ctl("tables", "diff")
    assert (d["from"], d["to"]) == (1, 2)
    assert d["differences"] == [{"name": "new@dept.example", "before": None, "after": "fresh@example.org"}]
    assert "+ new@dept.example: fresh@example.org" in node.ctl_text("tables", "diff").stdout


def test_rollback_stays_until_somebody_compiles(tables):
    node = tables
    (node.dir / "dept").write_text("desk: other@example.org\n")
    assert node.ctl("tables", "compile") == {"generation": 2}
    assert wait_for(lambda: rcpt(node, "head@dept.example")[0].startswith("550"), 5)
    assert node.ctl("tables", "rollback") == {"generation": 1}
    assert wait_for(lambda: rcpt(node, "head@dept.example")[0].startswith("250"), 5)
    assert node.ctl_text("config", "reload").returncode == 0
    for pid in node.pids("weir-control"):
        os.kill(pid, signal.SIGKILL)
    assert wait_for(lambda: node.ctl_text("config", "reload").returncode == 0)
    show = node.ctl("tables", "show")
    assert "pinned by a rollback" in node.ctl_text("status").stdout
    assert show["current"] == 1 and show["pinned"] and [g["state"] for g in show["generations"]] == ["good", "good"]
    assert node.ctl("tables", "compile") == {"generation": 3}
    assert not node.ctl("tables", "show")["pinned"]
    assert node.ctl("tables", "compile") == {"generation": 3}  # nothing new: nothing made
    assert node.ctl_text("tables", "rollback", "77").returncode == 1


def test_errors_leave_the_tables_as_they_are(tables):
    node = tables
    (node.dir / "dept").write_text("desk: a@example.org\nDESK: b@example.org\nno colon\nx: y\nz: a@b@c\n")
    p = node.ctl_text("tables", "compile")
    assert p.returncode == 1
    for want in (f'{node.dir}/dept:2: "desk" is there already ({node.dir}/dept:1)', 'dept:3: "no colon" has no colon', 'dept:4: "y" has no domain',
                 'dept:5: "a@b@c" is not an address', "stay as they are"):
        assert want in p.stderr, p.stderr
    assert node.ctl_text("config", "reload").returncode == 1
    assert node.ctl_text("config", "check", str(node.config)).returncode == 1
    assert "the alias files have errors" in node.ctl_text("status").stdout
    assert rcpt(node, "head@dept.example")[0].startswith("250")
    # the node comes up with the tables that it had
    node.stop()
    node.start()
    assert rcpt(node, "head@dept.example")[0].startswith("250")


def test_a_damaged_generation_is_refused_and_an_older_one_serves(tables):
    node = tables
    (node.dir / "dept").write_text(DEPT + "new: fresh@example.org\n")
    assert node.ctl("tables", "compile") == {"generation": 2}
    assert wait_for(lambda: rcpt(node, "new@dept.example")[0].startswith("250"), 5)
    node.stop()
    path = node.run / "tables" / "gen-2"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    (node.dir / "dept").write_text("broken\n")  # so that control makes no new one
    node.start()
    assert rcpt(node, "head@dept.example", "new@dept.example")[0].startswith("250")
    assert "tables/current are missing or damaged" in node.ctl_text("status").stdout
    show = node.ctl("tables", "show", check=False)
    assert [g["state"] for g in show["generations"]] == ["good", "damaged"]
    node.stop()
    (node.run / "tables" / "current").unlink()
    node.start()
    assert rcpt(node, "head@dept.example", "new@dept.example")[0].startswith("250")
    assert "tables/current are missing or damaged" in node.ctl_text("status").stdout


def test_without_any_tables_the_answer_is_temporary(tables):
    node = tables
    node.stop()
    for f in (node.run / "tables").iterdir():
        f.unlink()
    (node.dir / "dept").write_text("broken\n")
    node.start()
    assert [r[:9] for r in rcpt(node, "head@dept.example", "postmaster@dept.example", "postmaster")] == ["451 4.3.0", "250 2.1.5", "250 2.1.5"]  # B4: it is the relay's own then
    configure(node, 1)
    assert node.ctl_text("config", "reload").returncode == 0
    assert wait_for(lambda: rcpt(node, "head@dept.example")[0].startswith("250"), 5)


def test_mistakes_in_the_configuration(tables, tmp_path):
    bad = tmp_path / "bad.yaml"
    bad.write_text("""mail_domains:
  - {domain: a.example, retired: x, forward: a@b.example}
  - {domain: b.example, long_form_of: nowhere.example}
  - {domain: c.example, long_form_of: d.example}
  - {domain: d.example, long_form_of: b.example}
  - {domain: e.example, forward: nobody}
  - {domain: f.example, to: "smtp:h:25"}
  - {domain: g.example, backup_mx: no}
  - {domain: h.example, retired: x, unlisted: deliver}
  - {domain: "-", retired: x}
  - just.example
routes: [{domain: f.example, to: mx}]
""")
    p = tables.ctl_text("config", "check", str(bad))
    for want in ("yaml:2: mail_domains: a domain has one of", "yaml:3: mail_domains: b.example is the long form of nowhere.example, which is not",
                 "yaml:4: mail_domains: c.example is the long form of d.example, which is a long form itself", 'yaml:6: mail_domains: forward "nobody"',
                 '"f.example" has a route in routes', "yaml:8: mail_domains: backup_mx is yes", "yaml:9: mail_domains: forwarding and unlisted",
                 'yaml:10: mail_domains: "-" is not a domain', "yaml:11: mail_domains: an entry is"):
        assert want in p.stderr, (want, p.stderr)


def test_alias_looks_up_in_both_directions(tables):
    one = tables.ctl("alias", "HEAD@dept.example")
    assert one["entry"]["targets"] == ["prof@staff.example", "Secretary@dept.example"] and one["entry"]["line"] == 3
    assert [(r["alias"], r["steps"]) for r in one["reverse"]] == [("all@dept.example", 1)]
    ext = tables.ctl("alias", "abc12@staff.example")
    assert ext["entry"]["kind"] == "forwarding"
    assert {r["alias"]: r["steps"] for r in ext["reverse"]} == {"prof@staff.example": 1, "abc12@staff.example": 1, "head@dept.example": 2,
                                                                "all@dept.example": 3}
    assert tables.ctl("alias", "prof@long-staff.example")["entry"]["alias"] == "prof@staff.example"
    assert tables.ctl("alias", "prof@staff.example")["whole_domains"] == ["long-staff.example"]
    assert tables.ctl("alias", "two@example.org")["whole_domains"] == ["fixed.example"]
    text = tables.ctl_text("alias", "one@example.org").stdout
    assert "from everything at fixed.example" in text
    assert "example.org is not in the tables" in text and "from desk@dept.example -> one@example.org two@example.org" in text and "/dept:10)" in text


def test_check_finds_loops_and_what_leads_nowhere(tables):
    found = {(f["alias"], f["finding"], f["address"], f["line"]) for f in tables.ctl("tables", "check", check=False)}
    assert found == {("ring2", "closes a loop", "ring1@dept.example", 7), ("nowhere", "leads nowhere", "gone@dept.example", 8),
                     ("half", "leads nowhere", "gone@dept.example", 9), ("closed", "leads nowhere", "x@old.example", 11)}
    p = tables.ctl_text("tables", "check")
    assert p.returncode == 1 and "/dept:9: half@dept.example: gone@dept.example leads nowhere" in p.stdout
    (tables.dir / "dept").write_text("desk: one@example.org\n")
    tables.ctl("tables", "compile")
    assert tables.ctl_text("tables", "check").returncode == 0


def test_route_says_every_decision(tables, sink):
    rows = tables.ctl("route", "prof@long-staff.example")
    got = [(r["rule"], r["from"], r.get("to")) for r in rows]
    hop = f"smtp:127.0.0.1:{sink.port} tls=never"
    assert got == [("A1", "prof@long-staff.example", None), ("C7", "prof@long-staff.example", "prof@staff.example"),
                   ("C6", "prof@staff.example", "abc12@staff.example"), ("C8", "abc12@staff.example", "abc12@staff.example"),
                   ("F1", "abc12@staff.example", hop), ("F1", "copy@example.net", hop)]
    lines = tables.config.read_text().splitlines()
    assert "long-staff.example" in lines[rows[1]["config_line"] - 1] and rows[2]["file"].endswith("/staff") and rows[2]["line"] == 1
    assert [r["rule"] for r in tables.ctl("route", "gone@dept.example")] == ["A1", "B2", "B2"]
    assert tables.ctl("route", "x@old.example")[-1]["to"] == "550 5.1.6 old.example was closed, see www.cam.example"
    assert tables.ctl("route", "x@example.org")[-1]["to"].startswith("550 5.7.1")
    assert tables.ctl("route", "x@example.org", "--client", "192.0.2.1")[-1]["to"] == hop
    text = tables.ctl_text("route", "head@dept.example").stdout
    assert "C6  alias: head@dept.example -> prof@staff.example and 1 more  (" in text and "/dept:3)" in text


def test_a_fragile_client_hears_of_an_unknown_recipient_by_mail(make_node, sink):
    node = make_node(sink.port, start=False, extra="relay_clients: [{network: 127.0.0.0/8, class: fragile, rate: none}]\n")
    configure(node, sink.port)
    node.start()
    assert send(node, "gone@dept.example", "x@old.example", "desk@dept.example").startswith("250")
    assert wait_for(lambda: len(sink.messages) == 2), sink.messages
    assert sorted(t for m in sink.messages if m["from"] for t in m["to"]) == ["one@example.org", "two@example.org"]
    reports = b"".join(m["data"] for m in sink.messages if not m["from"])
    assert b"rfc822;gone@dept.example" in reports and b"5.1.1" in reports
    assert b"rfc822;x@old.example" in reports and b"old.example was closed, see www.cam.example" in reports
    assert wait_for(lambda: node.queue() == [])


def test_without_control_the_tables_go_on(tables):
    os.kill(tables.proc.pid, signal.SIGSTOP)
    for pid in tables.pids("weir-control"):
        os.kill(pid, signal.SIGKILL)
    assert rcpt(tables, "head@dept.example", "gone@dept.example")[0].startswith("250")
    assert tables.ctl_text("tables", "compile").returncode == 1
    os.kill(tables.proc.pid, signal.SIGCONT)


def test_switching_under_load_gives_each_message_one_generation(make_node, make_sink):
    sink = make_sink()
    node = make_node(sink.port, start=False, engine="trivial")
    fill = "".join(f"u{i}: u{i}@example.org\n" for i in range(20000))

    def dept(g):
        # all of one generation or all of another, never a mixture
        return f"list: a{g}@example.org,mid@dept.example\nmid: b{g}@example.org,end@dept.example\nend: c{g}@example.org\n" + fill

    configure(node, sink.port, dept=dept(0))
    node.start()
    stop, replies = threading.Event(), []

    def load():
        c = Smtp(node.port)
        c.cmd("EHLO client.test")
        while not stop.is_set():
            replies.append(c.message("s@example.com", ["list@dept.example"], HEAD))

    threads = [threading.Thread(target=load) for _ in range(4)]
    for t in threads:
        t.start()
    for g in range(1, 9):
        (node.dir / "dept").write_text(dept(g))
        assert node.ctl("tables", "compile") == {"generation": g + 1}
        time.sleep(1.1)
    assert wait_for(lambda: node.counters()["tables_generation"] == 18)
    stop.set()
    for t in threads:
        t.join()
    assert replies and all(r.startswith("250") for r in replies)
    assert wait_for(lambda: sink.count == len(replies), 30)
    seen = set()
    for m in sink.messages:
        of = {a[1:].split("@")[0] for a in m["to"]}
        assert len(m["to"]) == 3 and len(of) == 1, m["to"]
        seen |= of
    assert len(seen) >= 4, seen


def test_many_recipients_of_one_alias(tables, sink):
    node = tables
    addrs = ",".join(f"m{i}@example.org" for i in range(3000))
    (node.dir / "dept").write_text(DEPT + f"list: {addrs}\n")
    assert node.ctl("tables", "compile") == {"generation": 2}
    assert wait_for(lambda: node.counters()["tables_generation"] == 4)  # of both workers: 2 + 2
    assert send(node, "list@dept.example").startswith("250")
    assert wait_for(lambda: sum(len(m["to"]) for m in sink.messages) == 3000, 30)
    assert len({a for m in sink.messages for a in m["to"]}) == 3000
