/*
 * options.c - options of servers and user mappings of the wrapper "dataverse"
 *
 * The validator checks what can be checked when an option is set; what
 * depends on who owns the server is checked when a mapping is used. Secrets
 * are options of user mappings only, because everybody may read the options
 * of a server.
 */
#include "postgres.h"

#include "access/reloptions.h"
#include "catalog/pg_foreign_data_wrapper.h"
#include "catalog/pg_foreign_server.h"
#include "catalog/pg_user_mapping.h"
#include "commands/defrem.h"
#include "fmgr.h"
#include "foreign/foreign.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/builtins.h"
#include "utils/syscache.h"

#include "compat.h"
#include "hosts.h"
#include "options.h"
#include "settings.h"

#define WRAPPER_NAME		"dataverse"
#define DEFAULT_AUTHORITY	"https://login.microsoftonline.com"
#define DEFAULT_API_VERSION "v9.2"

PG_FUNCTION_INFO_V1(dv_dataverse_validator);

static const char *const server_options[] = {
	"api_version", "authority", "ca_file", "environment", "tenant", "url", NULL
};

/* Each may be followed by a number from 2 to DV_USERS_MAX. */
static const char *const mapping_options[] = {
	"client_id", "client_secret", "client_secret_file", "client_certificate_file", "client_key_file", NULL
};

/* Options of one application user, as bits in the same order. */
#define HAS_ID		1
#define HAS_SECRET	2
#define HAS_FILE	4
#define HAS_CERTIFICATE	8
#define HAS_KEY		16

#define HAS_PAIR	(HAS_CERTIFICATE | HAS_KEY)

/* ---------------------------------------------------------------- names */

static bool
is_server_option(const char *name)
{
	for (int i = 0; server_options[i]; i++)
		if (strcmp(server_options[i], name) == 0)
			return true;
	return false;
}

/*
 * Number of the application user an option of a mapping belongs to (1 where
 * it has none), with the option's bit; 0 where the name is not known.
 */
static int
mapping_option_number(const char *name, int *bit)
{
	for (int i = 0; mapping_options[i]; i++)
	{
		size_t		len = strlen(mapping_options[i]);
		const char *digits = name + len;
		int			number;

		if (strncmp(mapping_options[i], name, len) != 0)
			continue;
		*bit = 1 << i;
		if (*digits == '\0')
			return 1;
		if (strspn(digits, "0123456789") != strlen(digits) || strlen(digits) > 2 || *digits == '0')
			continue;
		number = atoi(digits);
		if (number >= 2 && number <= DV_USERS_MAX)
			return number;
	}
	return 0;
}

static void
unknown_option(const char *name, Oid catalog)
{
	const char *valid = NULL;

	if (catalog == ForeignServerRelationId)
		valid = "api_version, authority, ca_file, environment, tenant, url";
	else if (catalog == UserMappingRelationId)
		valid = "client_id, client_secret, client_secret_file, client_certificate_file, client_key_file; a number from 2 to " CppAsString2(DV_USERS_MAX) " at the end names a further application user";

	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("invalid option \"%s\"", name),
			 valid ? errhint("Valid options in this context are: %s.", valid) :
			 errhint("There are no valid options in this context.")));
}

/* ---------------------------------------------------------------- values */

static void
bad_value(const char *option, const char *hint)
{
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
			 errmsg("invalid value for option \"%s\"", option),
			 errhint("%s", hint)));
}

static void
check_address(const char *option, const char *value)
{
	DvHost		host;

	if (!dv_host_parse(value, &host))
		bad_value(option, strcmp(option, "url") == 0 ?
				  "Write https://host or https://host:port, without a path: dvmig adds /api/data and the version." :
				  "Write https://host or https://host:port, without a path.");
	if (!host.https && !host.loopback)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("option \"%s\" must begin with https://", option),
				 errdetail("Credentials and data would cross the network in clear."),
				 errhint("Only a loopback address may have http://: localhost, 127.0.0.0/8 or [::1].")));
}

/* v and two numbers: v9.2. */
static bool
is_api_version(const char *value)
{
	const char *p = value;
	size_t		major;
	size_t		minor;

	if (*p++ != 'v')
		return false;
	major = strspn(p, "0123456789");
	if (major < 1 || major > 2 || p[major] != '.')
		return false;
	p += major + 1;
	minor = strspn(p, "0123456789");
	return minor >= 1 && minor <= 2 && p[minor] == '\0';
}

