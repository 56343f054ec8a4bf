/*
 * t_assertion.c - client assertions: what is in them, who signed them, what is refused
 */
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

#include "assertion.h"
#include "tap.h"

#define NOW		1800000000		/* 2027-01-15 08:00:00 UTC */
#define CLAIMS	32768
#define HEADER	"{\"alg\":\"PS256\",\"typ\":\"JWT\",\"x5t#S256\":\""

/* ---------------------------------------------------------------- keys */

/* A key of a kind: bits of RSA, or 0 for a curve. */
static EVP_PKEY *
make_key(int bits)
{
	EVP_PKEY_CTX *context = EVP_PKEY_CTX_new_id(bits > 0 ? EVP_PKEY_RSA : EVP_PKEY_EC, NULL);
	EVP_PKEY   *key = NULL;

	if (EVP_PKEY_keygen_init(context) != 1 ||
		(bits > 0 ? EVP_PKEY_CTX_set_rsa_keygen_bits(context, bits) :
		 EVP_PKEY_CTX_set_ec_paramgen_curve_nid(context, NID_X9_62_prime256v1)) != 1 ||
		EVP_PKEY_keygen(context, &key) != 1)
		abort();
	EVP_PKEY_CTX_free(context);
	return key;
}

/* A certificate for it, valid from an hour before NOW to an hour after. */
static X509 *
make_certificate(EVP_PKEY *key)
{
	X509	   *certificate = X509_new();

	X509_set_version(certificate, 2);
	ASN1_INTEGER_set(X509_get_serialNumber(certificate), 1);
	ASN1_TIME_set(X509_getm_notBefore(certificate), NOW - 3600);
	ASN1_TIME_set(X509_getm_notAfter(certificate), NOW + 3600);
	X509_set_pubkey(certificate, key);
	if (X509_sign(certificate, key, EVP_sha256()) <= 0)
		abort();
	return certificate;
}

/* What was written to memory, without a byte to spare. */
static char *
take(BIO *bio, size_t *len)
{
	char	   *data;
	char	   *copy;

	*len = (size_t) BIO_get_mem_data(bio, &data);
	copy = exact_copy(data, *len);
	BIO_free(bio);
	return copy;
}

static char *
pem_of_certificate(X509 *certificate, size_t *len)
{
	BIO		   *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_X509(bio, certificate);
	return take(bio, len);
}

static char *
pem_of_key(EVP_PKEY *key, char *password, size_t *len)
{
	BIO		   *bio = BIO_new(BIO_s_mem());

	PEM_write_bio_PrivateKey(bio, key, password ? EVP_aes_256_cbc() : NULL, (unsigned char *) password,
							 password ? (int) strlen(password) : 0, NULL, NULL);
	return take(bio, len);
}

static DvAssertion
input(const char *certificate, size_t certificate_len, const char *key, size_t key_len)
{
	DvAssertion a = {0};

	a.certificate = certificate;
	a.certificate_len = certificate_len;
	a.key = key;
	a.key_len = key_len;
	a.audience = "https://login.example/t/token";
	a.client_id = "c";
	a.now = NOW;
	return a;
}

/* ---------------------------------------------------------------- reading */

/* Decode one part of a JWT; the length. */
static size_t
decode(const char *from, size_t len, unsigned char *to)
{
	static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
	unsigned	bits = 0;
	int			have = 0;
	size_t		n = 0;

	for (size_t i = 0; i < len; i++)
	{
		const char *digit = strchr(digits, from[i]);

		if (digit == NULL)
			return 0;
		bits = bits << 6 | (unsigned) (digit - digits);
		have += 6;
		if (have >= 8)
			to[n++] = (unsigned char) (bits >> (have -= 8));
	}
	to[n] = '\0';
	return n;
}

static bool
is_signed_by(const char *jwt, EVP_PKEY *key)
{
	const char *point = strrchr(jwt, '.');
	unsigned char signature[CLAIMS];
	size_t		len = decode(point + 1, strlen(point + 1), signature);
	EVP_MD_CTX *context = EVP_MD_CTX_new();
	EVP_PKEY_CTX *padding;
	bool		good;

	good = EVP_DigestVerifyInit(context, &padding, EVP_sha256(), NULL, key) == 1 &&
		EVP_PKEY_CTX_set_rsa_padding(padding, RSA_PKCS1_PSS_PADDING) == 1 &&
		EVP_PKEY_CTX_set_rsa_pss_saltlen(padding, 32) == 1 &&
		EVP_DigestVerify(context, signature, len, (const unsigned char *) jwt, (size_t) (point - jwt)) == 1;
	EVP_MD_CTX_free(context);
	return good;
}

