#include "dataplane/logins.h"

#include <stdlib.h>

struct logins {
	struct tls_login login[TLS_LOGINS_MAX];
	struct sasl_known known[TLS_LOGINS_MAX];
	uint32_t n;
	struct out bytes; /* what the spans point into */
};

static struct span keep(struct out *o, struct span s)
{
	size_t at = o->n;

	out_add(o, s);
	return span_of(o->p + at, s.n);
}

struct logins *logins_new(const struct tls_file *f)
{
	struct logins *l;
	size_t cap = 0;

	for (uint32_t i = 0; i < f->nlogin; i++)
		cap += f->login[i].user.n + f->login[i].file.n + f->login[i].password.n;
	l = f->nlogin ? calloc(1, sizeof(*l) + cap) : NULL;
	if (!l)
		return NULL;
	l->bytes = out_of(l + 1, cap);
	for (l->n = 0; l->n < f->nlogin; l->n++)
		l->login[l->n] = (struct tls_login){ keep(&l->bytes, f->login[l->n].user), keep(&l->bytes, f->login[l->n].file), keep(&l->bytes, f->login[l->n].password) };
	return l;
}

void logins_free(struct logins *l)
{
	if (!l)
		return;
	explicit_bzero(l->known, sizeof(l->known));
	explicit_bzero(l->bytes.p, l->bytes.cap);
	free(l);
}

struct sasl_login logins_find(struct logins *l, struct span user, struct span file)
{
	for (uint32_t i = 0; l && i < l->n; i++)
		if (span_eq(l->login[i].user, user) && span_eq(l->login[i].file, file))
			return (struct sasl_login){ .user = user, .password = l->login[i].password, .known = &l->known[i] };
	return (struct sasl_login){ .user = user };
}
