"""Cases: a listener with bare_lf: normalise (P3). What a device ends with LF is taken, what goes on is clean, and nothing but CRLF.CRLF is an end."""
from suite import CLOSED, DATA, GONE, HALF, HEAD, HELLO, MAIL, OPEN, PAUSE, QUIET, RCPT, SENT, TAKEN, TEXT, Case

REFUSED = "554 5.6.0"
CHUNK = "250 2.0.0 Chunk"
BARE = "500 5.5.2 CR LF"
EVIL = b"MAIL FROM:<evil@cam.example>\r\nRCPT TO:<evil@example.org>\r\nDATA\r\nSubject: evil\r\n\r\nx\r\n"
WAYS = ("plain", "burst", "bytes", "starttls")

# What others take for an end, and what it is here: content, without the dot that begins a line.
ENDINGS = {
    "lf-dot-lf": (b"\n.\n", b"\r\n\r\n"), "lf-dot-crlf": (b"\n.\r\n", b"\r\n\r\n"), "crlf-dot-lf": (b"\r\n.\n", b"\r\n\r\n"),
    "cr-dot-cr": (b"\r.\rX\r\n", b" . X\r\n"), "cr-dot-crlf": (b"\r.\r\n", b" .\r\n"), "crlf-dot-cr": (b"\r\n.\rX\r\n", b"\r\n X\r\n"),
    "crlf-dot-cr-cr-lf": (b"\r\n.\r\r\n", b"\r\n \r\n"), "lf-cr-dot-crlf": (b"\n\r.\r\n", b"\r\n .\r\n"), "cr-lf-lf-dot-lf-lf": (b"\r\n\n.\n\n", b"\r\n\r\n\r\n\r\n"),
    "lf": (b"\n", b"\r\n"), "cr": (b"\rX\r\n", b" X\r\n"), "lf-cr": (b"\n\rX\r\n", b"\r\n X\r\n"), "lf-dot-dot-lf": (b"\n..\n", b"\r\n.\r\n"),
    "lf-lf": (b"\n\n", b"\r\n\r\n"), "cr-cr-lf": (b"\r\r\n", b" \r\n"), "crlf-dot-dot-lf": (b"\r\n..\n", b"\r\n.\r\n"),
}


def case(name, steps, **kw):
    return Case("normalise-" + name, steps, **{"ways": WAYS, "at": "normalise", **kw})


def data(name, sent, got, **kw):
    return case("data-" + name, [*OPEN, DATA, (sent + b"\r\n.\r\n", TAKEN)], gets=(got,), **kw)


def endings():
    for name, (end, got) in ENDINGS.items():
        content = HEAD + b"text" + end + EVIL
        came = HEAD + b"text" + got + EVIL
        yield case(f"data-{name}", [*OPEN, DATA, (content + b".\r\n", TAKEN)], gets=(came,))
        for cut in range(len(HEAD) + 4, len(HEAD) + 5 + len(end)):
            yield case(f"data-{name}-cut-{cut - len(HEAD) - 4}", [*OPEN, DATA, (content[:cut],), PAUSE, (content[cut:] + b".\r\n", TAKEN)], gets=(came,), ways=("plain",))
        chunk = HEAD + b"text" + end
        whole = HEAD + b"text" + end.replace(b"\r\n", b"\n").replace(b"\r", b" ").replace(b"\n", b"\r\n")
        for cut in range(len(HEAD) + 4, len(chunk) + 1):
            yield case(f"bdat-{name}-cut-{cut - len(HEAD) - 4}", [*OPEN, (b"BDAT %d\r\n" % cut + chunk[:cut], CHUNK),
                       (b"BDAT %d LAST\r\n" % (len(chunk) - cut) + chunk[cut:], TAKEN)], gets=(whole,), ways=("plain", "bytes"))


