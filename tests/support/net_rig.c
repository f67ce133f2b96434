#include "tests/support/net_rig.h"

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "tests/support/net_bad_wire.h"
#include "tests/support/net_rig_apart.h"

static const struct sim_options sim_near = { .seed = 1, .delay_ns = 100 * NS_PER_US, .jitter_ns = 50 * NS_PER_US };
static const struct sim_options sim_far = { .seed = 2, .delay_ns = 5 * NS_PER_MS, .jitter_ns = 20 * NS_PER_MS, .segment_max = 9000, .window = 256 * 1024 };

static const struct rig_transport rig_transports[] = {
	{ .name = "io_uring", .id = NET_URING, .peer = &peer_kernel, .has_files = true, .own_ip4 = { 127, 0, 0, 1 } },
	{ .name = "a simulated network", .id = NET_SIM, .peer = &peer_sim, .sim = &sim_near, .own_ip4 = { 127, 0, 0, 1 } },
	{ .name = "a simulated network far away", .id = NET_SIM, .peer = &peer_sim, .sim = &sim_far, .own_ip4 = { 127, 0, 0, 1 } },
	{ .name = "DPDK", .id = NET_DPDK, .peer = &peer_kernel, .has_files = true, .dpdk = &apart_dpdk, .own_ip4 = APART_NET_IP4 },
	{ .name = "DPDK on a bad wire", .id = NET_DPDK, .peer = &peer_kernel, .has_files = true, .dpdk = &apart_dpdk, .own_ip4 = APART_NET_IP4, .bad_wire = true },
};

static const struct rig_transport *running;

/* ---- the handler ---- */

static void note_data(struct rig_conn *c, struct span s)
{
	if (!s.n)
		return;
	if (c->len + s.n > c->cap) {
		c->cap = (c->len + s.n) * 2;
		c->data = realloc(c->data, c->cap);
		assert_non_null(c->data);
	}
	memcpy(c->data + c->len, s.p, s.n);
	c->len += s.n;
}

static struct rig_conn *conn_add(struct rig *r, struct net_conn *conn)
{
	struct rig_conn *c = &r->conn[r->nconns++];

	assert_true(r->nconns <= RIG_CONNS);
	c->conn = conn;
	return c;
}

static void note_closed(struct rig_conn *c, const struct net_event *ev)
{
	assert_false(c->closed);
	c->closed = true;
	c->status = ev->status;
	snprintf(c->reason, sizeof(c->reason), "%s", ev->reason);
	c->conn = NULL;
}

static void on_event(void *ctx, struct net_event *ev)
{
	struct rig *r = ctx;
	struct rig_conn *c = ev->type == NET_ACCEPTED ? conn_add(r, ev->conn) : ev->user;

	assert_non_null(c);
	assert_false(c->closed);
	switch (ev->type) {
	case NET_ACCEPTED:
		c->accepted = true;
		net_set_user(ev->conn, c);
		if (r->tls_accepted)
			net_start_tls(ev->conn, r->tls_accepted, NULL);
		break;
	case NET_CONNECTED:
		c->connected = true;
		break;
	case NET_TLS_ON:
		c->tls_on = true;
		break;
	case NET_DATA:
		ev->used = ev->data.n;
		break;
	case NET_SENT:
		c->nsent++;
		break;
	case NET_DRAINED:
		c->ndrained++;
		break;
	case NET_EOF:
		assert_false(c->eof);
		c->eof = true;
		break;
	case NET_CLOSED:
		note_closed(c, ev);
		break;
	}
	if (r->hook)
		r->hook(r, c, ev);
	if (ev->type == NET_DATA)
		note_data(c, span_of(ev->data.p, ev->used));
}

/* ---- setting up ---- */

static void write_pem(const char *path, EVP_PKEY *key, X509 *cert)
{
	FILE *f = fopen(path, "w");

	assert_non_null(f);
	assert_int_equal(key ? PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) : PEM_write_X509(f, cert), 1);
	fclose(f);
}

static void make_certificate(const char *cert_file, const char *key_file)
{
	EVP_PKEY *key = EVP_EC_gen("P-256");
	X509 *cert = X509_new();

	assert_true(key && cert);
	X509_set_version(cert, X509_VERSION_3);
	ASN1_INTEGER_set(X509_get_serialNumber(cert), 1);
	X509_gmtime_adj(X509_getm_notBefore(cert), -3600);
	X509_gmtime_adj(X509_getm_notAfter(cert), 3600);
	X509_NAME_add_entry_by_txt(X509_get_subject_name(cert), "CN", MBSTRING_ASC, (const unsigned char *)"weir.test", -1, -1, 0);
	X509_set_issuer_name(cert, X509_get_subject_name(cert));
	X509_set_pubkey(cert, key);
	assert_true(X509_sign(cert, key, EVP_sha256()) > 0);
	write_pem(cert_file, NULL, cert);
	write_pem(key_file, key, NULL);
	X509_free(cert);
	EVP_PKEY_free(key);
}

static void make_contexts(struct rig *r)
{
	char dir[] = "/tmp/weir-rig-XXXXXX", cert[64], key[64];

	assert_non_null(mkdtemp(dir));
	snprintf(cert, sizeof(cert), "%s/cert", dir);
	snprintf(key, sizeof(key), "%s/key", dir);
	make_certificate(cert, key);
	assert_ok(tls_server_new(cert, key, &r->tls_server));
	assert_ok(tls_client_new(NULL, &r->tls_client));
	unlink(cert);
	unlink(key);
	rmdir(dir);
}

