/*
 * texts.h - the first column of a query, as text, for functions that return a set
 */
#ifndef DV_TEXTS_H
#define DV_TEXTS_H

#include "postgres.h"

#include "nodes/execnodes.h"
#include "tcop/dest.h"

/*
 * What SPI hands the rows of a query to, one by one, so that memory does not grow
 * with them: their first column goes, as text, into the tuplestore of a function's
 * result. Lives in the current memory context.
 */
extern DestReceiver *dv_texts_receiver(ReturnSetInfo *info);

#endif							/* DV_TEXTS_H */
