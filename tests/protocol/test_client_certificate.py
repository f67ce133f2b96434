"""F4: a next hop that wants a certificate of its clients gets that of the route."""
import re
import ssl

import pytest
from node import Smtp, free_port, wait_for
from tls_world import Authority, TlsSink

HEAD = b"From: a@cam.example\r\nSubject: x\r\n\r\n"


@pytest.fixture(scope="module")
def ca(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture
def demanding(ca):
    """Whoever has no certificate of our authority is not talked to."""
    s = TlsSink("127.0.0.1", free_port(), *ca.issue("mx.test"))
    s.context.verify_mode = ssl.CERT_REQUIRED
    s.context.load_verify_locations(ca.cert)
    yield s
    s.stop()


def send(node, rcpt):
    c = Smtp(node.port)
    c.cmd("EHLO client.test")
    assert c.message("a@cam.example", [rcpt], HEAD).startswith("250")
    c.close()


def shown(sink, rcpt):
    """Name and serial number of the certificate with which it came."""
    m, = wait_for(lambda: sink.got(rcpt)) or [None]
    assert m, sink.messages
    return dict(x[0] for x in m["certificate"]["subject"])["commonName"], m["certificate"]["serialNumber"]


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_each_route_shows_its_own(make_node, demanding, ca, version):
    demanding.context.maximum_version = version
    one, two = ca.issue("one.cam.example"), ca.issue("two.cam.example", rsa=True, chain=True)
    to = f'to: "smtp:[127.0.0.1]:{demanding.port}"'
    node = make_node(routes=f"[{{domain: one.example, {to}, tls: must, client_certificate: {one[0]}, client_key: {one[1]}}}, "
                            f"{{domain: two.example, {to}, tls: must, client_certificate: {two[0]}, client_key: {two[1]}}}, "
                            f"{{domain: same.example, {to}, tls: must, client_certificate: {one[0]}, client_key: {one[1]}}}, "
                            f"{{domain: none.example, {to}, tls: must}}]", engine="trivial", workers=1)
    send(node, "b@none.example")
    # in any order, so that connections and TLS sessions of the others would be there to be used
    for turn in range(2):
        for domain in ("one", "two", "same"):
            send(node, f"b{turn}@{domain}.example")
    for turn in range(2):
        assert [shown(demanding, f"b{turn}@{d}.example")[0] for d in ("one", "two", "same")] == ["one.cam.example", "two.cam.example", "one.cam.example"]
    assert wait_for(lambda: [q["to"] for q in node.queue() if q["state"] == "deferred"] == ["b@none.example"])
    assert not demanding.got("b@none.example")


def test_a_renewed_one_is_taken_over(make_node, demanding, ca, tmp_path):
    cert, key = (f.rename(tmp_path / f.name) for f in ca.issue("live.cam.example"))
    node = make_node(routes=f'[{{domain: "*", to: "smtp:[127.0.0.1]:{demanding.port}", tls: must, client_certificate: {cert}, client_key: {key}}}]', engine="trivial", workers=1,
                     extra="tls: {watch: 1s}\ndelivery: {idle: 0s}\n")
    send(node, "b@first.example")
    first = shown(demanding, "b@first.example")
    for new, old in zip(ca.issue("live.cam.example"), (cert, key)):
        new.rename(old)
    assert wait_for(lambda: "event=tls-certificates " in node.log_text())

    def renewed():
        renewed.n += 1
        send(node, f"b@try{renewed.n}.example")
        return shown(demanding, f"b@try{renewed.n}.example") != first

    renewed.n = 0
    assert wait_for(renewed)
    key.write_text("damaged")
    assert wait_for(lambda: "event=tls-certificates-refused" in node.log_text())
    send(node, "b@last.example")
    assert shown(demanding, "b@last.example")[1] != first[1]


def test_mistakes_are_found_with_the_configuration(make_node, ca, tmp_path, sink):
    node = make_node(sink.port, engine="trivial")
    cert, key = ca.issue("good.cam.example")
    other = ca.issue("other.cam.example")[1]
    for more, what in ((f"client_certificate: {cert}", "client_certificate and client_key are names of files, and belong together"),
                       (f"client_key: {key}", "belong together"),
                       (f"client_certificate: {cert}, client_key: {other}", "does not belong to the certificate"),
                       (f"client_certificate: {tmp_path}/none.pem, client_key: {key}", "none.pem cannot be read"),
                       (f"client_certificate: {cert}, client_key: {key}, tls: never", "without TLS it cannot be shown")):
        file = tmp_path / "try.yaml"
        file.write_text(f'hostname: relay.cam.example\nroutes:\n- {{domain: x.example, to: "smtp:mx.example:25", {more}}}\n')
        p = node.ctl_text("config", "check", str(file))
        assert p.returncode == 1 and re.search(f"try.yaml:3: .*{re.escape(what)}", p.stderr), p.stderr
