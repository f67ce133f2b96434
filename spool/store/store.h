/* The spool of one partition: a ring of recycled log segments on disk, the index of what is in it, and the bodies in work.
 *
 * Nothing here waits: what needs the disk is begun, and its end is an event. The only way to start is recovery.
 *
 * A message lives like this: body_append while it comes in; store_put when it is complete; STORE_DURABLE when it is on stable storage (only
 * then may a 250 be said); store_verdict, store_rcpt ... as its fate unfolds, each a record in the log; store_forget when every recipient
 * has a final state. What is appended between two calls of store_commit goes into one batch: valid or absent as a whole, so that e.g. a bounced
 * recipient and the notification about it cannot be separated by a crash.
 *
 * Owner: one worker (OFD lock on the partition directory). Thread: one.
 * Fails: ST_FULL (452 4.3.1: no room in arena or log; outcomes have a reserve of their own and do not fail for room), ST_IO with the partition fenced
 * (421 for new mail). */
#ifndef WEIR_SPOOL_STORE_STORE_H
#define WEIR_SPOOL_STORE_STORE_H

#include "spool/base/span.h"
#include "spool/base/status.h"
#include "spool/base/uring.h"
#include "spool/mail/envelope.h"
#include "spool/mail/reply.h"
#include "spool/store/arena.h"

struct store;

struct store_config {
	const char *dir;       /* <spool>/p<partition>; made when missing, mode 0700 */
	uint32_t partition;
	uint64_t segment_bytes; /* for new segments: 4 MiB to 1 GiB */
	uint64_t max_bytes;    /* of all segments together; they are made as needed, kept and recycled */
	uint64_t staging_bytes; /* of records in one batch; 0: 2 MiB. At most half a segment */
	uint64_t spill_bytes;  /* a body longer than this is written to the log while it comes in */
	uint64_t ledger_keep_ns; /* how long the ledger's files stay (ledger.h); 0: none is kept */
	bool direct;           /* try O_DIRECT */
	struct disk *disk;     /* instead of real files in dir: taken over. NULL: files */
};

/* ---- bodies ---- */

/* A message's content in work: a chain of extents in the arena, some of them possibly on disk already. */
struct body;

/* size_hint: SIZE=, or 0. Never fails for room: that shows at body_append. ST_NOMEM. */
enum status body_new(struct store *s, uint64_t size_hint, struct body **ret);
/* Whether n more bytes can be taken now. ST_OK; ST_AGAIN: not now, but perhaps soon: ask again at STORE_ROOM, and now and then (pause reading);
 * ST_FULL: 452. */
enum status body_room(struct body *b, size_t n);
/* Copies s behind what is there. ST_FULL; ST_IO: its partition is fenced. */
enum status body_append(struct body *b, struct span s);
/* The partition that it was begun in. */
struct store *body_store(const struct body *b);
/* A line of the content begins with a dot. */
void body_mark_dot_lines(struct body *b);
uint64_t body_len(const struct body *b);
/* The first bytes as far as they are in one piece in memory: enough for header checks (up to 64 KiB is guaranteed when the body has it). */
struct span body_head(const struct body *b);
/* Throws an unfinished body away. */
void body_drop(struct body *b);

/* ---- messages ---- */

enum msg_state {
	MSG_PENDING, /* no verdict yet: never delivered */
	MSG_QUEUED,  /* may be delivered */
	MSG_HELD,    /* by an operator, as suspect, or by a rule: kept until released or deleted */
};

enum rcpt_state {
	RCPT_QUEUED,    /* no final state yet (deferred is this with a reply and a next attempt) */
	RCPT_DELIVERED,
	RCPT_BOUNCED,
	RCPT_DELETED,   /* by an operator */
	RCPT_DROPPED,   /* refused at the end of data: was never accepted */
};

struct store_rcpt_state {
	uint8_t state;            /* enum rcpt_state */
	uint8_t busy;             /* the worker's: a delivery of it is under way; never stored */
	uint8_t told;             /* the worker's, stored with the outcome: the sender knows of the delay */
	uint16_t attempts;        /* at most ATTEMPTS_MAX */
	uint64_t next_ns;         /* deferred until, spool time (clock_steady_ns) */
	struct reply *last;       /* heap; NULL when there was no attempt */
};