int rig_setup(void **state)
{
	struct rig *r = calloc(1, sizeof(*r));
	struct net_config cfg = { .transport = running->id, .dpdk = running->dpdk, .conns_max = RIG_CONNS, .close_ns = RIG_CLOSE_NS, .linger_ns = RIG_LINGER_NS,
		.handler = on_event, .ctx = r };

	assert_non_null(r);
	r->t = running;
	r->listener = -1;
	r->peer.fd = -1;
	assert_ok(uring_init(&r->uring, 256));
	if (running->sim) {
		cfg.sim = r->sim = sim_new(running->sim);
		assert_non_null(r->sim);
		peer_sim_network(r->sim);
	}
	if (running->bad_wire)
		bad_wire_begin();
	assert_ok(net_new(&r->uring, &cfg, &r->net));
	make_contexts(r);
	*state = r;
	return 0;
}

void rig_end(struct rig *r)
{
	net_free(r->net);
	r->net = NULL;
}

int rig_teardown(void **state)
{
	struct rig *r = *state;

	r->hook = NULL;
	rig_end(r);
	for (unsigned i = 0; i < r->nconns; i++) {
		assert_true(r->conn[i].closed);
		free(r->conn[i].data);
	}
	uring_done(&r->uring);
	peer_done(&r->peer);
	if (r->listener >= 0)
		r->t->peer->unlisten(r->listener);
	sim_free(r->sim);
	tls_context_free(r->tls_server);
	tls_context_free(r->tls_client);
	free(r);
	return 0;
}

int rig_run(const char *group, const struct CMUnitTest *tests, size_t n)
{
	int failed = 0;

	for (size_t i = 0; i < sizeof(rig_transports) / sizeof(rig_transports[0]); i++) {
		char name[64];

		running = &rig_transports[i];
		snprintf(name, sizeof(name), "%s over %s", group, running->name);
		failed += running->dpdk ? apart_run(name, tests, n) : _cmocka_run_group_tests(name, tests, n, NULL, NULL);
	}
	return failed;
}

/* ---- turning ---- */

void rig_wait(struct rig *r, uint64_t timeout_ns)
{
	if (r->net)
		timeout_ns = net_turn(r->net, timeout_ns);
	if (r->sim)
		(void)sim_wait(r->sim, timeout_ns);
	else
		assert_ok(uring_wait(&r->uring, timeout_ns));
}

void rig_turn(struct rig *r)
{
	if (r->net)
		net_poll(r->net);
	rig_wait(r, 2 * NS_PER_MS);
}

void rig_rest(struct rig *r)
{
	uint64_t end = clock_mono_ns() + 60 * NS_PER_MS;

	while (clock_mono_ns() < end)
		rig_turn(r);
}

void rig_listen(struct rig *r, struct tls_context *t)
{
	struct net_listen l = { .fd = -1 };

	r->tls_accepted = t;
	if (r->t->dpdk)
		apart_listen(&l, &r->at);
	else
		l.fd = r->listener = r->t->peer->listen(&r->at);
	assert_ok(net_listen(r->net, &l, 0));
	rig_turn(r);
}

struct rig_conn *rig_accepted(struct rig *r)
{
	unsigned before = r->nconns;

	assert_int_equal(r->t->peer->dial(&r->peer, &r->at), 0);
	RIG_UNTIL(r, r->nconns > before);
	return &r->conn[before];
}

struct rig_conn *rig_connect(struct rig *r, const struct sockaddr_storage *to)
{
	struct rig_conn *c = conn_add(r, NULL);

	assert_ok(net_connect(r->net, (const struct sockaddr *)to, NULL, c, &c->conn));
	return c;
}

struct rig_conn *rig_connected(struct rig *r)
{
	struct rig_conn *c;

	r->listener = r->t->peer->listen(&r->at);
	c = rig_connect(r, &r->at);
	RIG_UNTIL(r, c->connected);
	RIG_UNTIL(r, r->t->peer->accept(&r->peer, r->listener) == 0);
	return c;
}

void rig_closed(struct rig *r, struct rig_conn *c)
{
	RIG_UNTIL(r, c->closed);
}

void rig_peer_write(struct rig *r, struct span s)
{
	while (s.n) {
		ssize_t n = 0;

		RIG_UNTIL(r, (n = r->peer.ops->write(&r->peer, s)) > 0);
		s = span_skip(s, (size_t)n);
	}
}

size_t rig_peer_read_all(struct rig *r, char *buf, size_t cap, ssize_t *ret_end)
{
	size_t got = 0;

	for (;;) {
		ssize_t n = -EAGAIN;

		RIG_UNTIL(r, (n = r->peer.ops->read(&r->peer, buf + got, cap - got)) != -EAGAIN);
		*ret_end = n;
		if (n <= 0)
			return got;
		got += (size_t)n;
		assert_true(got < cap);
	}
}

void rig_peer_read(struct rig *r, char *buf, size_t n)
{
	size_t got = 0;

	while (got < n) {
		ssize_t k = 0;

		RIG_UNTIL(r, (k = r->peer.ops->read(&r->peer, buf + got, n - got)) != -EAGAIN);
		assert_true(k > 0);
		got += (size_t)k;
	}
}

void rig_peer_tls_read(struct rig *r, char *buf, size_t n)
{
	size_t got = 0;

	RIG_UNTIL(r, (got += peer_tls_turn(&r->peer, buf + got, n - got)) == n);
}

void rig_pattern(char *buf, size_t n, uint64_t at)
{
	for (size_t i = 0; i < n; i++, at++)
		buf[i] = (char)(at * 31 + (at >> 8) * 17 + (at >> 16));
}
