/* A bad wire in the poll loop of net_dpdk: of the frames that the port receives some are lost, some come twice, all come late and some later than those behind them; of those that it
 * sends some are lost. By chance, but always the same.
 *
 * It stands between the stack and the port (ld --wrap, see the Makefile) and lets everything through before it begins. */
#ifndef WEIR_TESTS_SUPPORT_NET_BAD_WIRE_H
#define WEIR_TESTS_SUPPORT_NET_BAD_WIRE_H

void bad_wire_begin(void);

#endif
