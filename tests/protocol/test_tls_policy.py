"""F4, outbound TLS policy against real servers: a validating unbound before nsd with a signed zone, nginx for MTA-STS policies, mail exchangers with certificates of all kinds.

One world and one node for the file; every test has a domain of its own in it."""
import contextlib
import json
import os
import signal

import pytest
from node import Node, free_port, have, wait_for
from tls_world import Authority, Dns, PolicyServer, TlsSink

pytestmark = pytest.mark.skipif(not all(map(have, ("nsd", "unbound", "ldns-signzone", "nginx", "openssl"))),
                                reason="nsd, unbound, ldns-signzone, nginx or openssl is not installed")

HEAD = b"From: a@cam.example\r\nSubject: test\r\n\r\n"
SELF, PKI, CLEAR, ANCHOR = "self-signed", "of the authority", "without TLS", "with its chain"  # the exchangers' certificates


def policy(mode, mx, age=86400):
    return f"version: STSv1\r\nmode: {mode}\r\nmx: {mx}\r\nmax_age: {age}\r\n"


POLICIES = {
    "good.plain.example": policy("enforce", "mx-pki.plain.example"),
    "wild.plain.example": policy("enforce", "*.plain.example"),
    "badcert.plain.example": policy("enforce", "mx-self.plain.example"),
    "othermx.plain.example": policy("enforce", "mx.elsewhere.example"),
    "othername.plain.example": policy("enforce", "mx-alias.plain.example"),
    "clear.plain.example": policy("enforce", "mx-clear.plain.example"),
    "testing.plain.example": policy("testing", "mx-self.plain.example"),
    "off.plain.example": policy("none", "mx.elsewhere.example"),
    "broken.plain.example": "<html>not a policy</html>\n",
    "html.plain.example": policy("enforce", "mx.elsewhere.example"),
    "late.plain.example": policy("enforce", "mx-pki.plain.example"),
    "both.signed.example": policy("enforce", "mx-right.signed.example"),
}


def sts(name):
    return f"_mta-sts.{name} TXT \"v=STSv1; id=20260101T000000;\"\nmta-sts.{name} A 127.0.0.1\n"


class World:
    """Exchangers at 127.0.0.11 to 14. Elsewhere: network is the beginning of their addresses, outside() a context in which they are made, inside() that of DNS and the policies."""

    def __init__(self, tmp, network="127.0.0.", outside=contextlib.nullcontext, inside=contextlib.nullcontext):
        self.at = {name: network + str(11 + i) for i, name in enumerate((SELF, PKI, CLEAR, ANCHOR))}
        tmp = {n: tmp / n for n in ("certs", "dns", "www")}
        for d in tmp.values():
            d.mkdir()
        self.ca = Authority(tmp["certs"])
        own = self.ca.self_signed("own")
        pki = self.ca.issue("mx-pki.plain.example")
        anchored = self.ca.issue("mx-anchor.signed.example", chain=True)
        self.port = free_port()
        with outside():
            self.sinks = {name: TlsSink(self.at[name], self.port, *cert) for name, cert in ((SELF, own), (PKI, pki), (CLEAR, ()), (ANCHOR, anchored))}
        with inside():
            self.serve(tmp, network, own)

    def serve(self, tmp, network, own):
        at = f"_{self.port}._tcp"
        spki, zeros = self.ca.spki_sha256(own[0]), "0" * 64
        self.dns = Dns(tmp["dns"], {"signed.example": f"""\
            right MX 10 mx-right
            mx-right A {self.at[SELF]}
            {at}.mx-right TLSA 3 1 1 {spki}
            wrong MX 10 mx-wrong
            mx-wrong A {self.at[SELF]}
            {at}.mx-wrong TLSA 3 1 1 {zeros}
            second MX 10 mx-wrong
            second MX 20 mx-right
            bogus MX 10 mx-bogus
            mx-bogus A {self.at[SELF]}
            {at}.mx-bogus TLSA 3 1 1 {spki}
            forged MX 10 mx-forged
            mx-forged A {network}99
            anchor MX 10 mx-anchor
            mx-anchor A {self.at[ANCHOR]}
            {at}.mx-anchor TLSA 2 0 1 {self.ca.cert_sha256(self.ca.cert)}
            name MX 10 mx-name
            mx-name A {self.at[ANCHOR]}
            {at}.mx-name TLSA 2 0 1 {self.ca.cert_sha256(self.ca.cert)}
            unusable MX 10 mx-unusable
            mx-unusable A {self.at[SELF]}
            {at}.mx-unusable TLSA 1 1 1 {zeros}
            strip MX 10 mx-strip
            mx-strip A {self.at[CLEAR]}
            {at}.mx-strip TLSA 1 1 1 {zeros}
            none MX 10 mx-none
            mx-none A {self.at[CLEAR]}
            both MX 10 mx-right
            many MX 10 mx-many
            mx-many A {self.at[SELF]}
            {"".join(f"{at}.mx-many TLSA 3 1 1 {i:064x}{chr(10)}" for i in range(28))}{at}.mx-many TLSA 3 1 1 {spki}
            alias MX 10 mx-alias
            mx-alias CNAME mx-right
            {sts("both")}""".replace("            ", ""), "plain.example": f"""\
            mx-pki A {self.at[PKI]}
            mx-self A {self.at[SELF]}
            mx-clear A {self.at[CLEAR]}
            {at}.mx-self TLSA 3 1 1 {zeros}
            insecure MX 10 mx-self
            crossed MX 10 mx-wrong.signed.example.
            mx-alias A {self.at[PKI]}
            othername MX 10 mx-alias
            good MX 10 mx-pki
            wild MX 10 mx-pki
            badcert MX 10 mx-self
            othermx MX 10 mx-pki
            clear MX 10 mx-clear
            testing MX 10 mx-self
            off MX 10 mx-self
            broken MX 10 mx-self
            html MX 10 mx-self
            webpki MX 10 mx-self
            missing MX 10 mx-self
            late MX 10 mx-self
            """.replace("            ", "") + "".join(sts(d.split(".")[0]) for d in POLICIES if d.endswith(".plain.example")) + sts("webpki") + sts("missing")},
            signed=("signed.example",), tamper=self.tamper)
        web = self.ca.issue("policies.example", "mta-sts.missing.plain.example", *("mta-sts." + d for d in POLICIES))
        self.web = PolicyServer(tmp["www"], *web, POLICIES)

    def tamper(self, text):
        """What an attacker would put in: another TLSA record, another address, under signatures of the old ones."""
        lines = []
        for line in text.splitlines():
            if "\tTLSA\t" in line and "mx-bogus" in line:
                line = line[:-8] + "deadbeef"
            lines.append(line.replace("0.99", "0.11"))
        return "\n".join(lines) + "\n"

    def stop(self):
        self.web.stop()
        self.dns.stop()
        for s in self.sinks.values():
            s.stop()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    w = World(tmp_path_factory.mktemp("world"))
    yield w
    w.stop()


