/*
 * proof.c - how an application user proves who it is: a secret, or a signed assertion
 *
 * What was read is wiped before anything that can throw: messages are made
 * without memory of the server's.
 */
#include "postgres.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "storage/fd.h"

#include "assertion.h"
#include "problem.h"
#include "proof.h"

/* Entra makes secrets of 40 characters; other issuers' are below 256. */
#define MAX_SECRET	4096

/* A certificate with the chain behind it and the key, in PEM, has some 10 kB. */
#define MAX_PEM		32768

#define SECRET_FIELDS	"client_secret="
#define ASSERTION_FIELDS \
	"client_assertion_type=urn%3Aietf%3Aparams%3Aoauth%3Aclient-assertion-type%3Ajwt-bearer&client_assertion="

/* ---------------------------------------------------------------- files */

typedef struct LoginFile
{
	const char *path;
	const char *option;			/* that names it, without a number */
	const char *content;		/* in messages: the file of the ... */
	bool		secret;
	const char *holds_none;		/* end of the message where it holds something else */
	const char *hint;			/* then */
} LoginFile;

/* An option of application user "number", as it is written. */
static void
option_name(char *name, size_t size, const char *option, int number)
{
	if (number > 1)
		snprintf(name, size, "%s%d", option, number);
	else
		strlcpy(name, option, size);
}

/* Says "<before>the file of the ...<after>", and which one it is. */
static void
file_problem(const LoginFile *file, int number, const char *before, const char *after, const char *hint, DvProblem *problem)
{
	char		message[256];
	char		detail[MAXPGPATH + 128];
	char		option[64];

	option_name(option, sizeof(option), file->option, number);
	snprintf(message, sizeof(message), "%sthe file of the %s%s", before, file->content, after);
	snprintf(detail, sizeof(detail), "Option %s of the user mapping names \"%s\".", option, file->path);
	dv_problem_set(problem, false, ERRCODE_CONFIG_FILE_ERROR, message, detail, hint);
}

/* Like the server's own rule for private keys: nobody but us, or root and our group. */
static bool
file_is_private(const struct stat *st)
{
	if (st->st_uid == geteuid())
		return (st->st_mode & (S_IRWXG | S_IRWXO)) == 0;
	return st->st_uid == 0 && (st->st_mode & (S_IWGRP | S_IXGRP | S_IRWXO)) == 0;
}

/* Read a file into buf, without the ends of lines at its end; -1 with *problem filled in where that fails. */
static int
read_file(const LoginFile *file, int number, char *buf, size_t size, DvProblem *problem)
{
	struct stat st;
	ssize_t		n;
	int			fd = BasicOpenFile(file->path, O_RDONLY | O_NONBLOCK | PG_BINARY);

	if (fd < 0 || fstat(fd, &st) != 0)
	{
		char		why[192];

		snprintf(why, sizeof(why), ": %s", strerror(errno));
		file_problem(file, number, "could not read ", why, "Make it readable by the user the database server runs as.", problem);
		if (fd >= 0)
			close(fd);
		return -1;
	}
	if (!S_ISREG(st.st_mode) || (file->secret && !file_is_private(&st)))
	{
		close(fd);
		if (file->secret)
			file_problem(file, number, "", " is not private",
						 "It must be a regular file that others cannot read: of mode 0600 if the database server's user owns it, or 0640 if root owns it.",
						 problem);
		else
			file_problem(file, number, "", " is not a regular file", NULL, problem);
		return -1;
	}
	n = read(fd, buf, size);
	close(fd);
	while (n > 0 && (buf[n - 1] == '\n' || buf[n - 1] == '\r'))
		n--;
	if (n <= 0 || (size_t) n >= size || memchr(buf, '\0', (size_t) n) != NULL)
	{
		file_problem(file, number, "", file->holds_none, file->hint, problem);
		return -1;
	}
	buf[n] = '\0';
	return (int) n;
}

/* ---------------------------------------------------------------- secret */

static bool
prove_by_secret(const DvCredentials *credentials, DvProof *proof, DvProblem *problem)
{
	LoginFile	file = {
		credentials->client_secret_file, "client_secret_file", "client secret", true,
		" does not hold a secret", "Write the secret into its first line, and nothing else."
	};
	char		secret[MAX_SECRET];
	bool		ok = true;

	proof->fields = SECRET_FIELDS;
	if (credentials->client_secret_file)
		ok = read_file(&file, credentials->number, secret, sizeof(secret), problem) >= 0;
	if (ok)
		proof->value = strdup(credentials->client_secret_file ? secret : credentials->client_secret);
	explicit_bzero(secret, sizeof(secret));
	if (ok && proof->value == NULL)
		dv_problem_set(problem, false, ERRCODE_OUT_OF_MEMORY, "out of memory", NULL, NULL);
	return proof->value != NULL;
}

/* ---------------------------------------------------------------- certificate */

