"""Managed mail domains that are fetched by https: what is taken, what is not, who hears of it (rules C1, C2, C3, C4), one source of truth and its history (C9)."""
import os
import pathlib
import re
import subprocess

import pytest
from alias_web import GOOD, AliasWeb, NastyWeb, aliases
from node import Smtp, wait_for

HEAD = b"From: a@cam.example\r\nSubject: test\r\n\r\n"


@pytest.fixture(scope="module")
def web(tmp_path_factory):
    w = AliasWeb(tmp_path_factory.mktemp("web"))
    yield w
    w.stop()


@pytest.fixture(scope="module")
def nasty(web):
    n = NastyWeb(*web.good)
    yield n
    n.stop()


@pytest.fixture
def domain(make_node, sink, web):
    """domain(url) is a node with dept.example from there; rows are added to mail_domains, keys to the group managed."""
    def make(url, keys="", rows="", more="", start=True):
        node = make_node(sink.port, start=False, workers=1, extra=f"relay_clients: [192.0.2.1]\nmanaged: {{fetch_every: 1h{keys}}}\n"
                         f"mail_domains:\n  - {{domain: dept.example, source: \"{url}\", ca: {web.ca}, owner: The Department, contact: dept@cam.example{more}}}\n{rows}")
        return node.start() if start else node

    return make


def show(node, name="dept.example"):
    return node.ctl("domain", "show", name)


def fetch(node, name="dept.example"):
    return node.ctl_text("domain", "fetch", name)


def fetched(node):
    """The state once the fetch of the start is over."""
    assert wait_for(lambda: show(node)["fetched"]), node.log_text()[-2000:]
    return show(node)


def live(node):
    """The state once the workers have what the fetch of the start brought."""
    assert not fetched(node)["failed"], show(node)
    assert answers(node, "webmaster@dept.example", "250")
    return show(node)


def rcpt(node, *addrs):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    c.cmd("MAIL FROM:<s@example.com>")
    replies = [c.cmd(f"RCPT TO:<{a}>") for a in addrs]
    c.close()
    return replies


def answers(node, addr, reply):
    return wait_for(lambda: rcpt(node, addr)[0].startswith(reply), 10)


def notices(sink):
    return [m for m in sink.messages if b"Subject: Mail domain" in m["data"]]


# ---- C2: the fetch ----


def test_a_domain_is_fetched_at_the_start_and_is_then_only_asked_whether_it_changed(domain, web):
    web.write("dept", GOOD + "head: prof@cam.example\n")
    node = domain(web.url())
    st = fetched(node)
    assert not st["failed"] and st["change"] == 1 and st["owner"] == "The Department" and st["contact"] == "dept@cam.example"
    assert 3600 * 0.9 <= st["next"] - st["fetched"] <= 3600 * 1.1
    assert answers(node, "HEAD@dept.example", "250")
    assert rcpt(node, "nobody@dept.example")[0].startswith("550 5.1.1")
    p = fetch(node)
    assert p.returncode == 0 and "not modified" in p.stdout, p.stderr
    assert web.log()[-1].startswith("304 /dept")
    web.write("dept", GOOD + "deputy: prof@cam.example\n")
    p = fetch(node)
    assert p.returncode == 0 and "change 2, 4 entries" in p.stdout, p.stderr
    assert answers(node, "deputy@dept.example", "250") and answers(node, "head@dept.example", "550")
    # where an alias comes from is an address and a line
    assert node.ctl("alias", "deputy@dept.example")["entry"]["file"] == web.url() and node.ctl("alias", "deputy@dept.example")["entry"]["line"] == 4


def test_it_is_fetched_again_in_time(domain, web):
    web.write("dept", GOOD)
    node = domain(web.url(), start=False)
    node.config.write_text(node.config.read_text().replace("fetch_every: 1h", "fetch_every: 1s"))
    node.start()
    fetched(node)
    web.write("dept", GOOD + "head: prof@cam.example\n")
    assert answers(node, "head@dept.example", "250")