def config(world, validates=True, dns_port=None):
    return (f'dns: {{servers: ["127.0.0.1:{dns_port or world.dns.port}"], validates: {"yes" if validates else "no"}}}\ntls: {{ca_file: {world.ca.cert}}}\n'
            f"delivery: {{port: {world.port}, retry_first: 1h, mta_sts_port: {world.web.port}, mta_sts_timeout: 5s, connect_timeout: 3s}}\n")


@pytest.fixture(scope="module")
def node(world, tmp_path_factory):
    n = Node(tmp_path_factory.mktemp("node"), routes=routes(world), extra=config(world), engine="trivial")
    yield n
    n.stop()


def routes(world):
    return (f'[{{domain: verified.test, to: "smtp:mx-pki.plain.example:{world.port}", tls: verify}},'
            f' {{domain: unverified.test, to: "smtp:mx-self.plain.example:{world.port}", tls: verify}},'
            f' {{domain: address.test, to: "smtp:[{world.at[PKI]}]:{world.port}", tls: verify}},'
            f' {{domain: danger.test, to: "smtp:mx-wrong.signed.example:{world.port}"}},'
            f' {{domain: never.signed.example, to: "smtp:mx-wrong.signed.example:{world.port}", tls: never}}]')


def send(node, domain, user="u"):
    c = node.smtp()
    c.cmd("EHLO client.test")
    assert c.message("", [f"{user}@{domain}"], HEAD).startswith("250")
    c.close()


def log_of(node, domain, user="u"):
    """The log's line about what became of it."""
    wanted = ("event=delivered ", "event=deferred ", "event=bounced ")
    found = [x for x in node.log_text().splitlines() if f"to={user}@{domain}" in x and any(w in x for w in wanted)]
    return found[-1] if found else ""


def outcome(node, domain, user="u"):
    send(node, domain, user)
    line = wait_for(lambda: log_of(node, domain, user), 20)
    assert line, node.log_text()[-3000:]
    return line


def delivered(node, world, domain, address, tls_policy, tls=True):
    line = outcome(node, domain)
    assert "event=delivered" in line and f"tls_policy={tls_policy} " in line, line
    assert ('tls="TLSv1.' in line) == tls, line
    [m] = world.sinks[address].got(f"u@{domain}")
    assert m["tls"] == tls


