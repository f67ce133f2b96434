/* A frame is read within its bounds, only a whole TCP header gives a flow, and the kernel gets nothing that is cut off or for another host. The first 6 octets are our own address. */
#include <string.h>
#include "dataplane/net/net_dpdk_frame.h"
#include "spool/base/status.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
	struct frame_own own = { .mtu = 1500, .has4 = true, .has6 = true };
	struct frame f;

	if (n < 6)
		return 0;
	memcpy(own.mac, data, 6);
	for (size_t len = 0; len <= n - 6; len++) {
		enum frame_kind kind = frame_look(data + 6, len, &own, &f);

		CHECK(kind != FRAME_FLOW || len >= 14 + 20 + 20);
		CHECK(frame_whose(data + 6, len, &own) == FRAME_OURS || (len >= 14 && ((data[6] & 1) || memcmp(data, data + 6, 6) == 0)));
		CHECK(kind == FRAME_DROP || (data[6] & 1) || memcmp(data, data + 6, 6) == 0);
	}
	return 0;
}
