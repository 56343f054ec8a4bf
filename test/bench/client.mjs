// client.mjs - the tuned client that test/bench/run compares dvmig with
//
// What a good programmer writes for one evening's load: a cursor read ahead,
// rows as arrays of text, JSON by hand, batches of 1,000, kept-alive
// connections, several of them in flight, outcomes by COPY, flags by one UPDATE
// a batch, commits that do not wait for the disk. It has no retries, no check
// of row versions and no key on its outcomes: it is what dvmig is measured
// against, not what anybody should load with.
//
//   node client.mjs URL TOKEN IN_FLIGHT TABLE OUTCOME_TABLE
import pg from 'pg';
import Cursor from 'pg-cursor';
import { from as copyFrom } from 'pg-copy-streams';
import { Pool } from 'undici';

const [url, token, inFlight, table, outcomes] = process.argv.slice(2);
const BATCH = 1000;
const RECORDERS = 4;
const asText = { getTypeParser: () => (value) => value };
const target = new URL(url);
const pool = new Pool(target.origin, { connections: Number(inFlight), pipelining: 1, headersTimeout: 0, bodyTimeout: 0 });
const headers = {
	authorization: `Bearer ${token}`, 'content-type': 'application/json', accept: 'application/json',
	'odata-version': '4.0', 'odata-maxversion': '4.0',
};
const texts = ['name', 'accountnumber', 'telephone1', 'fax', 'websiteurl', 'emailaddress1', 'address1_line1', 'address1_city',
	'address1_postalcode', 'description'];

async function connect() {
	const client = new pg.Client({ host: process.env.PGHOST, port: process.env.PGPORT, user: process.env.PGUSER, database: process.env.PGDATABASE });
	await client.connect();
	return client;
}

// One row as JSON: the numbers and the instant are written as PostgreSQL prints them.
function encode(row) {
	let json = '{"@odata.type":"Microsoft.Dynamics.CRM.account"';
	for (let i = 0; i < texts.length; i++) {
		if (row[i + 1] !== null) json += `,"${texts[i]}":${JSON.stringify(row[i + 1])}`;
	}
	return `${json},"new_legacyid":"${row[0]}","revenue":${row[11]},"numberofemployees":${row[12]},"creditonhold":${row[13] === 't'},"lastonholdtime":"${row[14]}"}`;
}

async function send(rows) {
	const { statusCode, body } = await pool.request({
		path: target.pathname, method: 'POST', headers, body: `{"Targets":[${rows.map(encode).join(',')}]}`,
	});
	const answer = await body.json();
	if (statusCode !== 200) throw new Error(`answered ${statusCode}: ${JSON.stringify(answer)}`);
	return answer.Ids;
}

function copy(client, text) {
	return new Promise((resolve, reject) => {
		const stream = client.query(copyFrom(`COPY ${outcomes} (account_id, dataverse_id) FROM STDIN`));
		stream.on('finish', resolve).on('error', reject);
		stream.end(text);
	});
}

async function record(client, rows, ids) {
	await client.query('BEGIN');
	await client.query('SET LOCAL synchronous_commit = off');
	await copy(client, rows.map((row, i) => `${row[0]}\t${ids[i]}\n`).join(''));
	await client.query({
		name: 'flag',
		text: `UPDATE ${table} s SET processing_flag = 'P', dataverse_id = u.id FROM unnest($1::int[], $2::uuid[]) u(k, id) WHERE s.account_id = u.k AND s.processing_flag = 'U'`,
		values: [rows.map((row) => row[0]), ids],
	});
	await client.query('COMMIT');
}

// A recorder at a time for each batch: those that are free wait in a list.
const free = await Promise.all(Array.from({ length: RECORDERS }, connect));
const waiting = [];
const take = () => (free.length > 0 ? Promise.resolve(free.pop()) : new Promise((resolve) => waiting.push(resolve)));
const give = (client) => (waiting.length > 0 ? waiting.shift()(client) : free.push(client));

async function carry(rows) {
	const ids = await send(rows);
	const client = await take();
	try {
		await record(client, rows, ids);
	} finally {
		give(client);
	}
}

const reader = await connect();
await reader.query('BEGIN');
const cursor = reader.query(new Cursor(
	`SELECT account_id, ${texts.join(', ')}, revenue, numberofemployees, creditonhold, to_char(lastonholdtime AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS"Z"') FROM ${table} WHERE processing_flag = 'U' ORDER BY account_id`,
	[], { rowMode: 'array', types: asText }));
const running = new Set();
const began = performance.now();
for (;;) {
	const rows = await cursor.read(BATCH);
	if (rows.length === 0) break;
	const one = carry(rows);
	running.add(one);
	one.finally(() => running.delete(one));
	if (running.size >= Number(inFlight) + RECORDERS) await Promise.race(running);
}
await Promise.all(running);
console.log(((performance.now() - began) / 1000).toFixed(6));
await reader.query('COMMIT');
await Promise.all([reader.end(), pool.close(), ...free.map((client) => client.end())]);
