/* The orders of a test, on one socket: a test has the far ends of all connections in its hands, the clients' and those of the servers that the worker delivers to,
 * and says how long time may go on. Nothing happens in the world but by an order.
 *
 * An order is a struct order and its n bytes. The answer, where there is one, is its length (4 bytes) and that much. All in the machine's byte order.
 *
 *   N        a new world, its data struct sim_options. The answer comes when its worker takes mail.
 *   O        another network from now on, its data struct sim_options
 *   L        port `arg` is one where the worker's connections are taken
 *   D        dials port `arg`; data: the source address, 4 bytes. Answer: the end's number, or -1 (4 bytes)
 *   S F C X  end `id`: sends the data, FIN, close, reset; each after what was sent before has gone, but for a reset
 *   K        connections that begin from now on are cut after `arg` bytes; data: enum sim_cut_how, and whether the dialling side's are counted (a byte each)
 *   R        time goes on until there is something to read, for `arg` ns at most. End `id` is read (-1: no dialled one), and all that the worker dialled.
 *   I        the same, and until the worker has nothing to do any more
 *   Q        answer: sessions, connections, queued messages, bytes that end `id` has still to send (8 bytes each)
 *   E        the world ends; see main.c for the answer
 *
 * What was sent together is there together. The answer to R and I: the time (8 bytes), 'e' something to read, 't' the time is over, 'i' idle, and then for each thing one byte ('A' the worker connected,
 * 'D' data, 'E' the end of the stream, 'X' reset), the end's number, a length (4 bytes each) and the data.
 *
 * Owner: main. Fails: a broken socket ends the process. */
#ifndef WEIR_TESTS_SIM_CONTROL_H
#define WEIR_TESTS_SIM_CONTROL_H

#include <stdint.h>

struct order {
	char what;
	int32_t id;
	uint64_t arg;
	uint32_t n;
} __attribute__((packed));

void control_open(int fd);
/* The next order, with its data (good until the next call). False: nobody orders any more. */
_Bool control_next(struct order *ret, const char **ret_data);
void control_answer(const void *p, uint32_t n);
/* Carries orders out, until one lets time go on. Gives for how long. */
uint64_t control_turn(void);

#endif
