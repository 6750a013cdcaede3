/*
 * lease_flow - what lease.c and publish.c, the two halves of the protocol, ask of each other.
 *
 * What:    the steps of a flight that both halves take.
 * Threads: the engine's owner.
 * Memory:  rc_lease_next_round may free the flight.
 * Errors:  told through the ops of the flight.
 * Not:     for lease.c and publish.c alone.
 */
#ifndef RC_LEASE_FLOW_H
#define RC_LEASE_FLOW_H

#include "engine/flight.h"

/* After an answer: those it did not serve ask again. */
void rc_lease_next_round(struct rc_flight *flight);
/* Gives the lease back, though nobody may hear the answer. */
void rc_lease_release(struct rc_flight *flight);
void rc_lease_send_heartbeat(struct rc_flight *flight);  /* covers the old value, too */
void rc_lease_start_heartbeat(struct rc_flight *flight); /* sets the timer for the next one */

#endif
