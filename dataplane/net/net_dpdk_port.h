/* A DPDK port as frames in and frames out: the only code that includes DPDK. It knows nothing of IP or TCP.
 *
 * Every worker is a primary process of its own with its own device or queue. Frames are lent: a received one until port_free.
 *
 * Thread: one. Fails: a start says in the trail what DPDK said; later a frame that cannot be sent is counted and lost, which TCP repairs. */
#ifndef WEIR_DATAPLANE_NET_NET_DPDK_PORT_H
#define WEIR_DATAPLANE_NET_NET_DPDK_PORT_H

#include <stdbool.h>
#include <stdint.h>
#include "dataplane/net/net.h"

enum { PORT_BURST = 64, PORT_PRIVATE = 64, PORT_MBUFS = 16384 };

struct port_frame {
	uint8_t *data;
	uint16_t len;
	bool checked;  /* the device found IP and TCP checksums right */
	void *mbuf;
	void *own;     /* PORT_PRIVATE octets for the receiver, as long as the frame lives */
};

struct port_stats {
	uint64_t rx_frames, rx_octets, tx_frames, tx_octets;
	uint64_t rx_missed;    /* the device had no buffer for them */
	uint64_t rx_bad;       /* by the device, or checksums it found wrong */
	uint64_t tx_lost;      /* nobody took them, or no buffer */
	uint32_t mbufs, mbufs_used;
};

/* Starts DPDK and the port. Needs the privileges of the device (af_packet, af_xdp: NET_RAW and NET_ADMIN), which may be given up afterwards. */
enum status port_open(const struct snap_dpdk *cfg);
void port_close(void);
const uint8_t *port_mac(void);
/* Whether frames may go out with empty IPv4 and TCP checksums, for the device to fill in. */
bool port_fills_checksums(void);
unsigned port_receive(struct port_frame f[PORT_BURST]);
void port_free(void *mbuf);
/* Room for a frame of len octets; NULL: none. Then port_send; checksums: the device is to fill them in. */
uint8_t *port_room(uint32_t len, void **ret_mbuf);
void port_send(void *mbuf, bool checksums);
/* Gives what was sent to the device. */
void port_flush(void);
/* True when mbufs are short: then frames are better copied than kept. */
bool port_is_short(void);
void port_stats(struct port_stats *ret);

#endif
