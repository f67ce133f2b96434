#include "spool/store/snap_dpdk.h"

#include <string.h>
#include "spool/mail/address.h"

/* The text with the worker's number for each %w, NUL-terminated. False: too long. */
static bool expand(struct span text, uint32_t worker, char *buf, size_t cap)
{
	struct out o = out_of(buf, cap - 1);

	for (size_t i = 0; i < text.n; i++)
		if (text.p[i] == '%' && i + 1 < text.n && text.p[i + 1] == 'w') {
			out_u64(&o, worker);
			i++;
		} else {
			out_char(&o, text.p[i]);
		}
	buf[o.n] = '\0';
	return !o.over;
}

static enum status devices(struct span text, uint32_t worker, struct snap_dpdk *ret)
{
	while (text.n) {
		struct span device = span_cut(&text, ' ');

		if (!device.n)
			continue;
		if (ret->ndevices == SNAP_DEVICES_MAX || !expand(device, worker, ret->device[ret->ndevices++], SNAP_DEVICE_LEN))
			return trail(ST_INVALID, "dpdk.devices: at most %d devices of %d characters", SNAP_DEVICES_MAX, SNAP_DEVICE_LEN - 1);
	}
	return ret->ndevices ? ST_OK : trail(ST_INVALID, "dpdk.devices is empty; write for example net_af_packet0,iface=eth%%w");
}

static bool is_v4(const uint8_t ip[16])
{
	static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

	return memcmp(ip, mapped, sizeof(mapped)) == 0;
}

/* ADDRESS/PREFIX; empty: none. */
static enum status address(const char *key, struct span text, uint32_t worker, bool v4, uint8_t ret_ip[16], unsigned *ret_prefix, bool *ret_has)
{
	char buf[80];
	struct span rest, ip;
	uint64_t prefix = 0, most = v4 ? 32 : 64, least = v4 ? 1 : 64;

	*ret_has = text.n > 0;
	if (!text.n)
		return ST_OK;
	if (!expand(text, worker, buf, sizeof(buf)))
		return trail(ST_INVALID, "%s is too long", key);
	rest = span_str(buf);
	ip = span_cut(&rest, '/');
	if (ip_parse(ip, ret_ip) != ST_OK || is_v4(ret_ip) != v4 || !span_u64(rest, most, &prefix) || prefix < least)
		return trail(ST_INVALID, "%s: \"%s\" is not possible; write for example %s", key, buf, v4 ? "192.0.2.1%w/24" : "2001:db8::1%w/64");
	*ret_prefix = (unsigned)prefix;
	return ST_OK;
}

/* An address that is the same for every worker is that of one device with a queue for each. */
static bool is_same_for_all(struct span text)
{
	char a[80], b[80];

	return expand(text, 0, a, sizeof(a)) && expand(text, 1, b, sizeof(b)) && strcmp(a, b) == 0;
}

static enum status sharing(struct span ip4, struct span ip6, struct snap_dpdk *ret)
{
	bool same4 = ret->has_ip4 && is_same_for_all(ip4), same6 = ret->has_ip6 && is_same_for_all(ip6);

	if (ret->workers < 2 || (!same4 && !same6))
		return ST_OK;
	if (same4 != ret->has_ip4 || same6 != ret->has_ip6)
		return trail(ST_INVALID, "dpdk.ipv4 and dpdk.ipv6: either both are different for each worker (%%w) or none is");
	ret->shared = true;
	return ST_OK;
}

/* The kernel's interface: one for each device. */
static enum status interface(struct span text, struct snap_dpdk *ret)
{
	char other[SNAP_INTERFACE_LEN];
	bool good = expand(text, ret->worker, ret->kernel, sizeof(ret->kernel)) && expand(text, ret->worker + 1, other, sizeof(other));

	for (const char *p = ret->kernel; good && *p; p++)
		good = strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-.", *p) != NULL;
	if (!good)
		return trail(ST_INVALID, "dpdk.kernel: \"%.*s\" is not the name of an interface: at most %d letters, digits, - _ .", SPAN_FMT(text), SNAP_INTERFACE_LEN - 1);
	if (text.n && ret->workers > 1 && (strcmp(ret->kernel, other) == 0) != ret->shared)
		return trail(ST_INVALID, ret->shared ? "dpdk.kernel: all workers have one device, so there is one interface; write for example weir, without %%w"
						     : "dpdk.kernel: each worker has a device of its own, so each needs an interface of its own; write for example weir%%w");
	return ST_OK;
}

