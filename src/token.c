/*
 * token.c - OAuth 2.0 client credentials
 */
#include "postgres.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "storage/fd.h"
#include "utils/timestamp.h"

#include "problem.h"
#include "reply_json.h"
#include "token.h"

/* Entra makes secrets of 40 characters; other issuers' are below 256. */
#define MAX_SECRET		4096

/*
 * A token is renewed this long before it expires, so that no request of a
 * long run leaves with one that expires on its way; of a short-lived one a
 * fifth of its life is enough.
 */
#define RENEW_BEFORE_S	300

/* A batch may wait in a queue of the service: do not start with less life than this. */
#define UNUSABLE_BEFORE_S	5

/* OAuth does not oblige a service to say how long a token lives. */
#define DEFAULT_LIFETIME_S	600

/* ---------------------------------------------------------------- secret */

/* Like the server's own rule for private keys: nobody but us, or root and our group. */
static bool
file_is_private(const struct stat *st)
{
	if (st->st_uid == geteuid())
		return (st->st_mode & (S_IRWXG | S_IRWXO)) == 0;
	return st->st_uid == 0 && (st->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) == 0;
}

/* Read a secret into buf; -1 with *problem filled in where that fails. */
static int
read_secret(const char *path, char *buf, size_t size, DvProblem *problem)
{
	struct stat st;
	ssize_t		n;
	int			fd = OpenTransientFile(path, O_RDONLY | O_NONBLOCK | PG_BINARY);

	if (fd < 0 || fstat(fd, &st) != 0)
	{
		char		message[128];

		snprintf(message, sizeof(message), "could not read the file of the client secret: %s", strerror(errno));
		dv_problem_set(problem, false, ERRCODE_CONFIG_FILE_ERROR, message, NULL,
					   "Option client_secret_file of the user mapping names it. Make it readable by the user the database server runs as.");
		if (fd >= 0)
			CloseTransientFile(fd);
		return -1;
	}
	if (!S_ISREG(st.st_mode) || !file_is_private(&st))
	{
		CloseTransientFile(fd);
		dv_problem_set(problem, false, ERRCODE_CONFIG_FILE_ERROR,
					   "the file of the client secret is not private",
					   "It must be a regular file that others cannot read.",
					   "Use mode 0600 if the database server's user owns it, or 0640 if root owns it.");
		return -1;
	}
	n = read(fd, buf, size);
	CloseTransientFile(fd);
	while (n > 0 && (buf[n - 1] == '\n' || buf[n - 1] == '\r'))
		n--;
	if (n <= 0 || (size_t) n >= size || memchr(buf, '\0', (size_t) n) != NULL)
	{
		dv_problem_set(problem, false, ERRCODE_CONFIG_FILE_ERROR,
					   "the file of the client secret does not hold a secret",
					   NULL, "Write the secret into its first line, and nothing else.");
		return -1;
	}
	return (int) n;
}

/* ---------------------------------------------------------------- request */

/* Write "value" at "to" as a form wants it; returns the end. Needs 3 bytes a byte. */
static char *
form_escape(char *to, const char *value, size_t len)
{
	static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
	static const char hex[] = "0123456789ABCDEF";

	for (size_t i = 0; i < len; i++)
	{
		unsigned char c = (unsigned char) value[i];

		if (c != '\0' && strchr(plain, c) != NULL)
			*to++ = (char) c;
		else
		{
			*to++ = '%';
			*to++ = hex[c >> 4];
			*to++ = hex[c & 15];
		}
	}
	return to;
}

static char *
form_literal(char *to, const char *text)
{
	size_t		len = strlen(text);

	memcpy(to, text, len);
	return to + len;
}

