"""Cases: content by DATA and BDAT, its ends and what pretends to be one, sizes; TLS; ends of connections."""
from suite import CLOSED, DATA, GONE, HALF, HEAD, HELLO, MAIL, NOTIFY, OPEN, PAUSE, PLAIN, QUIET, RCPT, RESET, SENT, TAKEN, TEXT, TLS, TRUNCATE, Case, Notified, Past

REFUSED = "554 5.6.0"
CHUNK = "250 2.0.0 Chunk"
ORDER = "503 5.5.1"
TOO_LARGE = "552 5.3.4"
EVIL = b"MAIL FROM:<evil@cam.example>\r\nRCPT TO:<evil@example.org>\r\nDATA\r\nSubject: evil\r\n\r\n.\r\n"
TLS_WAYS = ("starttls", "implicit")


def data(name, sent, got=None, want=TAKEN, **kw):
    """Content as it goes by DATA (without the final dot), and as it arrives; without `got` it is refused."""
    return Case("data-" + name, [*OPEN, DATA, (sent + b".\r\n", want)], gets=() if got is None else (got,), **kw)


def bdat(name, *chunks, got=None, want=TAKEN, **kw):
    """Chunks, the last one with LAST; each but the last is taken."""
    steps = [(b"BDAT %d\r\n" % len(c) + c, CHUNK) for c in chunks[:-1]]
    return Case("bdat-" + name, [*OPEN, *steps, (b"BDAT %d LAST\r\n" % len(chunks[-1]) + chunks[-1], want)], gets=() if got is None else (got,), **kw)


def closed(name, steps, **kw):
    return Case(name, [*OPEN, *steps, *([] if steps[-1] == GONE else [CLOSED])], **kw)


def long_text(n):
    return HEAD + b"".join(b"%06d" % i + b"x" * 60 + b"\r\n" for i in range(n))


# What others have taken for the end of a message, or for the end of a line in it (P3).
ENDINGS = {
    "lf-dot-lf": b"\n.\n", "lf-dot-crlf": b"\n.\r\n", "crlf-dot-lf": b"\r\n.\n", "cr-dot-cr": b"\r.\r", "cr-dot-crlf": b"\r.\r\n", "crlf-dot-cr": b"\r\n.\rX",
    "crlf-dot-cr-cr-lf": b"\r\n.\r\r\n", "cr-crlf-dot-crlf": b"\r\r\n.\r\n", "lf-cr-dot-crlf": b"\n\r.\r\n", "crlf-nul-dot": b"\r\n\0.\n", "lf": b"\n", "cr": b"\rX",
    "lf-cr": b"\n\r", "cr-nul-lf": b"\r\0\n", "crlf-dot-nul-cr": b"\r\n.\0\rX", "crlf-dot-dot-lf": b"\r\n..\n",
}


def smuggling():
    for name, end in ENDINGS.items():
        for where, before in (("header", b"From: a@cam.example\r\nSubject: x"), ("body", HEAD + b"text")):
            content = before + end + EVIL
            yield closed(f"smuggle-data-{where}-{name}", [DATA, (content, REFUSED)])
            yield closed(f"smuggle-bdat-{where}-{name}", [(b"BDAT %d LAST\r\n" % len(content) + content, REFUSED)])
        content = HEAD + b"text" + end + EVIL
        for cut in range(len(HEAD) + 4, len(HEAD) + 5 + len(end)):
            halves = [(content[:cut],), PAUSE, (content[cut:], REFUSED)]
            yield closed(f"smuggle-data-{name}-cut-{cut - len(HEAD) - 4}", [DATA, *halves], ways=PLAIN)
            n = cut - len(HEAD) - 4
            yield closed(f"smuggle-bdat-{name}-cut-{n}", [(b"BDAT %d\r\n" % cut + content[:cut],), PAUSE,
                         (b"BDAT %d LAST\r\n" % (len(content) - cut) + content[cut:],), HALF, GONE], ways=PLAIN)


