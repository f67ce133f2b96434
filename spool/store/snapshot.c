#include "spool/store/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include "spool/base/hash.h"
#include "spool/mail/address.h"
#include "spool/store/tls_file.h"

/* ---- checking: everything once, so that nothing need be checked later ---- */

static bool str_ok(const struct snapshot *s, struct snap_str v)
{
	return v.off >= sizeof(struct snap_header) && v.off < s->bytes && v.len < s->bytes - v.off &&
		((const char *)s->h)[v.off + v.len] == '\0';
}

static bool list_ok(const struct snapshot *s, struct snap_list l, size_t item)
{
	return l.n == 0 || (l.off >= sizeof(struct snap_header) && l.off % 8 == 0 && l.off < s->bytes && l.n <= (s->bytes - l.off) / item);
}

static const void *list_at(const struct snapshot *s, struct snap_list l)
{
	return (const char *)s->h + l.off;
}

static bool hosts_ok(const struct snapshot *s, struct snap_list l)
{
	const struct snap_host *h = list_at(s, l);

	if (!list_ok(s, l, sizeof(*h)))
		return false;
	for (uint32_t i = 0; i < l.n; i++)
		if (!str_ok(s, h[i].name) || h[i].port > 65535)
			return false;
	return true;
}

static bool settings_strings_ok(const struct snapshot *s)
{
	const struct snap_settings *set = &s->h->settings;
	const struct snap_str all[] = { set->hostname, set->node, set->postmaster, set->run_dir, set->spool_dir, set->tls_cert, set->tls_key,
		set->redis, set->user, set->signatures, set->engine, set->metrics, set->auth_file, set->auth_dovecot, set->auth_secret, set->ca_file,
		set->dpdk_devices, set->dpdk_ip4, set->dpdk_ip6, set->dpdk_gateway4, set->dpdk_gateway6, set->dpdk_kernel, set->tls_ciphers, set->tls_ticket_file,
		set->managed_dir, set->clients_dir, set->clients_file, set->managed_exchangers, set->policy_help_url, set->config_file };

	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
		if (!str_ok(s, all[i]))
			return false;
	return true;
}

static bool certs_ok(const struct snapshot *s)
{
	const struct snap_list l = s->h->settings.tls_certs;
	const struct snap_cert *c = list_at(s, l);

	if (!list_ok(s, l, sizeof(*c)) || l.n > TLS_CERTS_MAX)
		return false;
	for (uint32_t i = 0; i < l.n; i++)
		if (!str_ok(s, c[i].certificate) || !str_ok(s, c[i].key))
			return false;
	return true;
}

static bool logins_ok(const struct snapshot *s)
{
	const struct snap_list l = s->h->settings.client_logins;
	const struct snap_login *a = list_at(s, l);

	if (!list_ok(s, l, sizeof(*a)) || l.n > TLS_LOGINS_MAX)
		return false;
	for (uint32_t i = 0; i < l.n; i++)
		if (!str_ok(s, a[i].user) || !str_ok(s, a[i].password_file))
			return false;
	return true;
}

static bool ranges_ok(const struct snapshot *s, struct snap_list list)
{
	const struct snap_range *r = list_at(s, list);

	if (!list_ok(s, list, sizeof(*r)))
		return false;
	for (uint32_t i = 0; i < list.n; i++)
		if (r[i].prefix > 128)
			return false;
	return true;
}

static bool auth_ok(const struct snapshot *s)
{
	const struct snap_settings *set = &s->h->settings;
	const struct snap_listener *l = list_at(s, set->listeners);
	const struct snap_senders *user = list_at(s, set->auth_senders);

	if (!list_ok(s, set->auth_mechs, sizeof(uint32_t)) || !list_ok(s, set->auth_senders, sizeof(*user)))
		return false;
	for (uint32_t i = 0; i < set->listeners.n; i++)
		if (l[i].role >= ROLE_NROLE || l[i].bare_lf > BARE_LF_NORMALISE || l[i].proxy > 1 || (l[i].role == ROLE_SUBMISSIONS && !l[i].tls_implicit))
			return false;
	for (uint32_t i = 0; i < set->auth_senders.n; i++) {
		const struct snap_str *a = list_at(s, user[i].senders);

		if (!str_ok(s, user[i].user) || !list_ok(s, user[i].senders, sizeof(*a)))
			return false;
		for (uint32_t k = 0; k < user[i].senders.n; k++)
			if (!str_ok(s, a[k]))
				return false;
	}
	return true;
}