static void
require_superuser(const char *option)
{
	if (!superuser())
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied to set option \"%s\"", option),
				 errdetail("Only a superuser may name a file that the server process reads.")));
}

static void
check_absolute(const char *option, const char *value)
{
	if (!is_absolute_path(value))
		bad_value(option, "Give the absolute path of a file on the database server.");
}

static void
check_server_value(const char *name, const char *value)
{
	if (*value == '\0')
		bad_value(name, "The value must not be empty.");
	if (strcmp(name, "url") == 0 || strcmp(name, "authority") == 0)
		check_address(name, value);
	else if (strcmp(name, "tenant") == 0)
	{
		/* It becomes part of a path. */
		if (strspn(value, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-") != strlen(value) ||
			value[0] == '.')
			bad_value(name, "Give the tenant's id (a GUID) or one of its domain names.");
	}
	else if (strcmp(name, "api_version") == 0)
	{
		if (!is_api_version(value))
			bad_value(name, "Write it like v9.2.");
	}
	else if (strcmp(name, "ca_file") == 0)
	{
		require_superuser(name);
		check_absolute(name, value);
	}
}

static void
check_mapping_value(const char *name, int bit, const char *value)
{
	if (*value == '\0')
		bad_value(name, "The value must not be empty.");
	if ((bit & (HAS_FILE | HAS_PAIR)) != 0)
	{
		require_superuser(name);
		check_absolute(name, value);
	}
}

/* ---------------------------------------------------------------- validator */

static void
validate_server(List *options)
{
	static const char *const required[] = {"url", "tenant", "environment", NULL};
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = (DefElem *) lfirst(cell);

		if (!is_server_option(def->defname))
			unknown_option(def->defname, ForeignServerRelationId);
		check_server_value(def->defname, defGetString(def));
	}
	for (int i = 0; required[i]; i++)
	{
		bool		found = false;

		foreach(cell, options)
			found |= strcmp(((DefElem *) lfirst(cell))->defname, required[i]) == 0;
		if (!found)
			ereport(ERROR,
					(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
					 errmsg("option \"%s\" is required", required[i]),
					 errhint("CREATE SERVER ... FOREIGN DATA WRAPPER %s OPTIONS (url 'https://contoso.crm4.dynamics.com', tenant '...', environment 'production'); environment says what kind of system it is: production, or another word such as sandbox.",
							 WRAPPER_NAME)));
	}
}

/* Two of the three ways to sign in: which one is meant? */
static void
refuse_both(int bit, int other, const char *suffix)
{
	const char *names[2] = {NULL, NULL};

	for (int i = 0; mapping_options[i]; i++)
	{
		if (1 << i == bit)
			names[0] = mapping_options[i];
		if (1 << i == other)
			names[1] = mapping_options[i];
	}
	ereport(ERROR,
			(errcode(ERRCODE_FDW_INVALID_OPTION_NAME),
			 errmsg("options \"%s%s\" and \"%s%s\" exclude each other", names[0], suffix, names[1], suffix),
			 errdetail("An application user signs in with a secret, with a secret in a file, or with a certificate and its key."),
			 errhint("ALTER USER MAPPING can DROP the one and ADD the other in one statement.")));
}

/* Application user "number" must have an id and one way to sign in. */
static void
check_user(int number, int has)
{
	char		suffix[12] = "";

	if (number > 1)
		snprintf(suffix, sizeof(suffix), "%d", number);
	if ((has & HAS_ID) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"client_id%s\" is required", suffix),
				 errhint("An application user needs client_id%s, and client_secret%s, client_secret_file%s, or client_certificate_file%s and client_key_file%s.",
						 suffix, suffix, suffix, suffix, suffix)));
	if ((has & HAS_SECRET) != 0 && (has & HAS_FILE) != 0)
		refuse_both(HAS_SECRET, HAS_FILE, suffix);
	if ((has & (HAS_SECRET | HAS_FILE)) != 0 && (has & HAS_PAIR) != 0)
		refuse_both(has & (HAS_SECRET | HAS_FILE), (has & HAS_CERTIFICATE) ? HAS_CERTIFICATE : HAS_KEY, suffix);
	if ((has & HAS_PAIR) == HAS_CERTIFICATE || (has & HAS_PAIR) == HAS_KEY)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"%s%s\" is required", (has & HAS_KEY) ? "client_certificate_file" : "client_key_file", suffix),
				 errdetail("A certificate proves nothing without its private key, nor a key without the certificate that Microsoft Entra knows."),
				 errhint("Both may name the same file, which then holds certificate and key.")));
	if ((has & (HAS_SECRET | HAS_FILE | HAS_PAIR)) == 0)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("option \"client_secret%s\", \"client_secret_file%s\" or \"client_certificate_file%s\" is required",
						suffix, suffix, suffix),
				 errhint("A file keeps the secret out of dumps and out of pg_user_mappings; only a superuser may set it.")));
}

