/*
 * call.h - public functions on behalf of their caller
 *
 * Every public SQL function of dvmig is dv_call(): it notes who called, becomes
 * the owner of the extension and runs dvmig._<name>(caller oid, arguments ...).
 */
#ifndef DV_CALL_H
#define DV_CALL_H

#include "postgres.h"

typedef struct DvSwitch
{
	Oid			userid;
	int			sec_context;
	int			guc_level;		/* of settings pinned with the switch, or 0 */
} DvSwitch;

/* Role that owns the extension; throws where the extension is gone. */
extern Oid	dv_call_extension_owner(void);

/* Throws where one of the first "n" arguments is null: of functions that are not strict because of others. */
extern void dv_call_require(FunctionCallInfo fcinfo, int n);

/*
 * Become the extension's owner, or any role, and come back. An error in
 * between needs no care: the end of the (sub)transaction restores the role.
 * With the extension's owner come settings that no user can have changed: a
 * hostile search_path would give him another's operators. "restricted" makes it
 * a security-restricted operation, in which code that the role's objects bring
 * along cannot escape. Throws where the role was dropped.
 */
extern DvSwitch dv_call_become_extension_owner(void);
extern DvSwitch dv_call_become(Oid role, bool restricted);
extern void dv_call_restore(DvSwitch was);

/*
 * The search_path in force when the public function was called, for names
 * that the caller wrote; NULL outside such a call.
 */
extern const char *dv_call_search_path(void);

/* Leave the frames of our own that ran "sql" out of an error's context. */
extern void dv_call_trim_context(ErrorData *error, const char *sql);

#endif							/* DV_CALL_H */
