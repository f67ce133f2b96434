/* How a dataplane worker asks weir-control for the MTA-STS policy of a domain (RFC 8461), which only weir-control fetches.
 *
 * weir-control listens on <run>/mta-sts (SOCK_SEQPACKET, mode 0600). A worker keeps one connection and sends a packet for each question, a row of log.h:
 *   domain=D id=I address=A port=P      id: of D's _mta-sts record, or empty when there is none (or it cannot be had): then only a policy that weir-control still has is
 *                                       asked for. address: one of mta-sts.D, so that weir-control needs no resolver; empty: it has none.
 * The answers come in any order, each a packet: a row, and behind its "\n" the policy in its normal form when there is one:
 *   domain=D result=policy|none left_s=N [fault=fetch|invalid|webpki detail=...]
 * left_s: how long the policy holds. A fault beside a policy: a newer one could not be had. */
#ifndef WEIR_SPOOL_STORE_STS_ASK_H
#define WEIR_SPOOL_STORE_STS_ASK_H

#define STS_ASK_SOCKET "mta-sts"

enum { STS_ASK_PACKET = 32 * 1024 };

#endif
