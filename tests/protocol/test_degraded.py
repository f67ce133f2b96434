"""Each helper's absence has one defined, visible mode; mail flows."""
import os
import re
import signal
import time
import urllib.request

import node as node_module
import pytest
from node import Smtp, wait_for

HEAD = b"From: a@cam.example\r\nSubject: test\r\n\r\n"


def send(node, n=1, sender="a@cam.example", rcpt="b@example.org"):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    replies = [c.message(sender, [rcpt], HEAD) for _ in range(n)]
    c.close()
    return replies


def test_without_control(node, sink):
    os.kill(node.proc.pid, signal.SIGSTOP)  # nobody starts it again
    for pid in node.pids("weir-control"):
        os.kill(pid, signal.SIGKILL)
    assert all(r.startswith("250") for r in send(node, 20))
    assert wait_for(lambda: sink.count == 20)
    assert "control does not run" in node.ctl_text("status").stdout
    os.kill(node.proc.pid, signal.SIGCONT)
    assert wait_for(lambda: "control does not run" not in node.ctl_text("status").stdout)


def test_without_redis_and_with_a_hanging_one(make_node, sink):
    node = make_node(sink.port, extra="relay_clients: [{network: 127.0.0.0/8, rate: 1000}]\n")
    assert send(node)[0].startswith("250")
    os.kill(node.redis_pid(), signal.SIGSTOP)
    start = time.monotonic()
    assert all(r.startswith("250") for r in send(node, 20))
    assert time.monotonic() - start < 10  # a budget of 20 ms each, not a time-out
    assert node.counters()["redis_fallbacks_total"] >= 19
    os.kill(node.proc.pid, signal.SIGSTOP)
    pid = node.redis_pid()
    os.kill(pid, signal.SIGKILL)
    assert all(r.startswith("250") for r in send(node, 5))
    assert wait_for(lambda: "redis does not answer" in node.ctl_text("status").stdout)
    os.kill(node.proc.pid, signal.SIGCONT)
    assert wait_for(lambda: node.counters()["redis_up"] == 2, 30)


def test_a_killed_scanner_is_replaced_and_its_jobs_done(node, sink):
    for _ in range(5):
        os.kill(node.pids("weir-scanner")[-1], signal.SIGKILL)
        assert send(node)[0].startswith("250")
    assert wait_for(lambda: sink.count == 5)


def test_without_scanners_mail_is_answered_451_and_never_passes(make_node, sink):
    node = make_node(sink.port, extra="relay_clients: [{network: 127.0.0.1/32}, {network: 127.0.0.2/32, class: fragile}]\n")
    os.kill(node.proc.pid, signal.SIGSTOP)
    for pid in node.pids("weir-scanner"):
        os.kill(pid, signal.SIGKILL)
    assert send(node)[0].startswith("451 4.7.0")
    assert "no scanner is linked" in node.ctl_text("status").stdout
    assert sink.count == 0
    import socket
    s = socket.create_connection(("127.0.0.1", node.port), 30, source_address=("127.0.0.2", 0))
    c = Smtp.__new__(Smtp)
    c.s, c.f = s, s.makefile("rb")
    c.reply()
    c.cmd("EHLO printer.test")
    assert c.message("a@cam.example", ["b@example.org"], HEAD).startswith("250")
    assert [m["state"] for m in node.queue()] == ["held"]
    os.kill(node.proc.pid, signal.SIGCONT)
    assert wait_for(lambda: node.counters()["scanners_connected"] == 4)
    assert send(node)[0].startswith("250")


def test_rates_defer_over_the_limit_and_two_nodes_count_together(make_node, sink):
    extra = "relay_clients: [{network: 127.0.0.0/8}]\nrates: {mode: defer, limit: 10, period: 1h}\n"
    one = make_node(sink.port, extra=extra, name="one")
    two = make_node(sink.port, extra=extra + f'redis: {{server: "unix:{one.run}/redis.sock", budget: 500ms}}\n', name="two")
    replies = []
    for i in range(24):
        replies += send((one, two)[i % 2])
    good = [r for r in replies if r.startswith("250")]
    assert 10 <= len(good) <= 11 and all(r.startswith("450 4.7.1") for r in replies if r not in good), replies
    row = one.ctl("rate", "explain", "client/127.0.0.1")[0]
    assert row["limit"] == 10 and row["backend"] == "redis" and row["source"] == "rates.limit" and float(row["rate"]) > 9
    assert float(row["next_allowed_s"]) > 60


def test_monitor_mode_never_changes_a_reply(make_node, sink):
    node = make_node(sink.port, extra="relay_clients: [127.0.0.0/8]\nrates: {limit: 5}\n")
    assert all(r.startswith("250") for r in send(node, 20))
    assert wait_for(lambda: node.counters()["rate_over_total"] >= 14)
    assert "event=rate-over" in node.log_text()


def test_configuration_reload_and_a_bad_file_changes_nothing(node, sink):
    text = node.config.read_text()
    node.config.write_text(text.replace("local_domains: [cam.example]", "local_domains: [cam.example, ox.example]\nratse: {limit: x}\n"))
    p = node.ctl_text("config", "reload")
    assert p.returncode == 1 and re.search(r"weir.yaml:\d+: unknown key \"ratse\"; did you mean", p.stderr), p.stderr
    node.config.write_text(text.replace("local_domains: [cam.example]", "local_domains: [cam.example, ox.example]"))
    assert node.ctl_text("config", "reload").returncode == 0
    assert wait_for(lambda: node.counters()["configuration_generation"] == 4)  # of both workers: 2 + 2


