"""Messages that are hard on whoever carries them, and what of a message lies below the trace fields."""
import base64
import email
import email.policy
import random
import re

TRACE = rb"(?:(?:Received|Return-Path|Delivered-To|Envelope-to|Delivery-date): [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*)*"


def head(subject, ascii_only=False):
    """Nothing that a relay is wont to add is missing, or it would be added."""
    name = b"A Sender" if ascii_only else "Ä Sender".encode()
    return (b"From: %s <a@origin.example>\r\nTo: b@elsewhere.example\r\nSubject: %s\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n"
            b"Message-ID: <%s@origin.example>\r\n" % (name, subject.encode(), subject.encode()))


def ugly(subject, ascii_only=False):
    """8-bit in header and body, a header field of 40 KB, lines as long as they may be, dots at every place, blanks at line ends, an attachment, empty lines at the end."""
    rnd = random.Random(subject)
    high = b"" if ascii_only else b"\xe4\xff\x80"
    attachment = base64.encodebytes(rnd.randbytes(100000)).replace(b"\n", b"\r\n")
    return (head(subject, ascii_only)
            + b"X-Long: " + b"\r\n\t".join(b"x" * 800 + b"%d" % i for i in range(50)) + b"\r\n"
            + b"X-Odd:no blank\r\nx-odd:   three blanks  \r\nX-Empty:\r\n"
            + b'MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary="=_b"\r\n\r\nThis is MIME.\r\n--=_b\r\nContent-Type: text/plain; charset=iso-8859-1\r\n'
            + (b"" if ascii_only else b"Content-Transfer-Encoding: 8bit\r\n")
            + b"\r\n.\r\n..\r\n...\r\n.leading\r\nFrom the beginning\r\n>From there\r\n \r\n\t\r\ntrailing blanks   \r\n" + high + b" eight bits\r\n"
            + b"y" * 998 + b"\r\n." + b"z" * 997 + b"\r\n"
            + b"--=_b\r\nContent-Type: application/octet-stream; name=x.bin\r\nContent-Transfer-Encoding: base64\r\n"
            + b"Content-Disposition: attachment; filename=x.bin\r\n\r\n" + attachment + b"--=_b--\r\n\r\n\r\n.\r\n\r\n")


def big(subject, size):
    rnd = random.Random(subject)
    lines = [base64.b64encode(rnd.randbytes(57)) for _ in range(500)]
    return head(subject, True) + b"\r\n" + b"".join(lines[rnd.randrange(500)] + b"\r\n" for _ in range(size // 78))


def below_trace(data, message):
    """Is that the message, with nothing but trace fields on top?"""
    return data.endswith(message) and re.fullmatch(TRACE, data[:len(data) - len(message)]) is not None


class Report:
    """A delivery status notification of anybody's, as python3's email package sees it."""

    def __init__(self, message, kind="multipart/report"):
        assert message["from"] == "", message["from"]
        self.to, self.data = message["to"], message["data"]
        m = email.message_from_bytes(self.data, policy=email.policy.default)
        assert m.get_content_type() == kind, m.as_string()[:2000]
        assert kind != "multipart/report" or m.get_param("report-type") == "delivery-status"
        assert not m.defects
        self.subject = m["Subject"]
        self.text, self.status, *rest = list(m.iter_parts())
        assert self.status.get_content_type() == "message/delivery-status"
        self.original = rest[0] if rest else None
        self.per_message, *rows = [part for part in self.status.get_payload() if part.keys()]
        self.rcpts = {row["Final-Recipient"].split(";", 1)[1].strip(): row for row in rows}