def test_a_domain_that_was_never_fetched_is_answered_451(domain, web):
    node = domain(web.url("nothing"), rows="  - {domain: long-dept.example, long_form_of: dept.example}\n")
    assert fetched(node)["failed"] and "404" in show(node)["result"]
    said = rcpt(node, "head@dept.example", "head@long-dept.example", "Postmaster@dept.example")
    assert said[0].startswith("451") and said[2].startswith("250")  # B4
    # it is tried again soon, not after the whole period
    assert show(node)["next"] - show(node)["fetched"] <= 330


@pytest.mark.parametrize("cert, why", [("expired", "expired"), ("wrong", "subject name|does not match"), ("other", "self-signed|unable to get")])
def test_a_bad_certificate_is_refused(domain, web, cert, why):
    web.write("dept", GOOD)
    node = domain(web.url(cert=cert))
    st = fetched(node)
    assert st["failed"] and re.search(why, st["result"]) and st["change"] == 0, st


def test_a_name_that_is_an_address_is_not_in_the_certificate(domain, web):
    web.write("dept", GOOD)
    st = fetched(domain(web.url(host="127.0.0.1")))
    assert st["failed"] and "127.0.0.1" in st["result"], st


def test_the_systems_authorities_do_not_vouch_for_a_private_one(make_node, sink, web):
    web.write("dept", GOOD)
    node = make_node(sink.port, extra=f"mail_domains: [{{domain: dept.example, source: \"{web.url()}\"}}]\n")
    assert fetched(node)["failed"]


@pytest.mark.parametrize("path, why", [("away", "another place"), ("otherport", "another place"), ("plain", "another place"), ("loop", "more than 3 times"),
                                       ("broken", "503"), ("nothing", "404"), ("secret/dept", "401")])
def test_answers_that_are_no_aliases(domain, web, path, why):
    web.write("secret/dept", GOOD)
    web.write("dept", GOOD)
    st = fetched(domain(web.url(path)))
    assert st["failed"] and why in st["result"] and st["change"] == 0, st


@pytest.mark.parametrize("path, why", [("slow", "timed out|Operation too slow"), ("endless", "longer than managed.fetch_max"), ("half", "transfer closed|partial|eof|EOF"),
                                       ("chunks", "transfer closed|partial|eof|EOF"), ("cut", "how long the file is|eof|EOF"), ("garbage", "HTTP/0.9|nsupported|eceived")])
def test_a_server_that_misbehaves(domain, web, nasty, path, why):
    node = domain(nasty.url(path), keys=", fetch_timeout: 3s, fetch_max: 1M")
    # control answers meanwhile: a fetch waits for nobody
    assert node.ctl_text("tables", "compile").returncode == 0
    st = fetched(node)
    assert st["failed"] and re.search(why, st["result"]) and st["change"] == 0, st


def test_user_and_password_come_from_a_file_and_are_nowhere_else(domain, web, tmp_path):
    secrets = tmp_path / "secrets"
    secrets.write_text("# passwords\n* other:nothing\ndept.example dept:very secret 7\n")
    secrets.chmod(0o600)
    web.write("secret/dept", GOOD)
    node = domain(web.url("moved"), more=f", secrets: {secrets}")  # redirected on the same host, with the password
    st = fetched(node)
    assert not st["failed"], st
    assert web.log()[-1] == "200 /secret/dept dept"
    secrets.write_text("dept.example dept:wrong secret\n")
    p = fetch(node)
    assert p.returncode == 1 and "401" in p.stderr and "secret" not in p.stderr
    secrets.write_text("dept.example dept\n")
    p = fetch(node)
    assert p.returncode == 1 and "secrets:1: write DOMAIN USER:PASSWORD" in p.stderr
    secrets.chmod(0o640)
    p = fetch(node)
    assert p.returncode == 1 and "0600" in p.stderr
    secrets.chmod(0o600)
    secrets.write_text("else.example dept:very secret 7\n")
    p = fetch(node)
    assert p.returncode == 1 and "no line for dept.example" in p.stderr
    for pid in node.pids("weir-control"):
        assert b"secret 7" not in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes() + pathlib.Path(f"/proc/{pid}/environ").read_bytes()
    node.stop()
    for path in [node.log_path, *node.run.rglob("*")]:
        if path.is_file() and path.stat().st_size < 1 << 24:
            assert b"very secret" not in path.read_bytes(), path