/* A message that is awake. Read-only for the worker but for user, busy, and next_ns (which it may bring forward; that is not stored). Valid until store_forget or
 * store_park. */
struct store_msg {
	struct store *store;
	uint64_t id;              /* unique for ever: <partition:8><number:56> */
	uint8_t state;            /* enum msg_state */
	bool dot_lines;           /* a line of the body begins with a dot (else wire_stuff need not look) */
	bool ends_crlf;
	uint32_t open_rcpts;      /* recipients in RCPT_QUEUED */
	uint64_t body_len;
	struct envelope env;
	struct store_rcpt_state *rcpt; /* env.nrcpt of them */
	struct span hold_reason;  /* MSG_HELD */
	void *user;
};

/* Takes the body (also on failure, when it is dropped) and copies the envelope; appends the message as MSG_PENDING, or as MSG_QUEUED when scanned.
 * user is set before anything can happen. STORE_DURABLE follows the commit. ST_FULL, ST_IO (fenced). */
enum status store_put(struct store *s, const struct envelope *env, struct body *b, bool scanned, void *user, struct store_msg **ret);
/* MSG_PENDING or MSG_HELD to another state: QUEUED (clean, released) or HELD. reason is kept for HELD (who, why), and is in the
 * ledger for both. */
void store_set_state(struct store_msg *m, enum msg_state state, struct span reason);
/* A recipient's outcome. reply may be NULL (keeps the last). state RCPT_QUEUED is a deferral until next_ns and counts an attempt. */
void store_rcpt(struct store_msg *m, uint32_t i, enum rcpt_state state, const struct reply *reply, uint64_t next_ns);
/* The same, with the host that said it: for the ledger. */
void store_rcpt_at(struct store_msg *m, uint32_t i, enum rcpt_state state, const struct reply *reply, uint64_t next_ns, struct span remote);
/* For the ledger alone: a message (id) or a command about `to` (id 0) was refused. e says who it was, as far as it is known. */
void store_note_refused(struct store *s, uint64_t id, const struct envelope *e, struct span to, uint64_t size, const struct reply *reply);
uint32_t store_partition(const struct store *s);
/* The number of the last frame in the ledger's files. */
uint64_t store_ledger_number(const struct store *s);
/* Allowed when no recipient is open, or after STORE_FAILED: m is gone; its space is reclaimed once its records are durable. Readers must be ended. */
void store_forget(struct store_msg *m);
/* Gives the body's arena memory back (the log has it); no-op while a reader or a scan pins it, or before it is durable. */
void store_evict(struct store_msg *m);

/* ---- parked messages: a hundred bytes of memory each, the rest is in the log ---- */

/* What the index knows of any message. */
struct store_row {
	uint64_t id, body_len;
	uint64_t due_ns;          /* parked: monotonic; UINT64_MAX: until somebody wakes it */
	struct store_msg *awake;  /* NULL: parked */
	uint32_t nrcpt, open, tag;
	uint8_t state;            /* enum msg_state */
	bool damaged;             /* its record cannot be read: it stays, for the postmaster */
};

/* The message goes out of memory until due_ns (monotonic; UINT64_MAX: until store_wake). tag comes back in its row. m is gone after this. Only when it is
 * durable, and not read, scanned or under way: ST_AGAIN otherwise. */
enum status store_park(struct store_msg *m, uint64_t due_ns, uint32_t tag);
/* The parked message that is due first, if it is due at now_ns: it stays so until it is woken or put off. */
bool store_due(struct store *s, uint64_t now_ns, struct store_row *ret);
void store_put_off(struct store *s, uint64_t id, uint64_t due_ns);
/* When the first is due; UINT64_MAX: none. */
uint64_t store_next_due(const struct store *s);
/* Brings a parked message back: STORE_WOKEN follows (or STORE_UNREADABLE). ST_EXISTS: it is awake, or on its way; ST_NOT_FOUND; ST_AGAIN: too many are on their way. */
enum status store_wake(struct store *s, uint64_t id);
/* A look at a parked message that stays parked: STORE_PEEKED with the cookie follows, whose msg (NULL: gone or unreadable) ends with store_peek_done, before the next
 * store_event. ST_EXISTS: it is awake; ST_NOT_FOUND, ST_AGAIN. */
