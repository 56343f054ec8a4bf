/*
 * error.c - builds refusals in Dataverse's words
 */
#include "error.h"

#include <stdio.h>
#include <string.h>

static void
set(SimErr *e, int status, const char *code)
{
	e->status = status;
	snprintf(e->code, sizeof e->code, "%s", code);
	e->duplicate[0] = '\0';
}

bool
sim_fail(SimErr *e, int status, const char *code, const char *fmt,...)
{
	va_list		ap;

	if (e->status != 0)
		return false;
	set(e, status, code);
	va_start(ap, fmt);
	vsnprintf(e->message, sizeof e->message, fmt, ap);
	va_end(ap);
	return false;
}

bool
sim_fail_payload(SimErr *e, const char *set_name, const char *fmt,...)
{
	va_list		ap;
	int			n;

	if (e->status != 0)
		return false;
	set(e, 400, SIM_E_PAYLOAD);
	n = snprintf(e->message, sizeof e->message,
				 "Error identified in Payload provided by the user for Entity :'%s', For more information on this error "
				 "please follow this help link https://go.microsoft.com/fwlink/?linkid=2195293  ---->  InnerException : "
				 "Microsoft.OData.ODataException: ", set_name);
	va_start(ap, fmt);
	vsnprintf(e->message + n, sizeof e->message - (size_t) n, fmt, ap);
	va_end(ap);
	return false;
}

bool
sim_fail_property(SimErr *e, const char *table, const char *property, size_t len)
{
	int			n = len > 200 ? 200 : (int) len;

	return sim_fail(e, 400, SIM_E_NONE,
					"An error occurred while validating input parameters: Microsoft.Crm.CrmException: Invalid property '%.*s' "
					"was found in entity 'Microsoft.Dynamics.CRM.%s'. ---> Microsoft.OData.ODataException: Does not support "
					"untyped value in non-open type.", n, property, table);
}

bool
sim_fail_missing(SimErr *e, int status, const char *table, SimGuid id)
{
	char		text[SIM_GUID_LEN + 1];

	sim_guid_format(id, text);
	return sim_fail(e, status, SIM_E_NOT_FOUND, "%s With Id = %s Does Not Exist", table, text);
}