static bool tables_ok(const struct snapshot *s)
{
	const struct snap_settings *set = &s->h->settings;
	const struct snap_net *net = list_at(s, set->nets);
	const struct snap_domain *d = list_at(s, set->domains);
	const struct snap_route *r = list_at(s, set->routes);
	const struct snap_mail_domain *m = list_at(s, set->mail_domains);

	if (set->registry_off > s->bytes || !list_ok(s, set->relay_nets, sizeof(*net)) || !list_ok(s, set->listeners, sizeof(struct snap_listener)) || !list_ok(s, set->nets, sizeof(*net)) ||
		!list_ok(s, set->domains, sizeof(*d)) || !list_ok(s, set->routes, sizeof(*r)) ||
		!list_ok(s, set->mail_domains, sizeof(*m)) || !hosts_ok(s, set->dns_servers))
		return false;
	for (uint32_t i = 0; i < set->nets.n; i++)
		if (!str_ok(s, net[i].name) || !str_ok(s, net[i].owner) || !str_ok(s, net[i].note) || net[i].prefix > 128 || net[i].class_ > CLASS_SUBMISSION)
			return false;
	for (uint32_t i = 0; i < set->domains.n; i++)
		if (!str_ok(s, d[i].name))
			return false;
	for (uint32_t i = 0; i < set->mail_domains.n; i++)
		if (!str_ok(s, m[i].name) || !str_ok(s, m[i].value) || !str_ok(s, m[i].forwarding) || m[i].kind >= DOMAIN_NKIND)
			return false;
	for (uint32_t i = 0; i < set->routes.n; i++)
		if (!str_ok(s, r[i].name) || !hosts_ok(s, r[i].hosts) || r[i].kind > ROUTE_LMTP || r[i].tls > SNAP_TLS_VERIFY ||
			(r[i].kind != ROUTE_MX && !r[i].hosts.n) || !str_ok(s, r[i].hold_reason) || !str_ok(s, r[i].user) || !str_ok(s, r[i].password_file) || !ranges_ok(s, r[i].sources))
			return false;
	return set->workers && set->partitions && set->listeners.n <= 64 && ranges_ok(s, set->balancers) && ranges_ok(s, set->xclient_clients) && ranges_ok(s, set->sources) && auth_ok(s) &&
		certs_ok(s) && logins_ok(s);
}

static bool policy_ok(const struct snapshot *s)
{
	const struct snap_settings *set = &s->h->settings;

	for (unsigned r = 0; r < RULE_NRULE; r++)
		for (unsigned c = 0; c < CLASS_NCLASS; c++)
			if (set->policy_mode[r][c] >= POLICY_NMODE || !(rule_row[r].allowed & 1u << set->policy_mode[r][c]))
				return false;
	return list_ok(s, set->policy_rules, sizeof(struct snap_policy));
}

static enum status check(const struct snapshot *s, const char *path)
{
	const struct snap_header *h = s->h;

	if (s->bytes < sizeof(*h) || h->magic != SNAPSHOT_MAGIC)
		return trail(ST_CORRUPT, "%s is not a configuration snapshot", path);
	if (h->version != SNAPSHOT_VERSION || h->settings_size != sizeof(struct snap_settings))
		return trail(ST_UNSUPPORTED, "%s was made by another version of weir-control", path);
	if (h->bytes != s->bytes ||
		h->checksum != XXH3_64bits((const char *)h + offsetof(struct snap_header, generation),
			s->bytes - offsetof(struct snap_header, generation)))
		return trail(ST_CORRUPT, "%s is damaged", path);
	return settings_strings_ok(s) && tables_ok(s) && policy_ok(s) ? ST_OK : trail(ST_CORRUPT, "%s has references that lead nowhere", path);
}