char *
dv_token_form(const DvServer *server, const DvCredentials *credentials, DvProblem *problem)
{
	char		secret[MAX_SECRET];
	const char *value = credentials->client_secret;
	int			len = value ? (int) strlen(value) : 0;
	char	   *form;
	char	   *p;

	if (credentials->client_secret_file)
	{
		len = read_secret(credentials->client_secret_file, secret, sizeof(secret), problem);
		value = secret;
	}
	if (len < 0)
	{
		explicit_bzero(secret, sizeof(secret));
		return NULL;
	}

	/* Sized once: a growing buffer would leave copies of the secret behind. */
	form = malloc(3 * (strlen(credentials->client_id) + strlen(server->url) + (size_t) len) + 256);
	if (form == NULL)
	{
		explicit_bzero(secret, sizeof(secret));
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	p = form_literal(form, "grant_type=client_credentials&client_id=");
	p = form_escape(p, credentials->client_id, strlen(credentials->client_id));
	p = form_literal(p, "&scope=");
	p = form_escape(p, server->url, strlen(server->url));
	p = form_literal(p, "%2F.default&client_secret=");
	p = form_escape(p, value, (size_t) len);
	*p = '\0';
	explicit_bzero(secret, sizeof(secret));
	return form;
}

void
dv_token_form_free(char *form)
{
	if (form)
		explicit_bzero(form, strlen(form));
	free(form);
}

char *
dv_token_url(const DvServer *server)
{
	return psprintf("%s/%s/oauth2/v2.0/token", server->authority, server->tenant);
}

/* ---------------------------------------------------------------- answer */

/* Say what a refusal means. The numbers are Entra's documented AADSTS codes. */
static void
explain_refusal(DvProblem *problem, const DvTokenReply *token, const DvHttpReply *reply,
				const DvServer *server)
{
	const char *error = token->error;
	/* below 400: some page, and no token */
	bool		transient = reply->status < 400 || reply->status == 408 || reply->status == 425 || reply->status == 429 ||
		reply->status >= 500 || strcmp(error, "temporarily_unavailable") == 0;
	int			code = ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;

	if (transient)
		dv_problem_set(problem, true, ERRCODE_CONNECTION_FAILURE,
					   "the login service is not available now", token->description,
					   "It is tried again by itself during a run.");
	else if (token->code == 7000222)
		dv_problem_set(problem, false, code, "the client secret has expired", token->description,
					   "Make a new secret for the app registration and put it into the user mapping or its file.");
	else if (strcmp(error, "unauthorized_client") == 0 || token->code == 700016)
		dv_problem_set(problem, false, code,
					   "the login service does not know the application",
					   token->description,
					   "Check client_id in the user mapping and tenant of the server.");
	else if (strcmp(error, "invalid_client") == 0)
		dv_problem_set(problem, false, code, "the client secret was refused", token->description,
					   "Check client_id and client_secret (the secret's value, not its id) in the user mapping.");
	else if (token->code == 90002 || token->code == 900023 || strcmp(error, "invalid_tenant") == 0)
		dv_problem_set(problem, false, code, "the login service does not know the tenant",
					   token->description, "Check tenant and authority of the server.");
	else if (strcmp(error, "invalid_scope") == 0 || strcmp(error, "invalid_resource") == 0 ||
			 token->code == 500011)
		dv_problem_set(problem, false, code,
					   "the login service does not know the environment", token->description,
					   "Check url of the server, and that it belongs to the tenant.");
	else
		dv_problem_set(problem, false, code, "the login service refused to issue a token",
					   token->description, "Check the options of the server and of the user mapping.");
	if (problem->detail[0] == '\0')
		snprintf(problem->detail, sizeof(problem->detail), "%s answered HTTP status %ld%s%s.",
				 server->authority, reply->status, error[0] ? ", " : "", error);
}

/* Store a new token; the request's answer is wiped by the caller. */
static bool
token_store(DvToken *token, const DvTokenReply *answer)
{
	static const char prefix[] = "Authorization: Bearer ";
	size_t		len = strlen(answer->access_token);
	char	   *header = malloc(sizeof(prefix) + len);
	long		life = answer->expires_in > 0 ? answer->expires_in : DEFAULT_LIFETIME_S;
	TimestampTz now = GetCurrentTimestamp();

	if (header == NULL)
		return false;
	memcpy(header, prefix, sizeof(prefix) - 1);
	memcpy(header + sizeof(prefix) - 1, answer->access_token, len + 1);
	dv_token_forget(token);
	token->header = header;
	life = Min(life, 7 * 24 * 3600);
	token->expires_at = now + (life - Min(life / 5, UNUSABLE_BEFORE_S)) * USECS_PER_SEC;
	token->renew_at = now + (life - Min(life / 5, RENEW_BEFORE_S)) * USECS_PER_SEC;
	token->generation++;
	return true;
}

/* A token becomes a header line: nothing may end that line. */
static bool
token_is_clean(const char *text)
{
	for (; *text; text++)
		if ((unsigned char) *text <= 0x20 || (unsigned char) *text >= 0x7f)
			return false;
	return true;
}

bool
dv_token_accept(DvToken *token, DvHttpReply *reply, const DvServer *server, DvProblem *problem)
{
	DvTokenReply answer;
	bool		is_json;
	bool		ok = false;

	if (reply->transport != DV_HTTP_ANSWERED)
	{
		dv_problem_transport(problem, reply, server->authority);
		return false;
	}
	is_json = dv_json_token(reply->body.data, reply->body.len, &answer);
	if (reply->body.data)
		explicit_bzero(reply->body.data, reply->body.len);
	if (is_json && reply->status == 200 && answer.access_token && token_is_clean(answer.access_token))
		ok = token_store(token, &answer);
	else
		explain_refusal(problem, &answer, reply, server);
	dv_json_token_free(&answer);
	return ok;
}

void
dv_token_forget(DvToken *token)
{
	if (token->header)
	{
		explicit_bzero(token->header, strlen(token->header));
		free(token->header);
	}
	token->header = NULL;
	token->expires_at = token->renew_at = 0;
}
