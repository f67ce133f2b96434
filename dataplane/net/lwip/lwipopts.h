/* Weir's options for lwIP, which deploy/build-lwip compiles from Debian's source package.
 *
 * One stack a worker process, driven from its poll loop through the raw API: no threads, no sockets, no timers of lwIP's own (net_dpdk_stack.c has them). Memory comes from
 * malloc, so that nothing is sized for the worst case beforehand; every use has a bound elsewhere: connections by limits.connections, half-open ones and
 * TIME_WAIT by net_dpdk_flow.c, octets of a connection by the windows below. */
#ifndef WEIR_DATAPLANE_NET_LWIP_LWIPOPTS_H
#define WEIR_DATAPLANE_NET_LWIP_LWIPOPTS_H

#define NO_SYS 1
#define SYS_LIGHTWEIGHT_PROT 0
#define LWIP_NETCONN 0
#define LWIP_SOCKET 0
#define LWIP_TIMERS 0
#define LWIP_DONT_PROVIDE_BYTEORDER_FUNCTIONS 1
#define LWIP_HOOK_FILENAME "dataplane/net/lwip/hooks.h"

#define MEM_ALIGNMENT 16
#define MEM_LIBC_MALLOC 1
#define MEMP_MEM_MALLOC 1
#define ETH_PAD_SIZE 0
#define LWIP_SUPPORT_CUSTOM_PBUF 1
#define PBUF_POOL_BUFSIZE 2048

/* only what a mail relay speaks */
#define LWIP_TCP 1
#define LWIP_UDP 0
#define LWIP_RAW 0
#define LWIP_DHCP 0
#define LWIP_AUTOIP 0
#define LWIP_DNS 0
#define LWIP_IGMP 0
#define LWIP_SNMP 0
#define LWIP_ICMP 1
#define LWIP_BROADCAST_PING 0
#define LWIP_MULTICAST_PING 0
#define LWIP_HAVE_LOOPIF 0
#define LWIP_NETIF_LOOPBACK 0
#define LWIP_NETIF_HOSTNAME 0
#define LWIP_SINGLE_NETIF 0

#define LWIP_ARP 1
#define ARP_TABLE_SIZE 1024
#define ARP_QUEUEING 1
#define ARP_QUEUE_LEN 16
#define ETHARP_SUPPORT_STATIC_ENTRIES 1
#define LWIP_NETIF_HWADDRHINT 1

#define LWIP_IPV4 1
#define IP_FORWARD 0
#define IP_FRAG 0
#define IP_REASSEMBLY 1
#define IP_REASS_MAX_PBUFS 64
#define IP_SOF_BROADCAST 0

/* addresses are configured: no advertisements are asked for, and net_dpdk_stack.c drops those that come unasked */
#define LWIP_IPV6 1
#define LWIP_IPV6_FORWARD 0
#define LWIP_IPV6_AUTOCONFIG 0
#define LWIP_IPV6_SEND_ROUTER_SOLICIT 0
#define LWIP_IPV6_DHCP6 0
#define LWIP_IPV6_DUP_DETECT_ATTEMPTS 0
#define LWIP_IPV6_MLD 1
#define LWIP_IPV6_FRAG 1 /* or connections stand still whose path's MTU shrinks */
#define LWIP_IPV6_REASS 1
#define IPV6_FRAG_COPYHEADER 1 /* 64-bit pointers do not fit in its place */
#define LWIP_IPV6_SCOPES 0
#define LWIP_ND6_NUM_NEIGHBORS 120 /* lwIP counts both of these in 7 bits */
#define LWIP_ND6_NUM_DESTINATIONS 120
#define LWIP_ND6_QUEUEING 1
#define MEMP_NUM_ND6_QUEUE 256

/* windows for 5 MB/s at 100 ms; 9,000 octets of MTU at most, each connection takes what its path has */
#define TCP_MSS 8940
#define LWIP_WND_SCALE 1
#define TCP_RCV_SCALE 4
#define TCP_WND (512 * 1024)
#define TCP_SND_BUF (512 * 1024)
#define TCP_SND_QUEUELEN 4096
#define TCP_SNDLOWAT (16 * 1024)
#define TCP_SNDQUEUELOWAT 1024
#define TCP_WND_UPDATE_THRESHOLD (64 * 1024)
#define TCP_OVERSIZE 256
#define LWIP_TCP_SACK_OUT 1
#define TCP_QUEUE_OOSEQ 1
#define TCP_OOSEQ_MAX_BYTES (256 * 1024)
#define TCP_OOSEQ_MAX_PBUFS 256
#define TCP_CALCULATE_EFF_SEND_MSS 1
#define TCP_LISTEN_BACKLOG 0 /* lwIP counts to 255 only: net_dpdk_flow.c bounds half-open connections */
#define LWIP_TCP_PCB_NUM_EXT_ARGS 2 /* net_dpdk_flow.c, net_dpdk.c */
#define LWIP_TCP_KEEPALIVE 0
#define SO_REUSE 0
/* two of lwIP's ticks are one unit of its retransmission timer: 200 ms in place of 500 */
#define TCP_TMR_INTERVAL 100
#define TCP_MSL 15000UL
#define TCP_SYNMAXRTX 6
#define TCP_MAXRTX 12

#define LWIP_CHECKSUM_CTRL_PER_NETIF 1

#define LWIP_STATS 1
#define LWIP_STATS_LARGE 1
#define LWIP_STATS_DISPLAY 0
#define MIB2_STATS 1
#define MEM_STATS 0
#define MEMP_STATS 0
#define SYS_STATS 0

#endif