enum status snapshot_open(const char *path, struct snapshot *ret)
{
	struct snapshot s = { 0 };
	struct stat st;
	enum status r;
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return trail_errno(errno, "%s", path);
	if (fstat(fd, &st) < 0 || st.st_size < (off_t)sizeof(struct snap_header)) {
		close(fd);
		return trail(ST_CORRUPT, "%s is not a configuration snapshot", path);
	}
	s.bytes = (size_t)st.st_size;
	s.h = mmap(NULL, s.bytes, PROT_READ, MAP_PRIVATE, fd, 0);
	close(fd);
	if (s.h == MAP_FAILED)
		return trail_errno(errno, "%s", path);
	r = check(&s, path);
	if (r != ST_OK) {
		snapshot_close(&s);
		return r;
	}
	*ret = s;
	return ST_OK;
}

void snapshot_close(struct snapshot *s)
{
	munmap((void *)(uintptr_t)s->h, s->bytes);
	s->h = NULL;
}

/* ---- reading ---- */

const char *snap_cstr(const struct snapshot *s, struct snap_str v)
{
	return (const char *)s->h + v.off;
}

struct span snap_span(const struct snapshot *s, struct snap_str v)
{
	return span_of(snap_cstr(s, v), v.len);
}

const struct snap_listener *snap_listeners(const struct snapshot *s, uint32_t *ret_n)
{
	*ret_n = s->h->settings.listeners.n;
	return list_at(s, s->h->settings.listeners);
}

const struct snap_host *snap_hosts(const struct snapshot *s, struct snap_list l, uint32_t *ret_n)
{
	*ret_n = l.n;
	return list_at(s, l);
}

enum policy_mode snap_policy_mode(const struct snapshot *s, enum rule r, enum snap_class class)
{
	return (enum policy_mode)s->h->settings.policy_mode[r][class];
}

static int by_prefix(const struct snap_net *n, unsigned prefix, const uint8_t ip[16])
{
	return n->prefix != prefix ? (n->prefix > prefix ? -1 : 1) : memcmp(n->ip, ip, 16);
}

