/* What each client is seen to do (A3): the worker's evidence (spool/store/evidence.h), for operators to see whom a rule would hit. It never decides anything.
 *
 * At most clients.evidence addresses: of those that are not registered the one that was not seen for longest goes first, of the others only when there is nobody else.
 *
 * Owner: the worker. Thread: the worker's. Fails: never; without memory or disk there is no evidence, and the log says so once. */
#ifndef WEIR_DATAPLANE_CLIENTS_H
#define WEIR_DATAPLANE_CLIENTS_H

#include "dataplane/worker.h"

struct session;

struct clients *clients_new(struct worker *w);
void clients_free(struct clients *c);

/* Says which network the session's client is of, or that its registration has expired, and notes that the client is here. Once the client is known. */
void clients_session(struct session *s);
/* Its TLS handshake is done. */
void clients_tls(struct session *s);
/* Its sender was looked at (A6). */
void clients_sender(struct session *s, bool valid);
/* A message of it is complete, and was taken. */
void clients_message(struct session *s);
/* A rule's finding, in whatever mode; refused: the client was told so. */
void clients_finding(struct session *s, enum rule r, bool refused);
/* A finding about a message whose session may be gone. */
void clients_content(struct worker *w, const uint8_t ip[16], enum rule r);

#endif