/* The claims, with the random id taken out. */
static void
read_claims(const char *jwt, char *claims, char *id)
{
	const char *first = strchr(jwt, '.');
	const char *second = strchr(first + 1, '.');
	char	   *at;

	decode(first + 1, (size_t) (second - first - 1), (unsigned char *) claims);
	at = strstr(claims, "\"jti\":\"");
	if (at == NULL)
		return;
	memcpy(id, at + 7, 36);
	id[36] = '\0';
	memmove(at + 7, at + 43, strlen(at + 43) + 1);
}

/* ---------------------------------------------------------------- tests */

static void
try_good(X509 *certificate, EVP_PKEY *key, const DvAssertion *good)
{
	DvAssertion a = *good;
	char		claims[CLAIMS];
	char		ids[2][37] = {"", ""};
	unsigned char digest[32];
	unsigned char header[256];
	char		odd[1200];
	size_t		n;

	is_number(dv_assertion_make(&a), DV_ASSERTION_GOOD, "certificate and key make an assertion");
	ok(is_signed_by(a.jwt, key), "signed with the key");
	read_claims(a.jwt, claims, ids[0]);
	is_text(claims, "{\"aud\":\"https://login.example/t/token\",\"iss\":\"c\",\"sub\":\"c\",\"jti\":\"\",\"nbf\":1799999940,\"iat\":1800000000,\"exp\":1800000480}",
			"its claims");
	decode(a.jwt, strcspn(a.jwt, "."), header);
	X509_digest(certificate, EVP_sha256(), digest, NULL);
	ok(strncmp((char *) header, HEADER, strlen(HEADER)) == 0 && strcmp((char *) header + strlen(HEADER) + 43, "\"}") == 0, "its header");
	n = decode((char *) header + strlen(HEADER), 43, (unsigned char *) claims);
	ok(n == 32 && memcmp(claims, digest, 32) == 0, "which names the certificate");
	is_text(a.valid_from, "2027-01-15 07:00:00 UTC", "from when it is valid");
	is_text(a.valid_to, "2027-01-15 09:00:00 UTC", "until when");
	is_number(a.days_left, 0, "how many days to come");
	free(a.jwt);

	a.client_id = "a\"\\\n\x01\x7f";
	is_number(dv_assertion_make(&a), DV_ASSERTION_GOOD, "an odd id");
	read_claims(a.jwt, claims, ids[1]);
	ok(strstr(claims, "\"sub\":\"a\\\"\\\\\\u000a\\u0001\x7f\"") != NULL, "is quoted as JSON wants it");
	ok(strcmp(ids[0], ids[1]) != 0 && ids[1][14] == '4', "each assertion has an id of its own");
	free(a.jwt);

	memset(odd, '\x02', sizeof(odd) - 1);
	odd[sizeof(odd) - 1] = '\0';
	a.client_id = a.audience = odd;
	is_number(dv_assertion_make(&a), DV_ASSERTION_GOOD, "the longest texts there can be");
	ok(is_signed_by(a.jwt, key), "are signed");
	free(a.jwt);
}

/* Only its dates, without the key. */
static void
try_looking(const DvAssertion *good)
{
	static const struct
	{
		int			at;
		int			days;
	}			cases[] = {{3600 - 2 * 86400 - 1, 2}, {3600 - 2 * 86400, 2}, {3600 - 2 * 86400 + 1, 1}, {3599, 0}, {3601, -1}};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		DvAssertion a = input(good->certificate, good->certificate_len, NULL, 0);

		a.now += cases[i].at;
		ok(dv_assertion_dates(&a), "a look at the dates");
		is_number(a.days_left, cases[i].days, "days to come");
		is_text(a.valid_to, "2027-01-15 09:00:00 UTC", "until when");
		ok(a.jwt == NULL, "nothing is signed");
	}
	{
		DvAssertion a = input(good->key, good->key_len, NULL, 0);

		ok(!dv_assertion_dates(&a) && a.days_left == -1, "no certificate, no dates");
	}
}

