/* Clients that try invented names (B3): counted on all nodes together, slowed down, then refused for a while.
 *
 * By default only clients from outside are looked at: those inside, and users who logged in, are known by name and have rate limits of their own. Modes (D2) decide. */
#ifndef WEIR_DATAPLANE_DICTIONARY_H
#define WEIR_DATAPLANE_DICTIONARY_H

#include "dataplane/session.h"

struct dictionary;

enum status dictionary_new(struct dictionary **ret);
void dictionary_free(struct dictionary *d);

/* Whether clients like this one may be refused; in mode monitor they are counted and logged, no more. */
bool dictionary_may_refuse(const struct policy_facts *f);
/* Whether this worker knows that the client is refused. */
bool dictionary_refuses(const struct worker *w, const struct policy_facts *f);
/* What the client is counted by, and the tag under which all nodes know that it is refused: there is a value of the name DICTIONARY_REFUSED. */
struct span dictionary_key(const struct policy_facts *f, char *buf, size_t cap);
#define DICTIONARY_REFUSED SPAN(":refused")
/* The reply for a client that is. */
void dictionary_refusal(const struct policy_facts *f, struct reply *r);
/* Before the first recipient of a session: asks all nodes' memory whether the client is refused. False: nothing is waited for; else recipient_go_on is called. */
bool dictionary_look(struct session *s);
/* The recipient of s->check is unknown: counts it. False: the decision stands as it is, or became a 421; else it waits, and recipient_go_on is called when the reply is due. */
bool dictionary_count(struct session *s);
void dictionary_timer(struct worker *w, struct timer *t);

#endif
