/* What the files that read the configuration share: model.c has the order of all, model_read.c the file, model_values.c single values, model_table.c lists,
 * model_together.c what settings say about each other; what belongs to one group of keys has a file of its own. */
#ifndef WEIR_CONTROL_MODEL_H
#define WEIR_CONTROL_MODEL_H

#include <yaml.h>
#include "control/schema.h"

struct reader {
	struct model *m;
	yaml_document_t *doc;
	bool *seen; /* per schema row */
};

void complain(struct model *m, const yaml_node_t *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* Where the file has a key of the schema; 0: it does not. */
uint32_t key_line(const struct model *m, const char *key);
/* The same for a thing of which only the line is still known; 0: the file as a whole. */
void complain_line(struct model *m, uint32_t line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* What is possible, but hardly meant: it is said, and the configuration is taken. */
void warn_line(struct model *m, uint32_t line, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* A key that the schema does not have; the nearest one that it has is named. */
void unknown_key(struct model *m, const yaml_node_t *at, const char *key);
struct snap_settings *model_settings(struct model *m);
struct snap_str model_add_str(struct model *m, struct span s);
struct snap_list model_add_list(struct model *m, const void *rows, size_t n, size_t size);
/* Text of a string in the making. */
const char *model_text(const struct model *m, struct snap_str s);
/* The text of a scalar; NULL when n is none. */
const char *scalar(const yaml_node_t *n);
/* The value of a key in a mapping, or NULL. */
const yaml_node_t *member(struct reader *r, const yaml_node_t *map, const char *key);
/* Complains about keys that are not known. */
void only_members(struct reader *r, const yaml_node_t *map, const char *const *known, const char *what);
/* Place of text among words, or -1. */
int find_word(const char *const *words, const char *text);
/* "a, b or c". */
void list_words(const char *const *words, struct out *o);
/* "ADDRESS:PORT", "[ADDRESS]:PORT", "HOST:PORT". */
bool split_port(const char *text, struct span *host, uint64_t *port);
/* "30s", "5m": in ns. */
bool parse_duration(const char *text, uint64_t *ret);
/* "512K", "25M": in bytes. */
bool parse_size(const char *text, uint64_t *ret);
/* A domain's look-up form; what is the table that it stands in. False: complained. */
bool domain_key(struct reader *r, const yaml_node_t *at, const char *what, const char *text, struct snap_str *ret);
/* A number of messages, or none. */
bool parse_rate(const char *text, double *ret);
/* Sorts rows that begin with a name as the snapshot's readers search them. */
void sort_by_name(struct model *m, void *rows, size_t n, size_t size);

/* model_read.c: the values of all keys as the schema has them; and those that a file has. */
void model_read_defaults(struct model *m);
void model_read_file(struct model *m, const char *file);
/* model_values.c: sets a scalar from its text. */
void set_scalar(struct model *m, const yaml_node_t *at, const struct schema_row *r, const char *text);
/* model_table.c: sets a list. */
void set_table(struct reader *r, const struct schema_row *row, const yaml_node_t *node);
/* model.c: gives a string that is empty its value. */
void model_default(struct model *m, size_t off, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
/* model_together.c: what follows from the machine and from other values; and the checks that need all of them. */
void model_derive(struct model *m, const char *run_dir);
void model_together(struct model *m);

/* model_auth.c: one of auth.mechanisms, one row of auth.senders; and what they say about other keys. */
void row_mechanism(struct reader *r, const yaml_node_t *item, void *row);
void row_senders(struct reader *r, const yaml_node_t *item, void *row);
void auth_together(struct model *m);

/* model_routes.c: one row of routes; and the next hops of any row that has them, from its "to", "tls" and "final". */
void row_route(struct reader *r, const yaml_node_t *item, void *row);
void route_next_hops(struct reader *r, const yaml_node_t *item, struct snap_route *t);
/* model_terms.c: what a row says about its mail beside where it goes: life, delay_notice, size, hold, source. */
#define TERMS_MEMBERS "life", "delay_notice", "size", "hold", "hold_until", "hold_reason", "source", CLIENT_CERT_MEMBERS, LOGIN_MEMBERS
void route_terms_read(struct reader *r, const yaml_node_t *item, struct snap_route *t);
/* Whether a row says anything of that kind. */
bool route_terms_any(struct reader *r, const yaml_node_t *item);
/* One of delivery.source. */
void row_source(struct reader *r, const yaml_node_t *item, void *row);
/* Addresses that this machine does not have, releases of holds: after the whole file. */
void terms_together(struct model *m);

/* model_moved.c: "moved" of a row of mail_domains. */
void mail_domain_moved(struct reader *r, const yaml_node_t *item, const struct snap_mail_domain *d);
/* Puts all of them among the mail domains. */
void moved_together(struct model *m);

/* model_listen.c: one row of listen; and what rows say about other keys, after the whole file. */
void row_listener(struct reader *r, const yaml_node_t *item, void *row);
/* One of balancers. */
void row_balancer(struct reader *r, const yaml_node_t *item, void *row);
/* One of xclient_clients. */
void row_xclient_client(struct reader *r, const yaml_node_t *item, void *row);
void listeners_together(struct model *m);

/* model_domains.c: one row of mail_domains. */
void row_mail_domain(struct reader *r, const yaml_node_t *item, void *row);
/* The name of a file as a row has it; what it is relative to is beside the configuration. */
struct snap_str mail_domain_path(struct reader *r, const yaml_node_t *at, const char *path);
/* model_sources.c: where a row's aliases come from, and whose domain it is. */
void mail_domain_source(struct reader *r, const yaml_node_t *item, struct snap_mail_domain *d);
/* Keeps the route of a mail domain for mail_domains_together. */
void model_add_route(struct model *m, const struct snap_route *route);
/* What rows say about each other; and the routes of those that have one. Once, after the whole file. */
void mail_domains_together(struct model *m);

/* model_tls.c: one row of tls.certificates; and, when all is known, whether certificates and keys can be used. */
void row_certificate(struct reader *r, const yaml_node_t *item, void *row);
void tls_together(struct model *m);
/* One certificate with its key can be used; complains, or warns. */
void cert_check(struct model *m, const struct snap_cert *c);

/* model_client_cert.c: what a row says about the certificate that its next hops are shown; and, after the whole file, all of them. */
#define CLIENT_CERT_MEMBERS "client_certificate", "client_key"
void route_certificate_read(struct reader *r, const yaml_node_t *item, struct snap_route *t);
void client_certs_together(struct model *m);

/* model_login.c: what a row says about who logs in to its next hops; and, after the whole file, all of them. */
#define LOGIN_MEMBERS "user", "password_file"
void route_login_read(struct reader *r, const yaml_node_t *item, struct snap_route *t);
void client_logins_together(struct model *m);

/* model_clients.c: one row of relay_clients; what they say about each other; and the registry, once all else is there. */
void row_net(struct reader *r, const yaml_node_t *item, void *row);
void nets_together(struct model *m);
void registry_together(struct model *m);

/* model_verify.c: "recipients" of a row of routes or mail_domains, enum snap_recipients. */
uint32_t verify_recipients(struct reader *r, const yaml_node_t *item, const char *what);
/* What settings of verify and dictionary say about each other. */
void verify_together(struct model *m);

/* model_policy.c: one row of policy.rules; and the matrix of all, once, after the whole file. */
void row_policy(struct reader *r, const yaml_node_t *item, void *row);
void policy_together(struct model *m);

#endif