# ---- C3, C4: what is taken ----


@pytest.mark.parametrize("text, why", [
    (GOOD.replace("\n", "\r\n") + "\r\n# it\r\nhead: x@cam.example\r\nno colon\r\n", "line:7: \"no colon\" has no colon"),
    (GOOD + "Head: x@cam.example\nhead: y@cam.example\n", "line:5: \"head\" is there already (line 4)"),
    (GOOD + "head: x@@cam.example\n", "line:4: \"x@@cam.example\" is not an address"),
    ("<html><body><p>aliases: here@cam.example</p></body></html>\n", "line:1: "),
    ("", "postmaster is missing"),
    (GOOD.replace("abuse", "misuse"), "abuse is missing"),
    (bytes(range(1, 256)), "line:1: the line has a control character"),
])
def test_a_file_with_errors_is_not_taken_and_postmaster_hears_of_it_once(domain, web, sink, text, why):
    web.write("dept", GOOD)
    node = domain(web.url())
    live(node)
    web.write("dept", text)
    for _ in range(3):
        p = fetch(node)
        assert p.returncode == 1 and "refused: " in p.stderr
    assert wait_for(lambda: notices(sink)) and wait_for(lambda: "p=control/0 event=notice" in node.log_text()), node.log_text()[-2000:]
    m = notices(sink)[0]
    assert m["to"] == ["pm@cam.example"] and m["from"] == ""
    assert why.encode() in m["data"] and web.url().encode() in m["data"] and b"3 entries" in m["data"], m["data"]
    assert answers(node, "webmaster@dept.example", "250")
    assert show(node)["entries"] == 3 and show(node)["failed"]
    # the same again, after a restart of control too: no second mail; something else is wrong: a second one
    for pid in node.pids("weir-control"):
        os.kill(pid, 9)
    assert wait_for(lambda: "dept.example: refused: " in fetch(node).stderr)
    web.write("dept", "wrong")
    assert fetch(node).returncode == 1
    assert wait_for(lambda: len(notices(sink)) > 1), node.log_text()[-4000:]
    assert b"postmaster is missing" in notices(sink)[1]["data"] and len(notices(sink)) == 2


def test_75_of_100_pass_and_74_do_not_until_they_are_accepted(domain, web, sink):
    web.write("dept", aliases(100))
    node = domain(web.url())
    assert live(node)["entries"] == 100
    web.write("dept", aliases(75))
    assert fetch(node).returncode == 0 and show(node)["entries"] == 75
    node.ctl_text("domain", "revert", "dept.example", "1")
    assert show(node)["entries"] == 100
    web.write("dept", aliases(74))
    p = fetch(node)
    assert p.returncode == 1 and "it has 74 entries and the live copy 100: more than 25 per cent" in p.stderr
    st = show(node)
    assert st["entries"] == 100 and st["can_accept"] and st["refused_entries"] == 74
    assert wait_for(lambda: notices(sink)) and b"weirctl domain accept dept.example" in notices(sink)[0]["data"]
    p = node.ctl_text("domain", "accept", "dept.example")
    assert p.returncode == 0, p.stderr
    assert show(node)["entries"] == 74 and not show(node)["failed"]
    assert fetch(node).returncode == 0
    # it was accepted once
    web.write("dept", aliases(55))
    assert fetch(node).returncode == 1 and show(node)["entries"] == 74
    # nobody can accept a file without postmaster
    web.write("dept", "head: x@cam.example\n")
    assert fetch(node).returncode == 1
    p = node.ctl_text("domain", "accept", "dept.example")
    assert p.returncode == 1 and "nothing to accept" in p.stderr