def deferred(node, world, domain, what):
    line = outcome(node, domain)
    assert "event=deferred" in line and what in line, line
    assert not any(s.got(f"u@{domain}") for s in world.sinks.values())
    return line


# ---- DANE ----

def test_right_tlsa(node, world):
    delivered(node, world, "right.signed.example", SELF, "dane")
    assert world.sinks[SELF].sni == "mx-right.signed.example"
    assert node.counters()["outbound_dane_total"] >= 1


def test_wrong_tlsa_is_deferred(node, world):
    line = deferred(node, world, "wrong.signed.example", "no TLSA record matches")
    assert "4.7.5" in line


def test_the_next_exchanger_with_a_right_one_takes_it(node, world):
    delivered(node, world, "second.signed.example", SELF, "dane")


def test_bogus_tlsa_is_deferred(node, world):
    deferred(node, world, "bogus.signed.example", "TLSA records of mx-bogus.signed.example cannot be looked up")


def test_bogus_address_is_deferred(node, world):
    deferred(node, world, "forged.signed.example", "4.4.3")


def test_trust_anchor_with_the_right_name(node, world):
    delivered(node, world, "anchor.signed.example", ANCHOR, "dane")


def test_trust_anchor_with_another_name_is_deferred(node, world):
    deferred(node, world, "name.signed.example", "ostname mismatch")


def test_unusable_records_want_tls_of_anybody(node, world):
    delivered(node, world, "unusable.signed.example", SELF, "dane-unusable")


def test_unusable_records_and_no_tls_is_deferred(node, world):
    deferred(node, world, "strip.signed.example", "TLS is required")


def test_signed_zone_without_tlsa_is_opportunistic(node, world):
    delivered(node, world, "none.signed.example", CLEAR, "may", tls=False)


def test_tlsa_of_an_unsigned_zone_means_nothing(node, world):
    delivered(node, world, "insecure.plain.example", SELF, "may")


def test_tlsa_behind_an_unsigned_mx_means_nothing(node, world):
    """Who can forge the MX has no use for a TLSA record of its own host."""
    delivered(node, world, "crossed.plain.example", SELF, "may")


def test_records_at_the_end_of_an_alias(node, world):
    delivered(node, world, "alias.signed.example", SELF, "dane")
    assert world.sinks[SELF].sni == "mx-right.signed.example"


def test_more_records_than_a_datagram_holds(node, world):
    delivered(node, world, "many.signed.example", SELF, "dane")


def test_route_to_a_host_with_wrong_tlsa_is_deferred(node, world):
    deferred(node, world, "danger.test", "no TLSA record matches")


def test_never_means_never(node, world):
    delivered(node, world, "never.signed.example", SELF, "never", tls=False)


# ---- MTA-STS ----

def test_enforce_with_a_good_certificate(node, world):
    delivered(node, world, "good.plain.example", PKI, "mta-sts")
    before = world.web.requests()
    assert "event=delivered" in outcome(node, "good.plain.example", "again") and world.web.requests() == before
    assert (node.run / "mta-sts-policies" / "good.plain.example").exists()


def test_enforce_with_a_wildcard(node, world):
    delivered(node, world, "wild.plain.example", PKI, "mta-sts")


def test_enforce_with_a_wrong_certificate_is_deferred(node, world):
    deferred(node, world, "badcert.plain.example", "policy mta-sts")


def test_enforce_with_an_exchanger_that_it_lacks_is_deferred(node, world):
    deferred(node, world, "othermx.plain.example", "does not have its mail exchanger mx-pki.plain.example")


def test_enforce_with_a_good_certificate_of_another_name_is_deferred(node, world):
    deferred(node, world, "othername.plain.example", "ostname mismatch")


def test_enforce_without_tls_is_deferred(node, world):
    deferred(node, world, "clear.plain.example", "TLS is required")


def test_testing_is_not_enforced(node, world):
    delivered(node, world, "testing.plain.example", SELF, "mta-sts-testing")


def test_mode_none_is_none(node, world):
    delivered(node, world, "off.plain.example", SELF, "may")


def test_a_broken_policy_is_none(node, world):
    delivered(node, world, "broken.plain.example", SELF, "may")


def test_a_policy_that_is_not_text_is_none(node, world):
    world.web.write("html.plain.example", POLICIES["html.plain.example"], kind="html")
    delivered(node, world, "html.plain.example", SELF, "may")


def test_a_policy_host_without_the_right_certificate_has_no_policy(node, world):
    world.web.write("webpki.plain.example", policy("enforce", "mx.elsewhere.example"))
    delivered(node, world, "webpki.plain.example", SELF, "may")


