/*
 * journal.h - committed changes in a file, so that they outlive the process
 */
#ifndef SIM_JOURNAL_H
#define SIM_JOURNAL_H

#include "store.h"

/* Redo what the file holds and go on writing it; call once the world is made. */
extern void sim_journal_open(const char *path);

/* Used by the store: one record of a commit each, then the end of the commit. */
extern void sim_journal_slot(const SimTable *t, uint32_t slot);
extern void sim_journal_link(const SimManyToMany *r, SimGuid a, SimGuid b, bool added);
extern void sim_journal_commit(void);

/* Every record is forgotten. */
extern void sim_journal_clear(void);

#endif							/* SIM_JOURNAL_H */