def test_the_limit_of_shrinking_can_be_set(domain, web):
    web.write("dept", aliases(100))
    node = domain(web.url(), keys=", shrink: 50")
    assert fetched(node)["change"] == 1
    web.write("dept", aliases(49))
    assert fetch(node).returncode == 1
    web.write("dept", aliases(50))
    assert fetch(node).returncode == 0
    # what was refused is judged again when the configuration lets it in
    web.write("dept", aliases(20))
    assert fetch(node).returncode == 1
    node.config.write_text(node.config.read_text().replace("shrink: 50", "shrink: 90"))
    assert node.ctl_text("config", "reload").returncode == 0
    p = fetch(node)
    assert p.returncode == 0 and web.log()[-1].startswith("304"), p.stderr


def test_a_server_that_stays_away_is_told_once(domain, web, sink):
    web.write("dept", GOOD)
    node = domain(web.url())
    live(node)
    (web.dir / "www/dept").unlink()
    for _ in range(2):
        assert fetch(node).returncode == 1
    assert not notices(sink)
    for _ in range(4):
        assert fetch(node).returncode == 1
    assert wait_for(lambda: notices(sink)) and b"404" in notices(sink)[0]["data"]
    assert wait_for(lambda: "live copies are older" in node.ctl_text("status").stdout)
    web.write("dept", GOOD)
    assert fetch(node).returncode == 0
    assert "live copies are older" not in node.ctl_text("status").stdout
    assert len(notices(sink)) == 1


# ---- C9 ----


def rows():
    return ("  - {domain: cmd.example, source: command}\n"
            "  - {domain: file.example, aliases: file}\n")


def test_one_source_of_truth_an_audit_log_and_a_way_back(domain, web):
    web.write("dept", GOOD)
    node = domain(web.url(), rows=rows(), start=False)
    (node.dir / "file").write_text(GOOD)
    node.start()
    fetched(node)
    who = subprocess.run(["id", "-un"], capture_output=True, text=True).stdout.strip()
    for name, where in (("dept.example", web.url()), ("file.example", "file")):
        for verb in (["set", name, "x", "x@cam.example"], ["delete", name, "x"]):
            p = node.ctl_text("domain", "alias", *verb)
            assert p.returncode == 1 and "change them there" in p.stderr and where in p.stderr
    p = node.ctl_text("domain", "fetch", "file.example")
    assert p.returncode == 1 and "nothing to fetch" in p.stderr
    # the command line: set, change, delete
    assert rcpt(node, "Head@cmd.example", "postmaster@cmd.example")[0].startswith("550")
    assert node.ctl_text("domain", "alias", "set", "cmd.example", "Head", "a@cam.example", "b@cam.example").returncode == 0
    assert answers(node, "head@cmd.example", "250")
    assert node.ctl_text("domain", "alias", "set", "cmd.example", "HEAD", "c@cam.example").returncode == 0
    assert node.ctl("alias", "head@cmd.example")["entry"]["targets"] == ["c@cam.example"]
    for bad in (["x"], ["x", "no address"], ["a b", "x@cam.example"], ["x\ny", "x@cam.example"], ["x", "x@cam.example\nq:q@cam.example"]):
        assert node.ctl_text("domain", "alias", "set", "cmd.example", *bad).returncode != 0
    assert node.ctl_text("domain", "alias", "delete", "cmd.example", "nobody").returncode == 1
    p = node.ctl_text("domain", "alias", "delete", "cmd.example", "Postmaster")
    assert p.returncode == 1 and "every domain has postmaster" in p.stderr
    assert node.ctl_text("domain", "alias", "delete", "cmd.example", "head").returncode == 0
    assert answers(node, "head@cmd.example", "550")
    log = node.ctl("domain", "log", "cmd.example")
    assert [(r["n"], r["how"], r["diff"]) for r in log] == [(1, "set", "+head"), (2, "set", "~head"), (3, "delete", "-head")]
    assert all(r["by"].startswith(f"{who} (uid ") for r in log)
    # back, and back to a change that is named
    assert node.ctl_text("domain", "revert", "cmd.example").returncode == 0
    assert node.ctl("alias", "head@cmd.example")["entry"]["targets"] == ["c@cam.example"]
    assert node.ctl_text("domain", "revert", "cmd.example", "1").returncode == 0
    assert node.ctl("alias", "head@cmd.example")["entry"]["targets"] == ["a@cam.example", "b@cam.example"]
    p = node.ctl_text("domain", "revert", "cmd.example", "77")
    assert p.returncode == 1 and "no change 77" in p.stderr
    # a file: what it said before; until it is another one
    (node.dir / "file").write_text(GOOD + "bad: x@cam.example\n")
    assert node.ctl_text("tables", "compile").returncode == 0
    assert answers(node, "bad@file.example", "250")
    assert node.ctl_text("domain", "revert", "file.example").returncode == 0
    assert answers(node, "bad@file.example", "550")
    assert node.ctl_text("tables", "compile").returncode == 0 and node.ctl_text("config", "reload").returncode == 0
    assert answers(node, "bad@file.example", "550")
    (node.dir / "file").write_text(GOOD + "good: x@cam.example\n")
    assert node.ctl_text("tables", "compile").returncode == 0
    assert answers(node, "good@file.example", "250")
    log = node.ctl("domain", "log", "file.example")
    assert [(r["how"], r["diff"]) for r in log[1:]] == [("file", "+bad"), ("revert", "-bad"), ("file", "+good")]
    assert log[0]["by"] == "start" and all(r["by"].startswith(who) for r in log[1:])


