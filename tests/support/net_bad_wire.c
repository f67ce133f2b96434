#include "tests/support/net_bad_wire.h"

#include <stdalign.h>
#include <string.h>
#include "dataplane/net/net_dpdk_port.h"
#include "spool/base/clock.h"

enum { WAITING_MAX = 1024, FRAME_MAX = 2048, LOST_PERMILLE = 10, TWICE_PERMILLE = 30, LATE_PERMILLE = 50 };
#define DELAY_NS (NS_PER_MS)
#define LATE_NS (3 * NS_PER_MS)

/* A frame of our own: its own address is what the stack gives back. */
struct waiting {
	uint64_t due_ns;
	struct waiting *next;
	uint16_t len;
	alignas(16) uint8_t own[PORT_PRIVATE];
	uint8_t data[FRAME_MAX];
};

static struct {
	bool on;
	uint64_t random;
	struct waiting all[WAITING_MAX], *unused, *first; /* first: by due_ns */
} wire;

/* weak: not there in a build without DPDK, which never begins */
unsigned __real_port_receive(struct port_frame f[PORT_BURST]) __attribute__((weak));
void __real_port_free(void *mbuf) __attribute__((weak));
void __real_port_send(void *mbuf, bool checksums) __attribute__((weak));
unsigned __wrap_port_receive(struct port_frame f[PORT_BURST]);
void __wrap_port_free(void *mbuf);
void __wrap_port_send(void *mbuf, bool checksums);

void bad_wire_begin(void)
{
	wire.random = 88172645463325252;
	for (size_t i = 0; i < WAITING_MAX; i++) {
		wire.all[i].next = wire.unused;
		wire.unused = &wire.all[i];
	}
	wire.on = true;
}

static bool by_chance(unsigned permille)
{
	wire.random ^= wire.random << 13; /* xorshift64 */
	wire.random ^= wire.random >> 7;
	wire.random ^= wire.random << 17;
	return wire.random % 1000 < permille;
}

static void put(const struct port_frame *f, uint64_t due_ns)
{
	struct waiting *w = wire.unused, **at = &wire.first;

	if (!w || f->len > FRAME_MAX)
		return; /* lost */
	wire.unused = w->next;
	w->due_ns = due_ns;
	w->len = f->len;
	memcpy(w->data, f->data, f->len);
	while (*at && (*at)->due_ns <= due_ns)
		at = &(*at)->next;
	w->next = *at;
	*at = w;
}

unsigned __wrap_port_receive(struct port_frame f[PORT_BURST])
{
	unsigned n = __real_port_receive(f), out = 0;
	uint64_t now = clock_mono_ns();
	struct waiting *w;

	if (!wire.on)
		return n;
	for (unsigned i = 0; i < n; i++) {
		uint64_t due = now + DELAY_NS + (by_chance(LATE_PERMILLE) ? LATE_NS : 0);

		if (!by_chance(LOST_PERMILLE))
			put(&f[i], due);
		if (by_chance(TWICE_PERMILLE))
			put(&f[i], due + DELAY_NS / 2);
		__real_port_free(f[i].mbuf);
	}
	for (; out < PORT_BURST && (w = wire.first) && w->due_ns <= now; out++) {
		wire.first = w->next;
		f[out] = (struct port_frame){ .data = w->data, .len = w->len, .mbuf = w, .own = w->own };
	}
	return out;
}

void __wrap_port_free(void *mbuf)
{
	struct waiting *w = mbuf;

	if (w < wire.all || w >= wire.all + WAITING_MAX) {
		__real_port_free(mbuf);
		return;
	}
	w->next = wire.unused;
	wire.unused = w;
}

void __wrap_port_send(void *mbuf, bool checksums)
{
	if (wire.on && by_chance(LOST_PERMILLE))
		__real_port_free(mbuf);
	else
		__real_port_send(mbuf, checksums);
}
