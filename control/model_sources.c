/* mail_domains: where the aliases of a domain come from when that is not a file, and whose domain it is (C2, C9). */
#include <string.h>
#include "control/model.h"

static const char what[] = "mail_domains";

/* One line of text for people. */
static struct snap_str take_line(struct reader *r, const yaml_node_t *item, const char *key)
{
	const yaml_node_t *at = member(r, item, key);
	const char *text = scalar(at);

	if (at && (!text || !*text || strlen(text) > 200 || strpbrk(text, "\r\n")))
		complain(r->m, at, "%s: %s is one line of at most 200 characters", what, key);
	return model_add_str(r->m, span_str(at && text ? text : ""));
}

/* An address that is logged, shown and mailed must not hold a password: that is in the file of secrets. */
static bool url_ok(const char *url)
{
	size_t host = strcspn(url + strlen("https://"), "/?#");
	const char *from = url + strlen("https://");

	for (const char *p = url; *p; p++)
		if (*p <= ' ' || *p > '~' || *p == '#')
			return false;
	return host > 0 && from[0] != ':' && from[host] == '/' && !memchr(from, '@', host) && strlen(url) < 1000;
}

static void take_https(struct reader *r, const yaml_node_t *item, const char *url, struct snap_mail_domain *d)
{
	const yaml_node_t *ca = member(r, item, "ca"), *secrets = member(r, item, "secrets");

	if (!url_ok(url))
		complain(r->m, item, "%s: source \"https://...\" is not possible; write https://HOST/PATH, with user and password in the file that secrets names", what);
	d->source = SOURCE_HTTPS;
	d->value = model_add_str(r->m, span_str(url));
	if (ca)
		d->ca = mail_domain_path(r, ca, scalar(ca));
	if (secrets)
		d->secrets = mail_domain_path(r, secrets, scalar(secrets));
}

void mail_domain_source(struct reader *r, const yaml_node_t *item, struct snap_mail_domain *d)
{
	const yaml_node_t *at = member(r, item, "source");
	const char *source = at ? scalar(at) : NULL;

	d->owner = take_line(r, item, "owner");
	d->contact = take_line(r, item, "contact");
	if (source && strncmp(source, "https://", 8) == 0) {
		take_https(r, item, source, d);
	} else if (source && strcmp(source, "command") == 0) {
		d->source = SOURCE_COMMAND;
		d->value = model_add_str(r->m, SPAN("command"));
	} else if (at) {
		complain(r->m, at, "%s: source is https://HOST/PATH, or command; a file is named by aliases", what);
	}
	if (d->source != SOURCE_HTTPS && (member(r, item, "ca") || member(r, item, "secrets")))
		complain(r->m, item, "%s: ca and secrets go with source: https://HOST/PATH", what);
}