static void
validate_mapping(List *options)
{
	int			has[DV_USERS_MAX + 1] = {0};
	int			last = 1;
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = (DefElem *) lfirst(cell);
		int			bit = 0;
		int			number = mapping_option_number(def->defname, &bit);

		if (number == 0)
			unknown_option(def->defname, UserMappingRelationId);
		check_mapping_value(def->defname, bit, defGetString(def));
		has[number] |= bit;
		last = Max(last, number);
	}
	/* The first is required, and there must be no gap before the last. */
	for (int i = 1; i <= last; i++)
		check_user(i, has[i]);
}

/*
 * dv_dataverse_validator checks all options of a server or a user mapping;
 * after ALTER ... OPTIONS it is given the merged list.
 */
Datum
dv_dataverse_validator(PG_FUNCTION_ARGS)
{
	List	   *options = untransformRelOptions(PG_GETARG_DATUM(0));
	Oid			catalog = PG_GETARG_OID(1);

	if (catalog == ForeignServerRelationId)
		validate_server(options);
	else if (catalog == UserMappingRelationId)
		validate_mapping(options);
	else if (options != NIL)
		unknown_option(((DefElem *) linitial(options))->defname, catalog);
	PG_RETURN_VOID();
}

/* ---------------------------------------------------------------- reading */

static char *
option_value(List *options, const char *name)
{
	ListCell   *cell;

	foreach(cell, options)
	{
		DefElem    *def = (DefElem *) lfirst(cell);

		if (strcmp(def->defname, name) == 0)
			return pstrdup(defGetString(def));
	}
	return NULL;
}

/* Addresses are kept as written; requests need them without a slash at the end. */
static char *
option_address(List *options, const char *name, const char *otherwise)
{
	char	   *value = option_value(options, name);
	size_t		len;

	if (value == NULL)
		value = pstrdup(otherwise);
	len = strlen(value);
	while (len > 0 && value[len - 1] == '/')
		value[--len] = '\0';
	return value;
}

DvServer *
dv_options_server(const char *server_name)
{
	ForeignServer *fs = GetForeignServerByName(server_name, true);
	DvServer   *server;

	if (fs == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("server \"%s\" does not exist", server_name),
				 errhint("Make it with CREATE SERVER ... FOREIGN DATA WRAPPER %s.", WRAPPER_NAME)));
	if (strcmp(GetForeignDataWrapper(fs->fdwid)->fdwname, WRAPPER_NAME) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_WRONG_OBJECT_TYPE),
				 errmsg("server \"%s\" does not belong to the foreign-data wrapper \"%s\"",
						server_name, WRAPPER_NAME)));
	server = palloc0(sizeof(DvServer));
	server->oid = fs->serverid;
	server->name = pstrdup(fs->servername);
	server->url = option_address(fs->options, "url", "");
	server->tenant = option_value(fs->options, "tenant");
	server->authority = option_address(fs->options, "authority", DEFAULT_AUTHORITY);
	server->api_version = option_value(fs->options, "api_version");
	if (server->api_version == NULL)
		server->api_version = pstrdup(DEFAULT_API_VERSION);
	server->environment = option_value(fs->options, "environment");
	server->ca_file = option_value(fs->options, "ca_file");
	server->superuser_owned = superuser_arg(fs->owner);

	/* A superuser may have made the wrapper do without its validator. */
	if (server->url[0] == '\0' || server->tenant == NULL || server->environment == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("server \"%s\" lacks one of the options url, tenant and environment",
						server_name)));
	return server;
}

void
dv_options_check_usage(const DvServer *server, Oid userid)
{
	if (dv_server_aclcheck(server->oid, userid, ACL_USAGE) != ACLCHECK_OK)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("permission denied for foreign server %s", server->name),
				 errhint("Grant it with GRANT USAGE ON FOREIGN SERVER %s TO %s.",
						 quote_identifier(server->name),
						 quote_identifier(GetUserNameFromId(userid, false)))));
}