CASES = [
    *endings(),
    data("all-lf", (HEAD + b"one\ntwo\n\n.three").replace(b"\r\n", b"\n"), HEAD + b"one\r\ntwo\r\n\r\nthree\r\n"),
    data("mixed", HEAD + b"one\r\ntwo\nthree\r\nfour", HEAD + b"one\r\ntwo\r\nthree\r\nfour\r\n"),
    data("clean", HEAD + b"..\r\nx", HEAD + b".\r\nx\r\n"),
    data("long-line", b"a" * 20000 + b"\n" + b"b" * 20000, b"a" * 20000 + b"\r\n" + b"b" * 20000 + b"\r\n"),
    data("many-lines", b"\n" * 5000, b"\r\n" * 5001, ways=("plain", "starttls")),
    case("data-first-dot", [*OPEN, DATA, (b".\n.\r\nx\r\n.\r\n", TAKEN)], gets=(b"\r\n\r\nx\r\n",)),
    case("data-empty", [*OPEN, DATA, (b".\r\n", TAKEN)], gets=(b"",)),
    case("data-lf-dot-lf-is-no-end", [*OPEN, DATA, (TEXT.replace(b"\r\n", b"\n") + b".\n",), QUIET, (b"\r\n.\r\n", TAKEN)], gets=(TEXT + b"\r\n\r\n",)),
    case("data-lf-dot-lf-and-half-close", [*OPEN, DATA, (TEXT.replace(b"\r\n", b"\n") + b".\n",), HALF, CLOSED]),
    case("data-nul", [*OPEN, DATA, (b"a\n\0\n\r\n.\r\n", "554 5.6.0 NUL"), MAIL, RCPT, *SENT], gets=(TEXT,)),
    # it is what it has become that is limited
    case("data-too-large", [*OPEN, DATA, (b"\n" * 40000 + b"\r\n.\r\n", "552 5.3.4"), MAIL, RCPT, *SENT], gets=(TEXT,)),
    case("bdat-lf", [*OPEN, (b"BDAT 6 LAST\r\na\nb\n\nc", TAKEN)], gets=(b"a\r\nb\r\n\r\nc\r\n",)),
    case("bdat-dots", [*OPEN, (b"BDAT 6 LAST\r\n.\n..\n\n", TAKEN)], gets=(b".\r\n..\r\n\r\n",)),
    case("bdat-counts-what-was-sent", [*OPEN, (b"BDAT 4 LAST\r\na\nb\nNOOP\r\n", TAKEN, "250 2.0.0")], gets=(b"a\r\nb\r\n",)),
    case("bdat-ends-in-cr", [*OPEN, (b"BDAT 2 LAST\r\na\r", REFUSED), ("NOOP", "250 2.0.0")]),
    # commands
    case("commands", [(b"EHLO @ME@\nMAIL FROM:<a@cam.example>\nRCPT TO:<b@example.org>\nDATA\n", "250", "250 2.1.0", "250 2.1.5", "354"), (TEXT + b".\r\n", TAKEN)], gets=(TEXT,)),
    case("commands-mixed", [(b"EHLO @ME@\nNOOP\r\nNOOP\n\nNOOP\n", "250", "250 2.0.0", "250 2.0.0", "500 5.5.2", "250 2.0.0")]),
    case("command-of-2049", [(b"NOOP " + b"x" * 2042 + b"\n", "250 2.0.0"), (b"NOOP " + b"x" * 2043 + b"\n", "500 5.5.2 too long"), ("NOOP", "250 2.0.0")]),
    case("command-bare-cr", [(b"NOOP\rNOOP\r\n", BARE), CLOSED]),
    case("command-cr-cr-lf", [(b"NOOP\r\r\n", BARE), CLOSED]),
    case("command-cr-in-a-line-of-lf", [HELLO, (b"NOOP \rx\n", BARE), CLOSED]),
    # P4: what is behind STARTTLS is never read, whatever it ends with
    case("starttls-injection", [HELLO, (b"STARTTLS\nRSET\n",), GONE], ways=("plain",)),
    case("proxy-v2", [(b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x19EHLO @ME@\r\n",), GONE]),
]
