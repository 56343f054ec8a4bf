/*
 * filter_eval.h - values of filters: comparing and hashing
 */
#ifndef SIM_FILTER_EVAL_H
#define SIM_FILTER_EVAL_H

#include "filter.h"

/* Hash of a value that is equal for values that compare equal. */
extern uint64_t sim_filter_hash(const SimColumn *c, const SimVal *v);

#endif							/* SIM_FILTER_EVAL_H */
