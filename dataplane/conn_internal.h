/* What the parts of a delivery connection share: conns.c (its life and its session), conn_hosts.c (whom to connect to), conn_send.c (the content), conn_login.c (AUTH), conn_probe.c (questions). For nobody else. */
#ifndef WEIR_DATAPLANE_CONN_INTERNAL_H
#define WEIR_DATAPLANE_CONN_INTERNAL_H

#include "dataplane/conns.h"
#include "dataplane/peer.h"

enum conn_phase { CONN_RESOLVING, CONN_CONNECTING, CONN_TALKING, CONN_IDLE, CONN_CLOSING };

/* Sending the content of the delivery: the added header, the body, the end. */
enum send_phase { SEND_NOTHING, SEND_PIECES, SEND_END, SEND_DONE };

enum { TRACE_MAX = 2048 + ENV_TRACE_MAX, SLICES_MAX = 48 };

struct out_conn {
	struct owner owner; /* first: OWNER_CONN */
	uint8_t phase, sending;
	bool no_tls;        /* TLS failed here a moment ago, and it may be done without */
	bool tls_failed;
	bool unproved;      /* no server has taken it as far as MAIL: it counts as connecting */
	bool starting_tls;
	bool out_waits;     /* output waits for NET_DRAINED */
	bool net_busy;      /* slices of net_send are under way */
	bool read_waits;    /* the body's next piece comes from the disk */
	bool body_waits;    /* the content is due, but what was written before is not out yet */
	bool have_failure;  /* of a host tried */
	bool no_requiretls; /* the sender demands it, and this host does not offer it */
	bool for_probe;     /* it was opened for one, and has not got that far yet */
	bool went_on;       /* the time limit begins again, whatever the server says */
	struct worker *w;
	struct config *cfg;
	struct dest *dest;
	struct net_conn *conn;
	TAILQ_ENTRY(out_conn) entry; /* in dest->idle */
	struct timer timer;
	uint64_t deadline_ns, timer_ns;
	uint32_t seen_replies;
	struct dns_query *query;
	struct dns_answer *mx, *addr;
	struct peer peer;    /* whom it may talk to */
	bool host_asked;     /* peer_host has the say; else peer_domain */
	uint32_t next_host, next_addr;
	uint16_t port;
	char host[256];      /* being tried or connected */
	uint8_t ip[16];
	struct reply failure; /* of the last host tried */
	struct smtp_client_config client_cfg;
	struct config *login_cfg; /* of login's spans */
	struct sasl_login login;
	char nonce[SASL_SERVER_NONCE];
	struct smtp_client client;
	struct delivery *dl;
	struct probe *probe; /* in place of a delivery */
	struct smtp_txn txn;
	struct reply *result;
	uint32_t result_cap;
	struct body_reader *reader;
	struct wire_stuff stuff;
	struct span rest;    /* of the body's current piece */
	size_t trace_len;
	char trace[TRACE_MAX];
};

/* ---- conns.c ---- */

void conn_deadline(struct out_conn *c, uint64_t after_ns);
void conn_free(struct out_conn *c);
/* Lets the session go on; ev: with this input. */
void conn_talk(struct out_conn *c, struct net_event *ev);
/* Something went on: the time limit of the phase begins again. */
void conn_progress(struct out_conn *c);
/* Why there is no answer: what the server said last, or that it is gone. */
void conn_lost_reply(const struct out_conn *c, struct reply *ret);
uint64_t conn_cookie(const struct out_conn *c);

/* ---- conn_hosts.c ---- */

void conn_next_host(struct out_conn *c);
/* The same address again (without TLS), the host's next address, or the next host. */
void conn_again(struct out_conn *c);
void conn_next_addr(struct out_conn *c);
/* Why this host is of no use. One that may be there later keeps one that never will be from being the end of it. */
void conn_host_failed(struct out_conn *c, const struct reply *why);
void conn_release_answers(struct out_conn *c);
/* peer_fn: what was waited for about the host is there. */
void conn_on_peer(void *ctx);

/* ---- conn_source.c ---- */

/* net_connect from the address that is configured. ST_NOT_FOUND: this node does not have it, the trail says which. */
enum status conn_connect(struct out_conn *c, const struct sockaddr *to);

/* ---- conn_login.c ---- */

/* Who logs in to this host; NULL: nobody. */
const struct sasl_login *conn_login(struct out_conn *c);
void conn_login_release(struct out_conn *c);
/* The session ended for that: logs it, and gives the reason for which mail waits. */
void conn_login_failed(struct out_conn *c, struct reply *ret);

/* ---- conn_probe.c ---- */

/* The connection works, or ends: whoever waits for a probe does not wait for it any more. */
void conn_probe_opened(struct out_conn *c);
bool conn_take_probe(struct out_conn *c);
/* What was asked about is answered, or will not be. */
void conn_probe_end(struct out_conn *c);

/* ---- conn_send.c ---- */

/* The fields that go on top of the message; with the body they are the content. */
void conn_trace_header(struct out_conn *c);
void conn_send_begin(struct out_conn *c);
/* Hands the next slices to the connection; called again at NET_SENT and when a piece was read from the disk. */
void conn_send_more(struct out_conn *c);

#endif