CASES = [
    # DATA
    data("nothing", b"", b""),
    data("empty-lines", b"\r\n\r\n\r\n", b"\r\n\r\n\r\n"),
    data("no-header", b"just text\r\n", b"just text\r\n"),
    data("header-only", b"Subject: x\r\n", b"Subject: x\r\n"),
    data("dot-stuffing", HEAD + b"..\r\n...\r\n..a\r\na.\r\n", HEAD + b".\r\n..\r\n.a\r\na.\r\n"),
    data("dot-first", b"..first\r\n", b".first\r\n"),
    data("unstuffed-dot", HEAD + b".a\r\n", HEAD + b"a\r\n"),
    data("dots-in-lines", HEAD + b"a.\r\nb . \r\n .\r\n", HEAD + b"a.\r\nb . \r\n .\r\n"),
    data("dot-space", HEAD + b". \r\n", HEAD + b" \r\n"),
    data("trailing-spaces", HEAD + b"a  \r\n\t\r\n", HEAD + b"a  \r\n\t\r\n"),
    data("8-bit", HEAD + b"\xe4\xf6\xfc\xff\x80\r\n", HEAD + b"\xe4\xf6\xfc\xff\x80\r\n"),
    data("8-bit-header", b"Subject: \xc3\xa4\r\n\r\n\xc3\xa4\r\n", b"Subject: \xc3\xa4\r\n\r\n\xc3\xa4\r\n"),
    data("control-characters", HEAD + b"\x01\x08\x0b\x0c\x1b\x7f\r\n", HEAD + b"\x01\x08\x0b\x0c\x1b\x7f\r\n"),
    data("line-of-998", HEAD + b"y" * 998 + b"\r\n", HEAD + b"y" * 998 + b"\r\n"),
    data("line-of-1000", HEAD + b"y" * 1000 + b"\r\n", HEAD + b"y" * 1000 + b"\r\n"),
    data("line-of-50000-is-not-folded", HEAD + b"z" * 50000 + b"\r\n", HEAD + b"z" * 50000 + b"\r\n"),
    data("long-lines-with-dots", HEAD + (b".." + b"." * 4000 + b"\r\n") * 5, HEAD + (b"." + b"." * 4000 + b"\r\n") * 5),
    data("long-header-field", b"X-Long: " + b"h" * 20000 + b"\r\n\r\nx\r\n", b"X-Long: " + b"h" * 20000 + b"\r\n\r\nx\r\n"),
    data("many-fields", b"X: y\r\n" * 5000 + b"\r\n", b"X: y\r\n" * 5000 + b"\r\n"),
    data("commands-in-the-text", HEAD + b"QUIT\r\nRSET\r\nMAIL FROM:<evil@cam.example>\r\n", HEAD + b"QUIT\r\nRSET\r\nMAIL FROM:<evil@cam.example>\r\n"),
    data("nul", HEAD + b"a\0b\r\n", want=REFUSED + " NUL"),
    data("nul-after-dot", HEAD + b".\0\r\n", want=REFUSED + " NUL"),
    data("nul-many", HEAD + b"\0" * 1000 + b"\r\n", want=REFUSED + " NUL"),
    data("nul-in-header", b"Subject: \0\r\n\r\nx\r\n", want=REFUSED + " NUL"),
    Case("data-after-nul-goes-on", [*OPEN, DATA, (HEAD + b"\0\r\n.\r\n", REFUSED), MAIL, RCPT, *SENT], gets=(TEXT,)),
    data("size-most", long_text(970)[:65534] + b"\r\n", long_text(970)[:65534] + b"\r\n"),
    data("size-one-more", long_text(970)[:65535] + b"\r\n", want=TOO_LARGE),
    Case("data-too-large-goes-on", [*OPEN, DATA, (long_text(3000) + b".\r\n", TOO_LARGE), ("DATA", ORDER), MAIL, RCPT, *SENT], gets=(TEXT,)),
    Case("data-size-lied", [HELLO, ("MAIL FROM:<a@cam.example> SIZE=1", "250 2.1.0"), RCPT, DATA, (long_text(10) + b".\r\n", TAKEN)], gets=(long_text(10),)),
    Case("data-size-lied-too-large", [HELLO, ("MAIL FROM:<a@cam.example> SIZE=1", "250 2.1.0"), RCPT, DATA, (long_text(3000) + b".\r\n", TOO_LARGE)]),
    Case("data-loop", [*OPEN, DATA, (b"Received: from x by y; z\r\n" * 30 + b"\r\n.\r\n", "554 5.4.6")]),
    Case("data-8bitmime", [HELLO, ("MAIL FROM:<a@cam.example> BODY=8BITMIME", "250 2.1.0"), RCPT, DATA, (HEAD + b"\xc3\xa4\r\n.\r\n", TAKEN)],
         gets=(HEAD + b"\xc3\xa4\r\n",), mail="MAIL FROM:<a@cam.example> BODY=8BITMIME"),
    Case("data-8-bit-undeclared", [*OPEN, DATA, (HEAD + b"\xc3\xa4\r\n.\r\n", TAKEN)], gets=(HEAD + b"\xc3\xa4\r\n",),
         mail="MAIL FROM:<a@cam.example> BODY=8BITMIME"),
    Case("data-declared-but-not-8-bit", [HELLO, ("MAIL FROM:<a@cam.example> BODY=8BITMIME", "250 2.1.0"), RCPT, *SENT], gets=(TEXT,), mail="MAIL FROM:<a@cam.example>"),
    Case("bdat-8-bit-in-an-earlier-chunk", [*OPEN, (b"BDAT 2\r\n\xc3\xa4", CHUNK), (b"BDAT 3 LAST\r\nx\r\n", TAKEN)], gets=(b"\xc3\xa4x\r\n",),
         mail="MAIL FROM:<a@cam.example> BODY=8BITMIME"),
    Case("data-8-bit-then-not", [*OPEN, DATA, (HEAD + b"\xc3\r\n.\r\n", TAKEN), MAIL, RCPT, *SENT], gets=(HEAD + b"\xc3\r\n", TEXT)),
    Case("data-smtputf8", [HELLO, ("MAIL FROM:<j\u00f6rg@cam.example> SMTPUTF8 BODY=8BITMIME", "250 2.1.0"), RCPT, DATA,
                           ("Subject: \u00e4\r\n\r\n\u00e4\r\n.", TAKEN)], gets=("Subject: \u00e4\r\n\r\n\u00e4\r\n".encode(),)),
    Case("data-malware", [*OPEN, DATA, (HEAD + br"X5O!P%@AP[4\PZX54(P^)7CC)7}$" + b"EICAR-STANDARD-ANTIVIRUS-TEST-FILE!$H+H*\r\n.\r\n", "550 5.7.1"), MAIL, RCPT, *SENT],
         gets=(TEXT,)),
    # our trace field is not continued, and what was no header when it came is none where it arrives (P8)
    *[Case("data-begins-with-" + n, [*OPEN, DATA, (t + b"\r\nFrom: forged@cam.example\r\n\r\nx\r\n.\r\n", TAKEN)], gets=(t + b"\r\nFrom: forged@cam.example\r\n\r\nx\r\n",)) for n, t in {
        "a-blank": b" (by a trusted relay)", "a-tab": b"\tid FORGED", "blanks": b"   ", "a-text": b"no field", "a-colon": b": x", "a-blank-in-the-name": b"Sub ject: x",
        "a-mailbox-line": b"From a@cam.example Sat Nov 21 10:00:00 2026", "an-empty-line": b""}.items()],
    Case("data-slow-end", [*OPEN, DATA, (TEXT,), PAUSE, (b".",), QUIET, (b"\r",), PAUSE, (b"\n", TAKEN)], gets=(TEXT,)),
    Case("data-not-ended", [*OPEN, DATA, (TEXT,), QUIET, HALF, CLOSED]),
    Case("data-dot-without-line-end", [*OPEN, DATA, (TEXT + b".",), HALF, CLOSED]),
    Case("data-dot-cr", [*OPEN, DATA, (TEXT + b".\r",), HALF, CLOSED]),
    Case("data-end-and-half-close", [*OPEN, DATA, (TEXT + b".\r\n",), HALF, (b"", TAKEN), CLOSED], gets=(TEXT,)),
    Case("data-reset-in-the-text", [*OPEN, DATA, (TEXT,), PAUSE, RESET]),

    # BDAT (RFC 3030)
    bdat("one", TEXT, got=TEXT),
    bdat("two", TEXT[:20], TEXT[20:], got=TEXT),
    bdat("many", *[TEXT[i:i + 1] for i in range(len(TEXT))], got=TEXT),
    bdat("empty-message", b"", got=b""),
    bdat("empty-first", b"", TEXT, got=TEXT),
    bdat("empty-between", TEXT[:9], b"", b"", TEXT[9:], got=TEXT),
    bdat("last-0", TEXT, b"", got=TEXT),
    bdat("only-empty", b"", b"", b"", got=b""),
    bdat("cr-and-lf-in-two-chunks", TEXT[:-1], b"\n", got=TEXT),
    bdat("cr-empty-lf", TEXT[:-1], b"", b"\n", got=TEXT),
    bdat("dots-are-content", HEAD + b".\r\n", b"..\r\n.\r\n", got=HEAD + b".\r\n..\r\n.\r\n"),
    bdat("dot-first", b".", b"\r\n.\r\n", got=b".\r\n.\r\n"),
    bdat("end-of-data-is-content", HEAD + b"\r\n.\r\nQUIT\r\n", got=HEAD + b"\r\n.\r\nQUIT\r\n"),
    bdat("without-final-line-end", HEAD + b"text", got=HEAD + b"text\r\n"),
    bdat("dot-at-the-end", HEAD + b"text\r\n.", got=HEAD + b"text\r\n.\r\n"),
    bdat("ends-in-cr", TEXT + b"x\r", want=REFUSED),
    bdat("ends-in-cr-last-0", TEXT + b"x\r", b"", want=REFUSED),
    bdat("8-bit", HEAD + b"\xff\x80\r\n", got=HEAD + b"\xff\x80\r\n"),
    bdat("nul", HEAD + b"\0\r\n", want=REFUSED + " NUL"),
    bdat("too-large", long_text(3000), want=TOO_LARGE),
    bdat("long-line", HEAD + b"l" * 20000 + b"\r\n", got=HEAD + b"l" * 20000 + b"\r\n"),
    Case("bdat-words", [*OPEN, (b"bdat 5 last\r\nSubje", TAKEN), MAIL, RCPT, (b"BDAT  5   LAST  \r\nSubje", TAKEN)], gets=(b"Subje\r\n",) * 2),
    Case("bdat-leading-zeros", [*OPEN, (b"BDAT 0000000000000000000000005 LAST\r\nSubje", TAKEN)], gets=(b"Subje\r\n",)),
    Case("bdat-pipelined", [*OPEN, (b"BDAT 10\r\n" + TEXT[:10] + b"BDAT 0\r\nBDAT %d LAST\r\n" % (len(TEXT) - 10) + TEXT[10:] + b"NOOP\r\n", CHUNK, CHUNK, TAKEN,
                                    "250 2.0.0")], gets=(TEXT,)),
    Case("bdat-pipelined-with-all", [HELLO, (b"MAIL FROM:<a@cam.example>\r\nRCPT TO:<b@example.org>\r\nBDAT %d LAST\r\n" % len(TEXT) + TEXT, "250 2.1.0",
                                             "250 2.1.5", TAKEN)], gets=(TEXT,)),
    Case("bdat-1500-chunks-are-no-flood", [*OPEN, (b"BDAT 4\r\na\r\n." * 1500 + b"BDAT 2 LAST\r\n\r\n", *[CHUNK] * 1500, TAKEN)], gets=(b"a\r\n." * 1500 + b"\r\n",)),
    Case("bdat-empty-chunks-are-a-flood", [*OPEN, (b"BDAT 0\r\n" * 1500, *[CHUNK] * 998, "421 4.7.0"), CLOSED]),
    Case("bdat-second-message", [*OPEN, (b"BDAT %d LAST\r\n" % len(TEXT) + TEXT, TAKEN), MAIL, RCPT, *SENT, MAIL, RCPT, (b"BDAT 1 LAST\r\nx", TAKEN)],
         gets=(TEXT, TEXT, b"x\r\n")),
    Case("bdat-before-mail", [HELLO, (b"BDAT 6\r\nQUIT\r\nRSET\r\n", ORDER, "250 2.0.0")]),
    Case("bdat-before-rcpt", [HELLO, MAIL, (b"BDAT 12 LAST\r\nNOOP\r\nNOOP\r\n", "554 5.5.1"), RCPT, *SENT], gets=(TEXT,)),
    Case("bdat-after-refused-rcpt", [HELLO, MAIL, ("RCPT TO:<>", "501 5.1.3"), (b"BDAT 6 LAST\r\nQUIT\r\n", "554 5.5.1"), ("NOOP", "250 2.0.0")]),
    Case("bdat-0-before-mail", [HELLO, ("BDAT 0", ORDER), ("BDAT 0 LAST", ORDER), MAIL]),
    Case("bdat-before-mail-is-not-read", [HELLO, (b"BDAT 7\r\n\r\n\0\n\r.\nRSET\r\n", ORDER, "250 2.0.0")]),
    Case("bdat-after-last", [*OPEN, (b"BDAT %d LAST\r\n" % len(TEXT) + TEXT, TAKEN), (b"BDAT 6 LAST\r\nQUIT\r\n", ORDER), ("NOOP", "250 2.0.0")], gets=(TEXT,)),
    Case("bdat-after-data", [*OPEN, *SENT, (b"BDAT 6\r\nQUIT\r\n", ORDER), ("NOOP", "250 2.0.0")], gets=(TEXT,)),
    Case("bdat-then-data", [*OPEN, (b"BDAT 9\r\n" + TEXT[:9], CHUNK), ("DATA", ORDER), (b"BDAT %d LAST\r\n" % (len(TEXT) - 9) + TEXT[9:], TAKEN)], gets=(TEXT,)),
    Case("bdat-then-rcpt", [*OPEN, (b"BDAT 9\r\n" + TEXT[:9], CHUNK), ("RCPT TO:<c@example.org>", ORDER), (b"BDAT %d LAST\r\n" % (len(TEXT) - 9) + TEXT[9:], TAKEN)],
         gets=(TEXT,), to=["b@example.org"]),
    Case("bdat-then-mail", [*OPEN, (b"BDAT 9\r\n" + TEXT[:9], CHUNK), ("MAIL FROM:<c@cam.example>", ORDER), (b"BDAT %d LAST\r\n" % (len(TEXT) - 9) + TEXT[9:], TAKEN)],
         gets=(TEXT,)),
    Case("bdat-then-rset", [*OPEN, (b"BDAT 9\r\n" + TEXT[:9], CHUNK), ("RSET", "250 2.0.0"), (b"BDAT 6 LAST\r\nQUIT\r\n", ORDER), MAIL, RCPT, *SENT], gets=(TEXT,)),
    Case("bdat-then-ehlo", [*OPEN, (b"BDAT 9\r\n" + TEXT[:9], CHUNK), HELLO, (b"BDAT 6 LAST\r\nQUIT\r\n", ORDER), MAIL, RCPT, *SENT], gets=(TEXT,)),
    Case("bdat-then-noop", [*OPEN, (b"BDAT 9\r\n" + TEXT[:9], CHUNK), ("NOOP", "250 2.0.0"), ("VRFY x", "252 2.5.0"), ("FOO", "500 5.5.2"),
                            (b"BDAT %d LAST\r\n" % (len(TEXT) - 9) + TEXT[9:], TAKEN)], gets=(TEXT,)),
    Case("bdat-then-quit", [*OPEN, (b"BDAT %d\r\n" % len(TEXT) + TEXT, CHUNK), ("QUIT", "221 2.0.0"), CLOSED]),
    Case("bdat-not-ended", [*OPEN, (b"BDAT %d\r\n" % len(TEXT) + TEXT, CHUNK), HALF, CLOSED]),
    Case("bdat-last-not-complete", [*OPEN, (b"BDAT %d LAST\r\n" % (len(TEXT) + 1) + TEXT,), QUIET, HALF, CLOSED]),
    Case("bdat-last-and-half-close", [*OPEN, (b"BDAT %d LAST\r\n" % len(TEXT) + TEXT,), HALF, (b"", TAKEN), CLOSED], gets=(TEXT,)),
    Case("bdat-too-large-then-chunks", [*OPEN, (b"BDAT 70000\r\n" + long_text(2000)[:70000] + b"BDAT 6\r\nNOOP\r\nBDAT 6 LAST\r\nQUIT\r\n", TOO_LARGE, ORDER, ORDER), MAIL,
                                        RCPT, *SENT], gets=(TEXT,)),
    Case("bdat-nul-then-chunks", [*OPEN, (b"BDAT 1\r\n\0BDAT 6 LAST\r\nQUIT\r\n", REFUSED, ORDER), MAIL, RCPT, *SENT], gets=(TEXT,)),
    Case("bdat-loop", [*OPEN, (b"BDAT 782 LAST\r\n" + b"Received: from x by y; z\r\n" * 30 + b"\r\n", "554 5.4.6")]),
    *[Case("bdat-" + n, [*OPEN, (f"BDAT{a}", "501 5.5.4"), CLOSED]) for n, a in {
        "no-size": "", "no-number": " LAST", "negative": " -1", "plus": " +5", "hex": " 0x5", "fraction": " 5.0", "word": " 5 FIRST", "two-words": " 5 LAST LAST",
        "glued": " 5LAST", "comma": " 5,LAST", "2-63": " 9223372036854775808", "2-64": " 18446744073709551616", "2-64-and-5": " 18446744073709551621 LAST",
        "40-digits": " " + "9" * 40}.items()],
    Case("bdat-bad-size-octets-are-no-commands", [*OPEN, (b"BDAT 18446744073709551621 LAST\r\n" + EVIL, "501 5.5.4"), CLOSED]),
    Case("bdat-bad-size-before-mail", [HELLO, (b"BDAT 18446744073709551621\r\nQUIT\r\n", "501 5.5.4"), CLOSED]),
    Case("bdat-2-32-and-5", [*OPEN, (b"BDAT 4294967301 LAST\r\nSubjeNOOP\r\n",), QUIET, HALF, CLOSED]),
    Case("bdat-2-32-and-5-before-mail", [HELLO, (b"BDAT 4294967301 LAST\r\nSubjeNOOP\r\n",), QUIET, HALF, CLOSED]),
    Case("bdat-2-63-less-1", [*OPEN, (b"BDAT 9223372036854775807 LAST\r\nSubject: x\r\n\r\n",), QUIET, HALF, CLOSED]),

    # smuggling (P3)
    *smuggling(),
    closed("smuggle-bdat-lf-after-chunk", [(b"BDAT 4 LAST\r\nabc\n", REFUSED)]),
    closed("smuggle-bdat-lf-first", [(b"BDAT 2 LAST\r\n\na", REFUSED)]),
    closed("smuggle-bdat-cr-then-chunk", [(b"BDAT 2\r\na\r", CHUNK), (b"BDAT 2 LAST\r\nb\n", REFUSED)]),
    closed("smuggle-bdat-cr-then-last-command", [(b"BDAT 2\r\na\rBDAT 2 LAST\r\nbc", CHUNK, REFUSED)]),
    closed("smuggle-data-lf-first", [DATA, (b"\n.\r\n", REFUSED)]),
    closed("smuggle-data-dot-lf-first", [DATA, (b".\n" + EVIL, REFUSED)]),
    closed("smuggle-data-after-nul", [DATA, (b"\0\n.\r\n" + EVIL, REFUSED)]),
    Case("smuggle-data-early-dot", [*OPEN, DATA, (b".\r\n" + EVIL, TAKEN, "250 2.1.0", "250 2.1.5", "354", TAKEN)], gets=(b"", b"Subject: evil\r\n\r\n")),

    # STARTTLS (P4)
    Case("starttls", [HELLO, ("STARTTLS", "220 2.0.0"), TLS, HELLO, MAIL, RCPT, *SENT], gets=(TEXT,), ways=PLAIN),
    Case("starttls-before-ehlo", [("STARTTLS", "220 2.0.0"), TLS, HELLO, MAIL], ways=PLAIN),
    Case("starttls-forgets-ehlo", [HELLO, ("STARTTLS", "220 2.0.0"), TLS, ("MAIL FROM:<a@cam.example>", ORDER), HELLO, MAIL], ways=PLAIN),
    Case("starttls-in-a-transaction", [*OPEN, ("STARTTLS", ORDER), *SENT], gets=(TEXT,), ways=("plain", "bytes", "burst")),
    Case("starttls-after-a-message", [*OPEN, *SENT, ("STARTTLS", "220 2.0.0"), TLS, HELLO, MAIL, RCPT, *SENT], gets=(TEXT, TEXT), ways=PLAIN),
    Case("starttls-twice", [("STARTTLS", ORDER), HELLO, ("STARTTLS", ORDER), MAIL, RCPT, *SENT], gets=(TEXT,), ways=TLS_WAYS),
    Case("starttls-not-offered-under-tls", [("EHLO @ME@", r"250 ^(?!(?s:.*STARTTLS))")], ways=TLS_WAYS),
    Case("starttls-injection", [HELLO, (b"STARTTLS\r\nNOOP\r\n",), GONE], ways=PLAIN),
    Case("starttls-injected-message", [HELLO, (b"STARTTLS\r\nEHLO @ME@\r\nMAIL FROM:<a@cam.example>\r\nRCPT TO:<b@example.org>\r\nDATA\r\n" + TEXT + b".\r\n",), GONE], ways=PLAIN),
    Case("starttls-injected-octet", [HELLO, (b"STARTTLS\r\nX",), GONE], ways=PLAIN),
    Case("starttls-behind-a-transaction", [HELLO, (b"MAIL FROM:<a@cam.example>\r\nRSET\r\nSTARTTLS\r\nQUIT\r\n",), GONE], ways=PLAIN),
    Case("starttls-then-plain", [HELLO, ("STARTTLS", "220 2.0.0"), (b"EHLO @ME@\r\nMAIL FROM:<a@cam.example>\r\n",), CLOSED], ways=PLAIN),
    Case("starttls-then-nothing", [HELLO, ("STARTTLS", "220 2.0.0"), HALF, CLOSED], ways=PLAIN),
    Case("starttls-then-reset", [HELLO, ("STARTTLS", "220 2.0.0"), RESET], ways=PLAIN),
    Case("starttls-junk-hello", [HELLO, ("STARTTLS", "220 2.0.0"), (b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\xff",), CLOSED], ways=PLAIN),
    Case("tls-close-notify-after-a-command", [HELLO, MAIL, NOTIFY, CLOSED], ways=TLS_WAYS),
    Case("tls-close-notify-in-data", [*OPEN, DATA, (TEXT,), NOTIFY, CLOSED], ways=TLS_WAYS),
    Case("tls-close-notify-in-a-chunk", [*OPEN, (b"BDAT %d LAST\r\n" % (len(TEXT) + 1) + TEXT,), NOTIFY, CLOSED], ways=TLS_WAYS),
    Case("tls-close-notify-after-the-dot", [*OPEN, DATA, (TEXT + b".\r\n",), NOTIFY, (b"", TAKEN), CLOSED], gets=(TEXT,), ways=TLS_WAYS),
    *[Case(f"tls-plaintext-{how}-{where}", [*steps, *([(Notified(plain),)] if how == "with-close-notify" else [NOTIFY, PAUSE, (Past(plain),)]
                                                      if how == "after-close-notify" else [(Past(plain),)]), CLOSED], ways=TLS_WAYS)
      for how in ("with-close-notify", "after-close-notify", "between-records")
      for where, steps, plain in (
          ("at-a-command", OPEN, b"DATA\r\n" + TEXT + b".\r\n"),
          ("in-data", [*OPEN, DATA, (TEXT,)], b".\r\nQUIT\r\n"),
          ("in-the-dot", [*OPEN, DATA, (TEXT + b".\r",)], b"\nQUIT\r\n"),
          ("in-a-chunk", [*OPEN, (b"BDAT %d LAST\r\n" % (len(TEXT) + 5) + TEXT,)], b"text\r\n"))],
    Case("tls-forged-record", [*OPEN, DATA, (TEXT,), (Past(b"\x17\x03\x03\x00\x20" + b"f" * 32),), CLOSED], ways=TLS_WAYS),
    Case("tls-truncated", [*OPEN, DATA, (TEXT,), TRUNCATE, CLOSED], ways=TLS_WAYS),
    Case("tls-half-close-after-quit", [HELLO, (b"QUIT\r\n",), HALF, (b"", "221 2.0.0"), CLOSED], ways=TLS_WAYS),
]
