/* struct session, and all of them, as inbound.c and its helpers see them. */
#ifndef WEIR_DATAPLANE_SESSION_H
#define WEIR_DATAPLANE_SESSION_H

#include "dataplane/facts.h"
#include "dataplane/mail.h"
#include "dataplane/net/proxy.h"
#include "dataplane/policy/policy.h"
#include <sys/queue.h>

enum session_waits {
	WAITS_NOTHING,
	WAITS_FACTS,   /* for DNS, at MAIL */
	WAITS_HEADER,  /* for DNS, at the end of data */
	WAITS_RATE,    /* for the rate counter, at MAIL */
	WAITS_RCPT,    /* for what is known of a recipient, its destination, or until a reply may go (B2, B3) */
	WAITS_AUTH,    /* for counters and for whoever knows the password */
	WAITS_ANSWER,  /* for inbound_answer, at the end of data */
	WAITS_ROOM,    /* for room in the arena, in the body */
	WAITS_DRAIN,   /* for the client to take our replies */
	WAITS_TLS,     /* for the handshake */
	WAITS_PROXY,   /* for what the balancer says of the client */
	WAITS_BANNER,  /* for the end of the banner delay, in which the client must be silent */
	WAITS_CLOSE,   /* for NET_CLOSED */
};

/* What was found about client and sender of a transaction, and how far it was said (decide_sender.c). */
struct sender_said {
	bool invalid;             /* a rule found something against the sender (A6) */
	bool refused;             /* recipients other than postmaster are refused */
	bool told;                /* one was */
	uint8_t done[RULE_NRULE]; /* enum policy_mode: what was carried out for a recipient that passed */
};

struct session {
	struct owner owner; /* first: OWNER_SESSION */
	uint8_t waits;      /* enum session_waits */
	bool eof;           /* the client sends no more; it still gets what it waits for */
	struct worker *w;
	struct config *cfg;
	struct net_conn *conn;
	TAILQ_ENTRY(session) entry;
	struct timer timer;
	uint64_t banner_delay_ns; /* until it is greeted; 0: it was, or is at once */
	uint8_t wait;         /* enum server_wait that deadline_ns is of */
	uint64_t deadline_ns; /* of what it waits for now; the timer is moved lazily, but never comes later */
	uint64_t timer_ns;    /* when the timer comes */
	uint64_t body_bytes;  /* that came since the deadline was set */
	uint64_t room_since_ns; /* since when it waits for room, with what interruptions; 0: it does not */
	uint64_t end_ns;      /* of the whole session */
	struct policy_facts facts;
	uint16_t client_port;
	uint16_t listener;    /* it came over */
	struct sender_said sender_said;
	bool to_others;       /* a recipient of the transaction is not postmaster (B4) */
	bool counted;         /* among its client's connections */
	struct proxy proxy;   /* WAITS_PROXY */
	struct body *body;    /* of the transaction that comes in */
	struct mail *mail;    /* whose answer it waits for */
	struct fact_client *client;      /* the client's name, once a rule wants it; its answer holds for the session */
	struct facts_ask *client_ask;    /* under way */
	struct fact_domain sender;       /* of the transaction; its name is in the transaction's pool */
	struct facts_ask *domain_ask;    /* under way: the sender's domain, or those in the header */
	uint64_t dns_begun_ns;           /* when the sender's domain was asked for */
	uint64_t dns_left_ns;            /* time for DNS that the message has left (P15) */
	struct shared_query *rate_query;
	struct rcpt_check *check; /* the RCPT that waits (recipient.c) */
	bool rcpt_looked;     /* whether the client is refused (B3) was asked in this session */
	struct map *rcpts;    /* those of the transaction, when some of them were expanded (recipient.c) */
	/* AUTH: at most one of these is asked at a time; a request to Dovecot outlives the client's turn */
	struct shared_query *auth_query;
	struct password_check *auth_check;
	struct dovecot_request *auth_request;
	struct timer auth_timer; /* TIMER_AUTH: when a failure may be said */
	uint64_t auth_begun_ns;  /* when the client's last message of the exchange came */
	bool tls_counted;     /* its handshake was allowed */
	bool tls_implicit;    /* the greeting comes after the handshake */
	struct smtp_server smtp;
};

struct inbound {
	TAILQ_HEAD(, session) sessions;
	uint32_t nsessions;
	uint32_t nroom;        /* sessions that wait for room */
	uint64_t said_ns;      /* when a refused connection was logged last; 0: never */
	struct map *per_client, *per_network; /* client address, or its network -> number of sessions */
};

#endif
