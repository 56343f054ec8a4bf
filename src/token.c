/*
 * token.c - OAuth 2.0 client credentials
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "problem.h"
#include "proof.h"
#include "reply_json.h"
#include "token.h"

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
	char	   *url = dv_token_url(server);
	DvProof		proof;
	bool		proven = dv_proof_make(credentials, url, &proof, problem);
	char	   *form;
	char	   *p;

	pfree(url);
	if (!proven)
		return NULL;

	/* Sized once: a growing buffer would leave copies of the secret behind. */
	form = malloc(3 * (strlen(credentials->client_id) + strlen(server->url) + strlen(proof.value)) + 256);
	if (form == NULL)
	{
		dv_proof_forget(&proof);
		ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
	}
	p = form_literal(form, "grant_type=client_credentials&client_id=");
	p = form_escape(p, credentials->client_id, strlen(credentials->client_id));
	p = form_literal(p, "&scope=");
	p = form_escape(p, server->url, strlen(server->url));
	p = form_literal(p, "%2F.default&");
	p = form_literal(p, proof.fields);
	p = form_escape(p, proof.value, strlen(proof.value));
	*p = '\0';
	dv_proof_forget(&proof);
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

/* What proved who we are was refused. */
static void
explain_proof(DvProblem *problem, const DvTokenReply *token, bool certificate)
{
	int			code = ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION;

	if (token->code == 7000222)
		dv_problem_set(problem, false, code, "the client secret has expired", token->description,
					   "Make a new secret for the app registration and put it into the user mapping or its file.");
	else if (!certificate)
		dv_problem_set(problem, false, code, "the client secret was refused", token->description,
					   "Check client_id and client_secret (the secret's value, not its id) in the user mapping.");
	else if (token->code == 700024)
		dv_problem_set(problem, false, code, "the client assertion was refused for its time", token->description,
					   "Check the clock of the database server: an assertion is good for some minutes.");
	else if (token->code == 700023)
		dv_problem_set(problem, false, code, "the client assertion was refused for its audience", token->description,
					   "Check authority and tenant of the server; give the tenant's id (a GUID) rather than a domain name.");
	else
		dv_problem_set(problem, false, code, "the client certificate was refused", token->description,
					   "Check client_id, and that the app registration has this very certificate: openssl x509 -noout -fingerprint -in FILE shows its thumbprint.");
}

/* Say what a refusal means. The numbers are Entra's documented AADSTS codes. */
static void
explain_refusal(DvProblem *problem, const DvTokenReply *token, const DvHttpReply *reply,
				const DvServer *server, bool certificate)
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
	else if (strcmp(error, "unauthorized_client") == 0 || token->code == 700016)
		dv_problem_set(problem, false, code,
					   "the login service does not know the application",
					   token->description,
					   "Check client_id in the user mapping and tenant of the server.");
	else if (strcmp(error, "invalid_client") == 0 || token->code == 7000222)
		explain_proof(problem, token, certificate);
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
dv_token_accept(DvToken *token, DvHttpReply *reply, const DvServer *server, const DvCredentials *credentials,
				DvProblem *problem)
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
		explain_refusal(problem, &answer, reply, server, credentials->client_certificate_file != NULL);
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