/* The place of the first row that is not before (prefix, ip). */
static uint32_t net_place(const struct snap_net *net, uint32_t n, unsigned prefix, const uint8_t ip[16])
{
	uint32_t low = 0, high = n;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;

		if (by_prefix(&net[mid], prefix, ip) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

/* One search a length that there is: a registry has thousands of addresses, but few lengths. */
const struct snap_net *snap_find_net(const struct snapshot *s, const uint8_t ip[16])
{
	uint32_t n, i = 0;
	const struct snap_net *net = snap_nets(s, &n);

	while (i < n) {
		unsigned prefix = net[i].prefix;
		uint8_t at[16];

		net_mask(ip, prefix, at);
		i = net_place(net, n, prefix, at);
		if (i < n && by_prefix(&net[i], prefix, at) == 0)
			return &net[i];
		memset(at, 0xff, sizeof(at));
		i = net_place(net, n, prefix, at);
		i += i < n && by_prefix(&net[i], prefix, at) == 0;
	}
	return NULL;
}

const struct snap_net *snap_find_client(const struct snapshot *s, const uint8_t ip[16], uint64_t now_s, const struct snap_net **ret_expired)
{
	const struct snap_net *n = snap_find_net(s, ip);

	*ret_expired = n && n->expires_s && n->expires_s <= now_s ? n : NULL;
	return *ret_expired ? NULL : n;
}

const struct snap_net *snap_nets(const struct snapshot *s, uint32_t *ret_n)
{
	*ret_n = s->h->settings.nets.n;
	return list_at(s, s->h->settings.nets);
}

static bool in_ranges(const struct snapshot *s, struct snap_list list, const uint8_t ip[16])
{
	const struct snap_range *r = list_at(s, list);

	for (uint32_t i = 0; i < list.n; i++)
		if (net_contains(r[i].ip, r[i].prefix, ip))
			return true;
	return false;
}

bool snap_is_balancer(const struct snapshot *s, const uint8_t ip[16])
{
	return in_ranges(s, s->h->settings.balancers, ip);
}

bool snap_may_xclient(const struct snapshot *s, const uint8_t ip[16])
{
	return in_ranges(s, s->h->settings.xclient_clients, ip);
}

static int compare(struct span a, struct span b)
{
	int c = memcmp(a.p, b.p, a.n < b.n ? a.n : b.n);

	return c ? c : a.n < b.n ? -1 : a.n > b.n;
}

/* Binary search; the name is the first member of every row. */
static const void *find(const struct snapshot *s, struct snap_list l, size_t size, struct span name)
{
	uint32_t low = 0, high = l.n;

	while (low < high) {
		uint32_t mid = low + (high - low) / 2;
		const void *row = (const char *)list_at(s, l) + mid * size;
		int c = compare(name, snap_span(s, *(const struct snap_str *)row));

		if (c == 0)
			return row;
		if (c < 0)
			high = mid;
		else
			low = mid + 1;
	}
	return NULL;
}

const struct snap_domain *snap_find_domain(const struct snapshot *s, struct span domain)
{
	return find(s, s->h->settings.domains, sizeof(struct snap_domain), domain);
}

const struct snap_mail_domain *snap_mail_domains(const struct snapshot *s, uint32_t *ret_n)
{
	*ret_n = s->h->settings.mail_domains.n;
	return list_at(s, s->h->settings.mail_domains);
}

const struct snap_mail_domain *snap_find_mail_domain(const struct snapshot *s, struct span domain)
{
	return find(s, s->h->settings.mail_domains, sizeof(struct snap_mail_domain), domain);
}

const struct snap_route *snap_find_route(const struct snapshot *s, struct span domain)
{
	struct snap_list l = s->h->settings.routes;
	const struct snap_route *r = find(s, l, sizeof(*r), domain);

	for (size_t i = 1; i < domain.n && !r; i++)
		if (domain.p[i] == '.')
			r = find(s, l, sizeof(*r), span_skip(domain, i));
	return r ? r : find(s, l, sizeof(*r), SPAN("*"));
}

const struct snap_route *snap_find_moved(const struct snapshot *s, struct span domain)
{
	char name[ADDRESS_DOMAIN_MAX + 2];
	struct out o = out_of(name, sizeof(name));

	out_char(&o, '@');
	out_add(&o, domain);
	return o.over ? NULL : find(s, s->h->settings.routes, sizeof(struct snap_route), out_span(&o));
}

const struct snap_route *snap_routes(const struct snapshot *s, uint32_t *ret_n)
{
	*ret_n = s->h->settings.routes.n;
	return list_at(s, s->h->settings.routes);
}

const struct snap_range *snap_ranges(const struct snapshot *s, struct snap_list l, uint32_t *ret_n)
{
	*ret_n = l.n;
	return list_at(s, l);
}

const struct snap_login *snap_logins(const struct snapshot *s, uint32_t *ret_n)
{
	*ret_n = s->h->settings.client_logins.n;
	return list_at(s, s->h->settings.client_logins);
}

bool snap_route_is(const struct snapshot *s, struct span name)
{
	return find(s, s->h->settings.routes, sizeof(struct snap_route), name) != NULL;
}

unsigned snap_mechs(const struct snapshot *s)
{
	const uint32_t *mech = list_at(s, s->h->settings.auth_mechs);
	unsigned bits = 0;

	for (uint32_t i = 0; i < s->h->settings.auth_mechs.n; i++)
		bits |= mech[i];
	return bits;
}

const struct snap_senders *snap_find_senders(const struct snapshot *s, struct span user)
{
	return find(s, s->h->settings.auth_senders, sizeof(struct snap_senders), user);
}

bool snap_sender_in(const struct snapshot *s, const struct snap_senders *l, struct span local, struct span domain)
{
	const struct snap_str *a = list_at(s, l->senders);

	for (uint32_t i = 0; i < l->senders.n; i++) {
		struct span text = snap_span(s, a[i]), rest = text;
		const char *at = memrchr(text.p, '@', text.n);

		if (span_eq(text, SPAN("*")))
			return true;
		if (!at)
			continue;
		rest = span_of(text.p, (size_t)(at - text.p));
		/* our own local parts are the same in any case (C6) */
		if (span_eq(span_skip(text, rest.n + 1), domain) && (!rest.n || span_eq_nocase(rest, local)))
			return true;
	}
	return false;
}

bool snap_wants_verified(const struct snapshot *s, struct span domain)
{
	const struct snap_mail_domain *d = snap_find_mail_domain(s, domain);
	const struct snap_route *r;

	if (d && d->recipients != RECIPIENTS_UNSAID)
		return d->recipients == RECIPIENTS_VERIFY;
	r = snap_find_route(s, domain);
	return r && r->recipients == RECIPIENTS_VERIFY;
}
