/*
 * faults.h - faults on request: rules, and which one a request meets
 */
#ifndef SIM_FAULTS_H
#define SIM_FAULTS_H

#include "request.h"

typedef enum SimFaultKind
{
	SIM_FAULT_NONE, SIM_FAULT_STATUS, SIM_FAULT_RESET_BEFORE, SIM_FAULT_RESET_AFTER, SIM_FAULT_COMMIT_LATER, SIM_FAULT_CUT,
	SIM_FAULT_GARBAGE, SIM_FAULT_SLOW, SIM_FAULT_DRIBBLE, SIM_FAULT_DEADLOCK, SIM_FAULT_THROTTLE, SIM_FAULT_DROP_IDS,
	SIM_FAULT_SHUFFLE_IDS, SIM_FAULT_HTML, SIM_FAULT_HOLD, SIM_FAULT_BODY, SIM_FAULT_ADD_IDS, SIM_FAULT_DROP_PARTS
} SimFaultKind;

/* What is to happen, copied out of its rule. */
typedef struct SimFault
{
	SimFaultKind kind;
	int			status;
	char		code[16];
	char		message[200];
	char		text[512];		/* body: this ... */
	long		times;			/* ... so often */
	char		content_type[80];
	int			retry_after;	/* s; -1: no header */
	long		bytes;
	double		seconds;
	bool		after;			/* the request is carried out first */
	bool		html;
	unsigned long era;			/* how often the rules had been cleared when it was met */
} SimFault;

/* Does this request meet a rule? Counts the match; "part" for batch parts. */
extern SimFault sim_fault_match(const SimReq *r, bool part);

/* Add a rule from its JSON; false with "e" filled when it is malformed. */
extern bool sim_fault_add(char *json, size_t len, SimErr *e);
extern void sim_fault_list(SimBuf *out);
extern void sim_fault_clear(void);

/* Wait until the rules are cleared: for requests that are held. */
extern void sim_fault_hold(const SimFault *f);

/* Write the answer of a fault that replaces the real one. */
extern void sim_fault_answer(const SimReq *r, const SimFault *f, SimResp *resp);

/* Change the Ids of a CreateMultiple answer, or the parts of a $batch answer. */
extern void sim_fault_ids(const SimFault *f, SimBuf *body);
extern void sim_fault_parts(const SimFault *f, SimBuf *body);

#endif							/* SIM_FAULTS_H */