def test_a_policy_that_is_not_there_is_none(node, world):
    delivered(node, world, "missing.plain.example", SELF, "may")


def test_dane_has_precedence(node, world):
    delivered(node, world, "both.signed.example", SELF, "dane")


def test_without_weir_control_the_policy_is_unknown(node, world):
    assert node.counters()["mta_sts_unknown_total"] == 0
    [pid] = node.pids("weir-control")
    os.kill(pid, signal.SIGSTOP)
    try:
        delivered(node, world, "late.plain.example", SELF, "may")
        assert node.counters()["mta_sts_unknown_total"] >= 1
    finally:
        os.kill(pid, signal.SIGCONT)


def test_policies_outlive_a_restart_and_a_dead_web_server(node, world):
    node.stop()
    node.start()
    before = world.web.requests()
    line = outcome(node, "badcert.plain.example", "again")
    assert "event=deferred" in line and "policy mta-sts" in line and world.web.requests() == before


# ---- verify ----

def test_verify_takes_a_certificate_of_the_authority(node, world):
    delivered(node, world, "verified.test", PKI, "verify")


def test_verify_refuses_others(node, world):
    deferred(node, world, "unverified.test", "policy verify")


def test_verify_of_an_address_wants_it_in_the_certificate(node, world):
    deferred(node, world, "address.test", "IP address mismatch")


# ---- reports, status ----

def test_reports_count_sessions_by_policy(node, world):
    """Runs last: what the tests above did is in today's report."""
    def read():
        files = list((node.run / "tls-reports").glob("report-*.json"))
        return {(p["policy"]["policy-type"], p["policy"]["policy-domain"]): p for f in files for p in json.loads(f.read_text())["policies"]}

    def failures(p):
        return {d["result-type"]: d for d in p.get("failure-details", [])}

    assert wait_for(lambda: ("sts", "testing.plain.example") in read() and ("no-policy-found", "off.plain.example") in read(), 20)
    r = read()
    right = r["tlsa", "mx-right.signed.example"]
    assert right["summary"]["total-successful-session-count"] >= 2 and right["policy"]["policy-string"][0].startswith("3 1 1 ")
    assert "validation-failure" in failures(r["tlsa", "mx-wrong.signed.example"])
    assert "dnssec-invalid" in failures(r["tlsa", "mx-bogus.signed.example"])
    good = r["sts", "good.plain.example"]
    assert good["summary"] == {"total-successful-session-count": good["summary"]["total-successful-session-count"], "total-failure-session-count": 0}
    assert good["policy"]["mx-host"] == ["mx-pki.plain.example"]
    bad = failures(r["sts", "badcert.plain.example"])["certificate-not-trusted"]
    assert bad["receiving-ip"] == world.at[SELF] and bad["receiving-mx-hostname"] == "mx-self.plain.example" and bad["failed-session-count"] >= 1
    assert "certificate-not-trusted" in failures(r["sts", "testing.plain.example"])
    assert "starttls-not-supported" in failures(r["sts", "clear.plain.example"])
    assert "sts-policy-invalid" in failures(r["sts", "broken.plain.example"])
    assert "sts-policy-invalid" in failures(r["sts", "html.plain.example"])
    assert "sts-webpki-invalid" in failures(r["sts", "webpki.plain.example"])
    assert "sts-policy-fetch-error" in failures(r["sts", "missing.plain.example"])
    report = json.loads(next((node.run / "tls-reports").glob("report-*.json")).read_text())
    assert {"organization-name", "date-range", "contact-info", "report-id", "policies"} == set(report)


def test_status_says_what_holds(node):
    text = node.ctl_text("status").stdout
    assert "DANE: " in text and "no DANE" not in text


def test_without_validation_there_is_no_dane(world, tmp_path_factory):
    n = Node(tmp_path_factory.mktemp("node"), extra=config(world, validates=False), routes="[]", engine="trivial")
    try:
        line = outcome(n, "wrong.signed.example")
        assert "event=delivered" in line and "tls_policy=may " in line
        assert "no DANE: the resolver is not known to validate" in n.ctl_text("status").stdout
    finally:
        n.stop()


def test_a_resolver_that_does_not_validate_is_noticed(world, tmp_path_factory):
    """dns.validates is set, but the server is nsd itself: no AD bit, so no DANE, and the status asks."""
    n = Node(tmp_path_factory.mktemp("node"), extra=config(world, dns_port=world.dns.auth_port), routes="[]", engine="trivial")
    try:
        line = outcome(n, "wrong.signed.example", "unvalidated")
        assert "event=delivered" in line and "tls_policy=may " in line
        assert "does the resolver validate" in n.ctl_text("status").stdout
    finally:
        n.stop()
