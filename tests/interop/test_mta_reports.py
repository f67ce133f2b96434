"""Reports of other MTAs pass through Weir, Weir's pass through them, and nobody reports a report (F3, A10, P10)."""
import re

from letters import Report, head
from node import wait_for
from test_mta import send


def text(subject):
    return head(subject, True) + b"\r\nthe text\r\n"


def test_a_report_of_the_mta_passes_through_weir(world):
    """Weir hands over, the MTA cannot deliver and says so by way of Weir."""
    rcpt, sender = "refused@plain.to-mta.example", f"told-{world.mta.name}@origin.example"
    send(world.node.port, sender, [rcpt], text("refused"), mail=" ENVID=QQ1 RET=HDRS")
    r = Report(world.arrived(sender), world.mta.report_type)
    row = r.rcpts[rcpt]
    assert row["Action"] == "failed" and row["Status"].startswith("5.") and r.to == [sender]
    assert "no such user" in re.sub(r"\s+", " ", row["Diagnostic-Code"] or r.text.get_content())
    assert world.mta.name in r.per_message["Reporting-MTA"] and "refused@" in r.original.as_string() + r.data.decode("latin-1")


def test_a_report_of_weir_passes_through_the_mta(world):
    """The sender is behind the MTA."""
    rcpt, sender = "refused@elsewhere.example", "told@plain.to-mta.example"
    send(world.node.port, sender, [rcpt], text("told"), mail=" ENVID=QQ2")
    r = Report(world.arrived(sender))
    assert r.rcpts[rcpt]["Action"] == "failed" and r.rcpts[rcpt]["Status"] == "5.1.1" and r.per_message["Reporting-MTA"] == "dns;relay.cam.example"
    assert r.per_message["Original-Envelope-Id"] == "QQ2" and "the text" in r.original.as_string()


def null_senders(world, since):
    return [m for m in world.sink.messages[since:] if m["from"] == ""]


def test_a_report_of_the_mta_that_cannot_be_delivered_goes_to_the_postmaster(world):
    """Weir took it with a null sender, and makes no report about it: the postmaster gets what it was."""
    since, before = len(world.sink.messages), world.node.counters()["dsn_double_total"]
    send(world.node.port, "refused-origin@origin.example", ["refused@plain.to-mta.example"], text("double"))
    assert wait_for(lambda: world.mta.flush() or world.node.counters()["dsn_double_total"] == before + 1, 20, 1)
    assert wait_for(lambda: null_senders(world, since))
    m, = null_senders(world, since)
    assert m["to"] == ["postmaster@cam.example"] and b"refused-origin@origin.example" in m["data"]
    assert wait_for(lambda: world.node.queue() == [])


def test_a_report_of_weir_that_cannot_be_delivered_ends_at_the_mta(world):
    """The MTA cannot deliver Weir's report: it may tell its postmaster, but nobody else, and Weir makes no second one."""
    since, before = len(world.sink.messages), world.node.counters()["dsn_total"]
    send(world.node.port, "refused-origin@plain.to-mta.example", ["refused@elsewhere.example"], text("ends"))
    assert wait_for(lambda: world.node.counters()["dsn_total"] == before + 1)
    assert wait_for(lambda: world.node.queue() == [])
    send(world.node.port, "a@origin.example", ["after@plain.to-mta.example"], text("after"))  # when this is through, the other was as well
    world.arrived("after@plain.to-mta.example")
    assert wait_for(lambda: world.node.queue() == [])
    assert {r for m in null_senders(world, since) for r in m["to"]} <= {"postmaster@cam.example"}
    assert world.node.counters()["dsn_total"] == before + 1