def test_a_reverted_domain_stays_so_until_its_source_says_something_new(domain, web):
    web.write("dept", GOOD + "head: a@cam.example\n")
    node = domain(web.url())
    fetched(node)
    web.write("dept", GOOD + "head: b@cam.example\n")
    assert fetch(node).returncode == 0
    assert node.ctl_text("domain", "revert", "dept.example").returncode == 0
    assert node.ctl("alias", "head@dept.example")["entry"]["targets"] == ["a@cam.example"]
    os.utime(web.dir / "www/dept", (1, 1))  # another time, another ETag, the same text
    p = fetch(node)
    assert p.returncode == 0 and "passed over" in p.stdout, p
    assert node.ctl("alias", "head@dept.example")["entry"]["targets"] == ["a@cam.example"]
    web.write("dept", GOOD + "head: c@cam.example\n")
    assert fetch(node).returncode == 0
    assert node.ctl("alias", "head@dept.example")["entry"]["targets"] == ["c@cam.example"]
    assert [r["how"] for r in node.ctl("domain", "log", "dept.example")] == ["fetch", "fetch", "revert", "fetch"]


def test_list_and_show_for_people(domain, web):
    web.write("dept", GOOD)
    node = domain(web.url(), rows=rows(), start=False)
    (node.dir / "file").write_text(GOOD)
    node.start()
    live(node)
    text = node.ctl_text("domain", "list").stdout
    assert all(re.search(line, text) for line in (r"(?m)^dept.example +https +3 +20.*change 1, 3 entries", r"(?m)^cmd.example +command +0", r"(?m)^file.example +file +3"))
    text = node.ctl_text("domain", "show", "Dept.Example").stdout
    for line in ("source       https: " + web.url(), "owner        The Department", "contact      dept@cam.example", "next fetch   20", "entries      3 in generation"):
        assert line in text
    assert node.ctl_text("domain", "show", "else.example").returncode == 1


# ---- the configuration ----


@pytest.mark.parametrize("row, why", [
    ("source: \"http://www.cam.example/x\"", "source is https://HOST/PATH, or command"),
    ("source: \"https://user:pw@www.cam.example/x\"", "the file that secrets names"),
    ("source: \"https:///x\"", "write https://HOST/PATH"),
    ("source: \"https://www.cam.example\"", "write https://HOST/PATH"),
    ("source: command, aliases: x", "has one of aliases, source"),
    ("source: command, ca: x", "ca and secrets go with"),
    ("aliases: x, secrets: y", "ca and secrets go with"),
    ("source: command, owner: \"\"", "owner is one line"),
])
def test_rows_that_are_wrong(make_node, tmp_path, row, why):
    node = make_node(start=False, extra="mail_domains:\n  - {domain: dept.example, " + row + "}\n")
    p = node.ctl_text("config", "check", node.config)
    assert p.returncode == 1 and why in p.stderr and re.search(r"weir.yaml:\d+: ", p.stderr), p.stderr
    assert "pw" not in p.stderr
