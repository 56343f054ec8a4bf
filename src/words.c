/*
 * words.c - what a success row says besides its verdict
 */
#include "postgres.h"

#include "engine.h"

const char *
dv_outcome_message(const DvOutcome *outcome)
{
	const char *note = outcome->row->note;

	if (note == NULL)
		return outcome->message;
	if (outcome->message == NULL)
		return note;
	return strncmp(outcome->message, "kept", 4) == 0 ? outcome->message : psprintf("%s; %s", outcome->message, note);
}

const char *
dv_outcome_owed_passes(int owes)
{
	static const char *const names[] = {
		NULL, "deferred", "files", "deferred,files", "states", "deferred,states", "files,states", "deferred,files,states"
	};

	return names[owes & (DV_OWES_DEFERRED | DV_OWES_FILES | DV_OWES_STATES)];
}