def test_a_reload_comes_back_when_all_workers_use_it(node):
    text = node.config.read_text()
    for size in ("1M", "2M", "3M"):
        node.config.write_text(f"{text}limits: {{message_size: {size}}}\n")
        assert node.ctl_text("config", "reload").stdout.endswith("In use by 2 workers.\n")
        offered = set()
        for _ in range(20):  # either worker may have the connection
            c = Smtp(node.port)
            offered |= {line for line in c.cmd("EHLO client.test").splitlines() if "SIZE" in line}
            c.close()
        assert [line.split()[-1] for line in offered] == [str(int(size[0]) << 20)], offered
    stopped = node.pids("weir-dataplane")[0]
    os.kill(stopped, signal.SIGSTOP)
    try:
        node.config.write_text(text)
        r = node.ctl_text("config", "reload")
        assert r.returncode == 1 and "In use by 1 of 2 workers." in r.stdout and re.match(r"Worker \d does not answer.\n", r.stderr), r
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert node.ctl_text("config", "reload").returncode == 0


def test_configuration_errors_say_where_and_what(tmp_path, node):
    bad = tmp_path / "bad.yaml"
    bad.write_text('hostname: "not a name!"\nrates:\n  period: 5x\n  limit: many\nlisten: [25]\nroutes:\n  - {domain: x.example, to: "ftp:h:1"}\n'
                   "scan: {engine: best}\nlimits: {recipients: 3}\nspool: {directory: [a]}\n")
    p = node.ctl_text("config", "check", str(bad))
    assert p.returncode == 1
    for want in ('bad.yaml:3: rates.period: "5x" is not a duration', 'bad.yaml:4: rates.limit: "many" is not a rate', "bad.yaml:5: listen:",
                 'bad.yaml:7: routes: "ftp:h:1"', 'bad.yaml:8: scan.engine: "best" is not possible; write clamav or trivial',
                 "bad.yaml:9: limits.recipients: 3 is out of range", "bad.yaml:10: spool.directory has one value", 'hostname: "not a name!"'):
        assert want in p.stderr, (want, p.stderr)


def test_metrics(node, sink):
    send(node, 3)
    assert wait_for(lambda: sink.count == 3)
    text = urllib.request.urlopen(f"http://127.0.0.1:{node.metrics}/metrics", timeout=10).read().decode()
    total = sum(int(line.split()[-1]) for line in text.splitlines() if line.startswith("weir_messages_accepted_total{"))
    assert total == 3 and "# TYPE weir_queue_messages gauge" in text


def test_the_spool_full_is_452_and_empties_again(make_node, make_sink):
    state = {"down": True}
    sink = make_sink(decide=lambda kind, text: "450 4.2.0 no" if kind == "mail" and state["down"] else None, keep=False)
    node = make_node(sink.port, workers=1, engine="trivial", extra="spool: {segment: 4M, max: 16M, arena: 16M}\nspool_: 0\n".replace("spool_: 0\n", "")
                     + "delivery: {retry_first: 1h}\n")
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    taken, r = 0, "250"
    for _ in range(60):
        r = c.message("a@cam.example", ["b@example.org"], HEAD + (b"z" * 76 + b"\r\n") * 6400)
        if not r.startswith("250"):
            break
        taken += 1
    assert r.startswith("452 4.3.1") and taken >= 5, (taken, r)
    state["down"] = False
    node.ctl("queue", "retry", "--all")
    assert wait_for(lambda: sink.count == taken, 30), (sink.count, taken)
    assert wait_for(lambda: c.message("a@cam.example", ["b@example.org"], HEAD).startswith("250"), 20)


def test_stop_in_order_keeps_what_is_queued(make_node, make_sink):
    state = {"down": True}
    sink = make_sink(decide=lambda kind, text: "450 4.2.0 no" if kind == "mail" and state["down"] else None)
    node = make_node(sink.port, extra="delivery: {retry_first: 1s}\n")
    send(node, 10)
    assert wait_for(lambda: len(node.queue()) == 10)
    node.stop()
    state["down"] = False
    node.start()
    assert wait_for(lambda: sink.count == 10, 20) and wait_for(lambda: node.queue() == [])


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_all_daemons_become_the_configured_user(make_node, sink, tmp_path_factory):
    import pathlib
    import shutil
    import tempfile
    base = pathlib.Path(tempfile.mkdtemp(prefix="weir-user-", dir="/var/tmp"))
    base.chmod(0o755)
    programs = base / "bin"
    programs.mkdir()
    for name in ("weir", "weirctl", "weir-control", "weir-dataplane", "weir-scanner"):
        shutil.copy(node_module.BIN / name, programs)
    shutil.copytree(node_module.BIN / "signatures", programs / "signatures")
    node = node_module.Node(base, sink.port, extra="user: nobody\n", start=False)
    before, node_module.BIN = node_module.BIN, programs
    try:
        node.config.chmod(0o644)
        node.start()
        assert send(node)[0].startswith("250") and wait_for(lambda: sink.count == 1)
        for name in ("weir-dataplane", "weir-scanner", "weir-control"):
            assert node.pids(name)
            for pid in node.pids(name):
                assert os.stat(f"/proc/{pid}").st_uid == 65534
    finally:
        node.stop()
        node_module.BIN = before
        shutil.rmtree(base)
