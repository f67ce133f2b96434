/* What follows from the machine and from other values, and what single values cannot show. */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>
#include "control/model.h"
#include "spool/mail/address.h"
#include "spool/store/snap_dpdk.h"

/* What follows from the machine and from other values. */
void model_derive(struct model *m, const char *run_dir)
{
	char host[256] = "localhost", exe[4096] = "";
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t memory = (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE);
	struct snap_settings *s = model_settings(m);

	gethostname(host, sizeof(host) - 1);
	if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) > 0 && strrchr(exe, '/'))
		*strrchr(exe, '/') = '\0';
	s->workers = s->workers ? s->workers : cores > 0 ? (uint32_t)cores : 1;
	s->partitions = s->partitions ? s->partitions : s->workers;
	s->scanners = s->scanners ? s->scanners : cores > 0 ? (uint32_t)cores : 1;
	if (!s->arena_bytes) {
		s->arena_bytes = memory / 16;
		if (s->arena_bytes > 512ull << 20)
			s->arena_bytes = 512ull << 20;
	}
	model_default(m, offsetof(struct snap_settings, hostname), "%s", host);
	s = model_settings(m);
	model_default(m, offsetof(struct snap_settings, node), "%.*s", (int)strcspn(m->bytes + s->hostname.off, "."), m->bytes + s->hostname.off);
	model_default(m, offsetof(struct snap_settings, run_dir), "%s", run_dir);
	model_default(m, offsetof(struct snap_settings, spool_dir), "%s/spool", run_dir);
	model_default(m, offsetof(struct snap_settings, clients_dir), "%s/clients", run_dir);
	model_default(m, offsetof(struct snap_settings, managed_dir), "%s/domains", run_dir);
	model_default(m, offsetof(struct snap_settings, managed_exchangers), "%s", m->bytes + model_settings(m)->hostname.off);
	model_default(m, offsetof(struct snap_settings, auth_secret), "%s/auth-secret", run_dir);
	model_default(m, offsetof(struct snap_settings, redis), "unix:%s/redis.sock", run_dir);
	model_default(m, offsetof(struct snap_settings, signatures), "%s/signatures", exe);
	s = model_settings(m);
	if (!s->tls_cert.len && !s->tls_key.len && !s->tls_certs.n) {
		char cert[4096];

		snprintf(cert, sizeof(cert), "%s/tls-cert.pem", run_dir);
		if (access(cert, R_OK) == 0) {
			model_default(m, offsetof(struct snap_settings, tls_cert), "%s", cert);
			model_default(m, offsetof(struct snap_settings, tls_key), "%s/tls-key.pem", run_dir);
		}
	}
}

/* Each worker's device and addresses. */
static void check_dpdk(struct model *m)
{
	const struct snapshot s = { .h = (const struct snap_header *)(const void *)m->bytes, .bytes = m->n };
	struct snap_dpdk d;

	if (*WEIR_NO_DPDK)
		complain_line(m, key_line(m, "transport"), "transport: this build has no DPDK: %s", WEIR_NO_DPDK);
	for (uint32_t w = 0; w < s.h->settings.workers; w++)
		if (snap_dpdk(&s, w, &d) != ST_OK || snap_dpdk_listens(&s, &d) != ST_OK) {
			complain_line(m, key_line(m, "transport"), "%s (worker %u)", trail_text(), w);
			return;
		}
}

/* What single values cannot show. */
void model_together(struct model *m)
{
	const struct snap_settings *s = model_settings(m);
	const char *host = m->bytes + s->hostname.off;

	if (!address_domain_ok(span_str(host), false))
		complain_line(m, key_line(m, "hostname"), "hostname: \"%s\" is not a host name", host);
	if (!s->listeners.n)
		complain_line(m, key_line(m, "listen"), "listen: at least one address is needed");
	listeners_together(m);
	auth_together(m);
	verify_together(m);
	if (s->spill_bytes > s->segment_bytes / 4)
		complain_line(m, key_line(m, "spool.spill"), "spool.spill must be at most a quarter of spool.segment");
	if (s->retry_first_ns > s->retry_max_ns)
		complain_line(m, key_line(m, "delivery.retry_first"), "delivery.retry_first must not be longer than delivery.retry_max");
	if (s->transport) /* not io_uring */
		check_dpdk(m);
	if (s->postmaster.len) {
		struct address a;

		if (address_parse(span_str(m->bytes + s->postmaster.off), 0, &a) != ST_OK)
			complain_line(m, key_line(m, "postmaster"), "postmaster: \"%s\" is not an address: %s", m->bytes + s->postmaster.off, trail_text());
	}
}