/* What is wrong with certificate and key: which file, until when, and what to do; never what is in them. */
static void
explain_fault(DvAssertionFault fault, const DvCredentials *credentials, const DvAssertion *assertion, DvProblem *problem)
{
	const char *certificate = credentials->client_certificate_file;
	const char *key = credentials->client_key_file;
	const char *message = "could not sign the client assertion";
	const char *hint = "The server log or the settings of OpenSSL on this machine may tell why.";
	char		detail[2 * MAXPGPATH + 128] = "";

	switch (fault)
	{
		case DV_ASSERTION_NO_CERTIFICATE:
			message = "the file of the client certificate does not hold a certificate";
			snprintf(detail, sizeof(detail), "\"%s\" has none in PEM format.", certificate);
			hint = "It begins with -----BEGIN CERTIFICATE-----. The commands openssl x509 and openssl pkcs12 write it from other formats.";
			break;
		case DV_ASSERTION_NO_KEY:
			message = "the file of the client certificate's key does not hold a private key";
			snprintf(detail, sizeof(detail), "\"%s\" has none in PEM format.", key);
			hint = "It begins with -----BEGIN PRIVATE KEY-----. The commands openssl pkey and openssl pkcs12 write it from other formats.";
			break;
		case DV_ASSERTION_ENCRYPTED:
			message = "the private key of the client certificate is encrypted";
			snprintf(detail, sizeof(detail), "The key in \"%s\" has a password, and there is nobody to ask for it.", key);
			hint = "Write it without a password into a file that only the database server can read: openssl pkey -in FILE -out NEWFILE.";
			break;
		case DV_ASSERTION_NOT_RSA:
			message = "the private key of the client certificate is not an RSA key";
			snprintf(detail, sizeof(detail), "Microsoft Entra takes no others; \"%s\" holds another kind.", key);
			hint = "Make an RSA key of 2048 bits or more, and a certificate for it.";
			break;
		case DV_ASSERTION_SHORT_KEY:
			message = "the private key of the client certificate is too short";
			snprintf(detail, sizeof(detail), "The key in \"%s\" has less than %d bits.", key, DV_ASSERTION_KEY_BITS);
			hint = "Make an RSA key of 2048 bits or more, and a certificate for it.";
			break;
		case DV_ASSERTION_MISMATCH:
			message = "the client certificate does not match its private key";
			snprintf(detail, sizeof(detail), "\"%s\" holds another key than the certificate in \"%s\" is for.", key, certificate);
			hint = "Keep both in one file and name it in both options: then they are always replaced together.";
			break;
		case DV_ASSERTION_NOT_YET:
			message = "the client certificate is not yet valid";
			snprintf(detail, sizeof(detail), "The one in \"%s\" is valid from %s.", certificate, assertion->valid_from);
			hint = "Check the clock of the database server, or use the certificate that was valid until now.";
			break;
		case DV_ASSERTION_EXPIRED:
			message = "the client certificate has expired";
			snprintf(detail, sizeof(detail), "The one in \"%s\" was valid until %s.", certificate, assertion->valid_to);
			hint = DV_PROOF_RENEW;
			break;
		case DV_ASSERTION_GOOD:
		case DV_ASSERTION_FAILED:
			break;
	}
	dv_problem_set(problem, false, fault == DV_ASSERTION_FAILED ? ERRCODE_EXTERNAL_ROUTINE_EXCEPTION : ERRCODE_CONFIG_FILE_ERROR,
				   message, detail, hint);
}

static int
read_certificate(const DvCredentials *credentials, char *certificate, DvProblem *problem)
{
	LoginFile	file = {
		credentials->client_certificate_file, "client_certificate_file", "client certificate", false,
		" does not hold a certificate", "Write it there in PEM format."
	};

	return read_file(&file, credentials->number, certificate, MAX_PEM, problem);
}

static bool
prove_by_certificate(const DvCredentials *credentials, const char *audience, DvProof *proof, DvProblem *problem)
{
	LoginFile	key_file = {
		credentials->client_key_file, "client_key_file", "client certificate's key", true,
		" does not hold a private key", "Write it there in PEM format."
	};
	char		certificate[MAX_PEM];
	char		key[MAX_PEM];
	int			certificate_len = read_certificate(credentials, certificate, problem);
	int			key_len = certificate_len < 0 ? -1 : read_file(&key_file, credentials->number, key, sizeof(key), problem);
	DvAssertion assertion = {
		.certificate = certificate,.certificate_len = (size_t) certificate_len,.key = key,.key_len = (size_t) key_len,
		.audience = audience,.client_id = credentials->client_id,.now = time(NULL)
	};
	DvAssertionFault fault = DV_ASSERTION_GOOD;

	proof->fields = ASSERTION_FIELDS;
	if (key_len >= 0)
		fault = dv_assertion_make(&assertion);
	/* the key may be in both */
	explicit_bzero(certificate, sizeof(certificate));
	explicit_bzero(key, sizeof(key));
	proof->value = assertion.jwt;
	if (fault != DV_ASSERTION_GOOD)
		explain_fault(fault, credentials, &assertion, problem);
	return proof->value != NULL;
}

bool
dv_proof_make(const DvCredentials *credentials, const char *audience, DvProof *proof, DvProblem *problem)
{
	proof->value = NULL;
	if (credentials->client_certificate_file)
		return prove_by_certificate(credentials, audience, proof, problem);
	return prove_by_secret(credentials, proof, problem);
}

int
dv_proof_days_left(const DvCredentials *credentials, char **until)
{
	char		certificate[MAX_PEM];
	DvProblem	problem;
	DvAssertion assertion = {.certificate = certificate,.now = time(NULL)};
	int			len = credentials->client_certificate_file ? read_certificate(credentials, certificate, &problem) : -1;
	bool		found;

	assertion.certificate_len = (size_t) Max(len, 0);
	found = len > 0 && dv_assertion_dates(&assertion);
	/* the key may be in it */
	explicit_bzero(certificate, sizeof(certificate));
	if (!found)
		return -1;
	*until = pstrdup(assertion.valid_to);
	return assertion.days_left;
}

void
dv_proof_forget(DvProof *proof)
{
	if (proof->value)
		explicit_bzero(proof->value, strlen(proof->value));
	free(proof->value);
	proof->value = NULL;
}