enum status store_peek(struct store *s, uint64_t id, uint64_t cookie);
void store_peek_done(struct store_msg *m);
/* Ends a damaged message: an operator's order. ST_NOT_FOUND: there is no such damaged one. */
enum status store_discard(struct store *s, uint64_t id, struct span who);
/* All messages: *pos starts at 0. */
bool store_next(struct store *s, size_t *pos, struct store_row *ret);
bool store_row(struct store *s, uint64_t id, struct store_row *ret);
/* The message when it is awake, else NULL. */
struct store_msg *store_find(struct store *s, uint64_t id);
/* Messages in all, and those awake. */
uint32_t store_count(const struct store *s, uint32_t *ret_awake);

/* "01J5F8ZK9Q7XN": 13 characters of Crockford base 32, and back (any case). */
enum { MSG_ID_TEXT = 13 };
void msg_id_text(uint64_t id, char ret[MSG_ID_TEXT + 1]);
enum status msg_id_parse(struct span s, uint64_t *ret);

/* ---- reading bodies ---- */

struct body_reader;

/* Several readers may read one message. cookie comes back in STORE_READ. */
enum status store_read_open(struct store_msg *m, uint64_t cookie, struct body_reader **ret);
/* The next piece, in order: ST_OK with a non-empty piece, valid until the next call or close; ST_AGAIN: STORE_READ with the cookie will come, call
 * again then; ST_NOT_FOUND: the end; ST_IO, ST_CORRUPT: the stored copy cannot be read (checksum). */
enum status store_read(struct body_reader *r, struct span *ret_piece);
void store_read_close(struct body_reader *r);

/* ---- what a scanner needs to know (scan.h) ---- */

struct scan_piece;
/* Describes the body for a scanner: pieces in the arena or in the log. Writes them to pages (struct scan_page) in the arena, which stay, as does the body, until
 * store_scan_done: also beyond store_forget. ST_FULL; ST_AGAIN while an earlier scan has not ended. */
enum status store_scan_begin(struct store_msg *m, uint64_t *ret_list_off, uint32_t *ret_pieces);
void store_scan_done(struct store_msg *m);

/* ---- the partition ---- */

enum store_event_type {
	STORE_DURABLE, /* msg is on stable storage */
	STORE_FAILED,  /* msg could not be written: answer 451/421, then store_forget */
	STORE_READ,    /* cookie's reader can go on; no msg: reader and message may be gone by now */
	STORE_WOKEN,   /* msg is awake again */
	STORE_PEEKED,  /* a look at msg */
	STORE_UNREADABLE, /* the record of the parked message with the id in cookie could not be read: it is tried again, or damaged */
	STORE_ROOM,    /* there is room again: resume those that body_room paused */
	STORE_FENCED,  /* the partition stopped; the trail's text is in reason */
};

struct store_event {
	enum store_event_type type;
	struct store_msg *msg;
	uint64_t cookie;
	const char *reason;
};

/* Opens, locks (ST_EXISTS when another process has it) and recovers; waits for the disk, as it is the start. */
enum status store_open(struct uring *u, struct arena *a, const struct store_config *cfg, struct store **ret);
/* Commits what is pending (waits), writes nothing else, unlocks. */
void store_close(struct store *s);
/* One URING_STORE handler serves all partitions of the process: set by store_open. Once per turn of the loop: begins a commit when something is pending and fewer than two are in flight, and
 * reclaims segments. */
void store_commit(struct store *s);
/* The next thing that happened; false when nothing more. */
bool store_event(struct store *s, struct store_event *ret);
/* Room for a new message of this size (0: unknown)? ST_OK, ST_FULL (452), ST_IO (fenced: 421). Ask at MAIL. */
enum status store_room(struct store *s, uint64_t size);
/* The partition has stopped: nothing that happens to its messages is remembered any more, until a restart has read it back. */
bool store_fenced(const struct store *s);
/* Whether anything is pending or in flight. */
bool store_busy(const struct store *s);
/* Writes rows for weirctl status: segments, live bytes, direct, fixed, fenced. */
struct logline;
void store_describe(const struct store *s, struct logline *row);

#endif
