#include "dataplane/net/tls_bytes.h"

#include <stdlib.h>

enum { CAP_MIN = 256 };

bool tls_queue_add(struct tls_queue *q, struct span s)
{
	size_t cap = q->cap ? q->cap : CAP_MIN;
	char *p;

	if (!s.n)
		return true;
	if (q->at && q->at + q->n + s.n > q->cap) {
		memmove(q->p, q->p + q->at, q->n);
		q->at = 0;
	}
	while (cap < q->n + s.n)
		cap *= 2;
	if (cap != q->cap) {
		p = realloc(q->p, cap);
		if (!p)
			return false;
		q->p = p;
		q->cap = cap;
	}
	memcpy(q->p + q->at + q->n, s.p, s.n);
	q->n += s.n;
	return true;
}

size_t tls_queue_take(struct tls_queue *q, char *buf, size_t cap)
{
	size_t n = cap < q->n ? cap : q->n;

	if (!n)
		return 0;
	memcpy(buf, q->p + q->at, n);
	q->at += n;
	q->n -= n;
	if (!q->n)
		tls_queue_free(q);
	return n;
}

void tls_queue_free(struct tls_queue *q)
{
	free(q->p);
	*q = (struct tls_queue){ 0 };
}

/* ---- the BIO ---- */

static int on_read(BIO *bio, char *buf, size_t cap, size_t *ret_n)
{
	struct tls_bytes *b = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	*ret_n = tls_queue_take(&b->in, buf, cap);
	if (*ret_n)
		return 1;
	BIO_set_retry_read(bio); /* the end of the connection is not TLS's to see */
	return 0;
}

static int on_write(BIO *bio, const char *p, size_t n, size_t *ret_n)
{
	struct tls_bytes *b = BIO_get_data(bio);

	BIO_clear_retry_flags(bio);
	*ret_n = tls_queue_add(&b->out, span_of(p, n)) ? n : 0;
	return *ret_n == n;
}

static long on_ctrl(BIO *bio, int cmd, long num, void *ptr)
{
	(void)bio, (void)num, (void)ptr;
	return cmd == BIO_CTRL_FLUSH;
}

static int on_create(BIO *bio)
{
	BIO_set_init(bio, 1);
	return 1;
}

/* Made once, for all sessions of the process. */
static const BIO_METHOD *method(void)
{
	static BIO_METHOD *m;
	BIO_METHOD *made;

	if (m || !(made = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "weir")))
		return m;
	if (BIO_meth_set_read_ex(made, on_read) && BIO_meth_set_write_ex(made, on_write) && BIO_meth_set_ctrl(made, on_ctrl) && BIO_meth_set_create(made, on_create))
		m = made;
	else
		BIO_meth_free(made);
	return m;
}

BIO *tls_bytes_bio(struct tls_bytes *b)
{
	const BIO_METHOD *m = method();
	BIO *bio = m ? BIO_new(m) : NULL;

	if (bio)
		BIO_set_data(bio, b);
	return bio;
}