static enum status gateway(const char *key, struct span text, uint32_t worker, bool v4, bool has_address, uint8_t ret_ip[16], bool *ret_has)
{
	char buf[80];

	*ret_has = text.n > 0;
	if (!text.n)
		return ST_OK;
	if (!expand(text, worker, buf, sizeof(buf)))
		return trail(ST_INVALID, "%s is too long", key);
	if (ip_parse(span_str(buf), ret_ip) != ST_OK || is_v4(ret_ip) != v4)
		return trail(ST_INVALID, "%s: \"%s\" is not an address; write for example %s", key, buf, v4 ? "192.0.2.1" : "fe80::1");
	return has_address ? ST_OK : trail(ST_INVALID, "%s is there without an address of its family", key);
}

enum status snap_dpdk(const struct snapshot *s, uint32_t worker, struct snap_dpdk *ret)
{
	const struct snap_settings *set = &s->h->settings;
	unsigned prefix;
	enum status st;

	*ret = (struct snap_dpdk){ .mtu = set->dpdk_mtu, .hugepages = set->dpdk_hugepages, .worker = worker, .workers = set->workers };
	if ((st = devices(snap_span(s, set->dpdk_devices), worker, ret)) != ST_OK)
		return st;
	if ((st = address("dpdk.ipv4", snap_span(s, set->dpdk_ip4), worker, true, ret->ip4, &ret->prefix4, &ret->has_ip4)) != ST_OK ||
		(st = address("dpdk.ipv6", snap_span(s, set->dpdk_ip6), worker, false, ret->ip6, &prefix, &ret->has_ip6)) != ST_OK)
		return st;
	if (!ret->has_ip4 && !ret->has_ip6)
		return trail(ST_INVALID, "dpdk.ipv4 and dpdk.ipv6 are empty: DPDK needs an address of its own");
	if ((st = sharing(snap_span(s, set->dpdk_ip4), snap_span(s, set->dpdk_ip6), ret)) != ST_OK || (st = interface(snap_span(s, set->dpdk_kernel), ret)) != ST_OK)
		return st;
	st = gateway("dpdk.gateway4", snap_span(s, set->dpdk_gateway4), worker, true, ret->has_ip4, ret->gateway4, &ret->has_gateway4);
	if (st != ST_OK)
		return st;
	return gateway("dpdk.gateway6", snap_span(s, set->dpdk_gateway6), worker, false, ret->has_ip6, ret->gateway6, &ret->has_gateway6);
}

static bool is_any(const uint8_t ip[16])
{
	static const uint8_t any4[16] = { [10] = 0xff, [11] = 0xff }, any6[16];

	return memcmp(ip, is_v4(ip) ? any4 : any6, 16) == 0;
}

bool snap_dpdk_has(const struct snap_dpdk *d, const uint8_t ip[16])
{
	bool v4 = is_v4(ip);

	return (v4 ? d->has_ip4 : d->has_ip6) && (is_any(ip) || memcmp(v4 ? d->ip4 : d->ip6, ip, 16) == 0);
}

enum status snap_dpdk_listens(const struct snapshot *s, const struct snap_dpdk *d)
{
	uint32_t n, good = 0;
	const struct snap_listener *l = snap_listeners(s, &n);

	for (uint32_t i = 0; i < n; i++) {
		char ip[64];
		struct out o = out_of(ip, sizeof(ip) - 1);

		ip_write(l[i].ip, &o);
		ip[o.n] = '\0';
		if (snap_dpdk_has(d, l[i].ip))
			good++;
		else if (!is_any(l[i].ip))
			return trail(ST_INVALID, "listen: %s is not the address that DPDK has (dpdk.ipv4, dpdk.ipv6); write 0.0.0.0 or ::", ip);
	}
	return good ? ST_OK : trail(ST_INVALID, "listen: DPDK has no address of the family of any entry (dpdk.ipv4, dpdk.ipv6)");
}