/* dates: the seconds about both ends */
static void
try_dates(const DvAssertion *good)
{
	static const struct
	{
		int			at;
		DvAssertionFault fault;
	}			cases[] = {
		{-3601, DV_ASSERTION_NOT_YET}, {-3600, DV_ASSERTION_GOOD}, {3599, DV_ASSERTION_GOOD}, {3600, DV_ASSERTION_EXPIRED}
	};

	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
	{
		DvAssertion a = *good;

		a.now += cases[i].at;
		is_number(dv_assertion_make(&a), cases[i].fault, "a second about an end of its validity");
		ok((a.jwt != NULL) == (cases[i].fault == DV_ASSERTION_GOOD) && a.valid_to[0] != '\0', "an assertion, or none; the date in any case");
		free(a.jwt);
	}
}

static void
is_refused(DvAssertion a, DvAssertionFault fault, const char *name)
{
	is_number(dv_assertion_make(&a), fault, name);
	ok(a.jwt == NULL, "%s: no assertion", name);
}

/* Cut off anywhere, or with any byte another one: refused, and nothing is read that is not there. */
static void
try_damaged(const DvAssertion *good)
{
	int			made = 0;

	for (size_t n = 0; n < good->certificate_len + good->key_len; n += 13)
	{
		bool		in_key = n >= good->certificate_len;
		size_t		at = in_key ? n - good->certificate_len : n;
		DvAssertion a = *good;
		char	   *damaged = exact_copy(in_key ? good->key : good->certificate, in_key ? good->key_len : good->certificate_len);
		char	   *cut = exact_copy(damaged, at);

		if (in_key)
		{
			a.key = cut;
			a.key_len = at;
		}
		else
		{
			a.certificate = cut;
			a.certificate_len = at;
		}
		made += dv_assertion_make(&a) == DV_ASSERTION_GOOD;
		free(a.jwt);
		damaged[at] ^= 0x41;
		if (in_key)
		{
			a.key = damaged;
			a.key_len = good->key_len;
		}
		else
		{
			a.certificate = damaged;
			a.certificate_len = good->certificate_len;
		}
		dv_assertion_make(&a);
		free(a.jwt);
		free(cut);
		free(damaged);
	}
	is_number(made, 0, "half a file makes none");
}

int
main(void)
{
	EVP_PKEY   *keys[] = {make_key(2048), make_key(2048), make_key(0), make_key(1024)};
	X509	   *certificates[4];
	char	   *pem[4];
	char	   *key_pem[4];
	size_t		len[4];
	size_t		key_len[4];
	DvAssertion good;
	char		password[] = "pw";
	char	   *secret;
	size_t		secret_len;

	for (int i = 0; i < 4; i++)
	{
		certificates[i] = make_certificate(keys[i]);
		pem[i] = pem_of_certificate(certificates[i], &len[i]);
		key_pem[i] = pem_of_key(keys[i], NULL, &key_len[i]);
	}
	secret = pem_of_key(keys[0], password, &secret_len);
	good = input(pem[0], len[0], key_pem[0], key_len[0]);
	try_good(certificates[0], keys[0], &good);
	try_looking(&good);
	try_dates(&good);
	try_damaged(&good);
	is_refused(input("", 0, key_pem[0], key_len[0]), DV_ASSERTION_NO_CERTIFICATE, "no certificate");
	is_refused(input(key_pem[0], key_len[0], key_pem[0], key_len[0]), DV_ASSERTION_NO_CERTIFICATE, "a key for a certificate");
	is_refused(input(pem[0], len[0], "", 0), DV_ASSERTION_NO_KEY, "no key");
	is_refused(input(pem[0], len[0], pem[0], len[0]), DV_ASSERTION_NO_KEY, "a certificate for a key");
	is_refused(input(pem[0], len[0], secret, secret_len), DV_ASSERTION_ENCRYPTED, "a key with a password");
	is_refused(input(pem[0], len[0], key_pem[1], key_len[1]), DV_ASSERTION_MISMATCH, "another certificate's key");
	is_refused(input(pem[2], len[2], key_pem[2], key_len[2]), DV_ASSERTION_NOT_RSA, "a key on a curve");
	is_refused(input(pem[3], len[3], key_pem[3], key_len[3]), DV_ASSERTION_SHORT_KEY, "a short key");
	for (int i = 0; i < 4; i++)
	{
		X509_free(certificates[i]);
		EVP_PKEY_free(keys[i]);
		free(pem[i]);
		free(key_pem[i]);
	}
	free(secret);
	return done_testing();
}