/* Options of the role's mapping, or of the one for PUBLIC; throws where there is none. */
static List *
mapping_options_of(const DvServer *server, Oid userid)
{
	if (!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(userid),
							   ObjectIdGetDatum(server->oid)) &&
		!SearchSysCacheExists2(USERMAPPINGUSERSERVER, ObjectIdGetDatum(InvalidOid),
							   ObjectIdGetDatum(server->oid)))
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_OBJECT),
				 errmsg("no user mapping of \"%s\" for server \"%s\"",
						GetUserNameFromId(userid, false), server->name),
				 errhint("Make one with CREATE USER MAPPING FOR %s SERVER %s OPTIONS (client_id '...', client_secret_file '/...').",
						 quote_identifier(GetUserNameFromId(userid, false)),
						 quote_identifier(server->name))));
	return GetUserMapping(userid, server->oid)->options;
}

/*
 * Who owns the server decides where it is sent. What a superuser put into a file
 * is not for anybody else to send somewhere, nor to sign with.
 */
static void
check_files(const DvServer *server, const DvCredentials *credentials, const char *suffix)
{
	bool		certificate = credentials->client_certificate_file != NULL;

	if ((certificate || credentials->client_secret_file) && !server->superuser_owned)
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 certificate ? errmsg("a certificate is used only with a server owned by a superuser") :
				 errmsg("a secret from a file is used only with a server owned by a superuser"),
				 errhint("ALTER SERVER %s OWNER TO a superuser, or use client_secret%s.",
						 quote_identifier(server->name), suffix)));
}

DvCredentials *
dv_options_credentials(const DvServer *server, Oid userid, int number)
{
	List	   *options = mapping_options_of(server, userid);
	DvCredentials *credentials = palloc0(sizeof(DvCredentials));
	char		suffix[12] = "";

	if (number > 1)
		snprintf(suffix, sizeof(suffix), "%d", number);
	credentials->number = number;
	credentials->client_id = option_value(options, psprintf("client_id%s", suffix));
	credentials->client_secret = option_value(options, psprintf("client_secret%s", suffix));
	credentials->client_secret_file = option_value(options, psprintf("client_secret_file%s", suffix));
	credentials->client_certificate_file = option_value(options, psprintf("client_certificate_file%s", suffix));
	credentials->client_key_file = option_value(options, psprintf("client_key_file%s", suffix));
	if (credentials->client_id == NULL ||
		(credentials->client_secret == NULL && credentials->client_secret_file == NULL && credentials->client_certificate_file == NULL) ||
		(credentials->client_certificate_file == NULL) != (credentials->client_key_file == NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_OPTION_NAME_NOT_FOUND),
				 errmsg("the user mapping of \"%s\" for server \"%s\" has no application user %d",
						GetUserNameFromId(userid, false), server->name, number),
				 errhint("Set client_id%s, and client_secret%s, client_secret_file%s, or client_certificate_file%s and client_key_file%s, with ALTER USER MAPPING.",
						 suffix, suffix, suffix, suffix, suffix)));
	check_files(server, credentials, suffix);
	return credentials;
}

void
dv_options_wipe(DvCredentials *credentials)
{
	if (credentials != NULL && credentials->client_secret != NULL)
		explicit_bzero(credentials->client_secret, strlen(credentials->client_secret));
}

int
dv_options_users(const DvServer *server, Oid userid)
{
	List	   *options = mapping_options_of(server, userid);
	int			n = 1;

	while (n < DV_USERS_MAX && option_value(options, psprintf("client_id%d", n + 1)) != NULL)
		n++;
	return n;
}

void
dv_options_check_host(const DvServer *server)
{
	DvHost		url;
	DvHost		authority;

	/* The login service gets the secret: Microsoft's own are always allowed. */
	if (!dv_host_parse(server->url, &url) || !dv_host_parse(server->authority, &authority))
		ereport(ERROR,
				(errcode(ERRCODE_FDW_INVALID_ATTRIBUTE_VALUE),
				 errmsg("server \"%s\" has an invalid url or authority", server->name)));
	for (int i = 0; i < 2; i++)
	{
		const DvHost *host = i == 0 ? &url : &authority;

		if (dv_host_allowed(host->name, dv_allowed_hosts) ||
			(i == 1 && dv_host_allowed(host->name, DV_LOGIN_HOSTS)))
			continue;
		ereport(ERROR,
				(errcode(ERRCODE_INSUFFICIENT_PRIVILEGE),
				 errmsg("host \"%s\" is not in dvmig.allowed_hosts", host->name),
				 errdetail("This cluster may send data only to the hosts that its administrator named in postgresql.conf.")));
	}
}
