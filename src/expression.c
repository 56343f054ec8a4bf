/*
 * expression.c - SQL expressions of column maps and filters
 *
 * An expression is parsed alone, as PL/pgSQL parses the right side of an
 * assignment, so that no text can end it early and become part of another
 * statement. It is analysed against the columns of one staging table under the
 * caller's search_path, and written down again with every name qualified. What
 * is written down runs under pg_catalog, pg_temp and means the same for ever.
 *
 * Allowed: any scalar expression over the row, functions, casts, CASE, and
 * sub-selects in parentheses. Not allowed at the top: FROM and the other
 * clauses of a query, aggregates, window functions, set-returning functions,
 * and names of temporary objects.
 */
#include "postgres.h"

#include "access/table.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "nodes/makefuncs.h"
#include "nodes/nodeFuncs.h"
#include "optimizer/optimizer.h"
#include "parser/parse_coerce.h"
#include "parser/parse_collate.h"
#include "parser/parse_expr.h"
#include "parser/parse_relation.h"
#include "parser/parser.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"
#include "utils/ruleutils.h"

#include "call.h"

PG_FUNCTION_INFO_V1(dv_check_filter);
PG_FUNCTION_INFO_V1(dv_check_query);
PG_FUNCTION_INFO_V1(dv_compile_expressions);

/* Name of the staging row in what is written down; a contract with the engine. */
#define ROW_ALIAS "s"

/* Most expressions in one list: as many as a composite key can have columns. */
#define MAX_EXPRESSIONS INDEX_MAX_KEYS

typedef struct Compiled
{
	char	   *sql;
	Oid			type;
	bool		is_volatile;
} Compiled;

typedef struct Frame
{
	const char *text;
	const char *table;
} Frame;

/* Positions in errors are the expression's, not the calling statement's. */
static void
explain_error(void *arg)
{
	Frame	   *frame = arg;
	int			position = geterrposition();

	if (position > 0)
	{
		errposition(0);
		internalerrposition(position);
		internalerrquery(frame->text);
	}
	errcontext("expression \"%s\" over staging table %s", frame->text, frame->table);
}

/* Throw for a clause that makes the text more than a list of expressions. */
static void
refuse_clause(const char *clause)
{
	ereport(ERROR,
			(errcode(ERRCODE_SYNTAX_ERROR),
			 errmsg("an expression cannot have %s", clause),
			 errhint("Write one SQL expression over the staging table's columns; put a query into parentheses.")));
}

static void
check_clauses(SelectStmt *stmt)
{
	if (stmt->distinctClause != NIL)
		refuse_clause("DISTINCT");
	if (stmt->fromClause != NIL)
		refuse_clause("a FROM clause");
	if (stmt->whereClause != NULL)
		refuse_clause("a WHERE clause");
	if (stmt->groupClause != NIL)
		refuse_clause("a GROUP BY clause");
	if (stmt->havingClause != NULL)
		refuse_clause("a HAVING clause");
	if (stmt->windowClause != NIL)
		refuse_clause("a WINDOW clause");
	if (stmt->sortClause != NIL)
		refuse_clause("an ORDER BY clause");
	if (stmt->limitOffset != NULL || stmt->limitCount != NULL)
		refuse_clause("a LIMIT clause");
	if (stmt->lockingClause != NIL)
		refuse_clause("a locking clause");
}

/* Parse the text alone and return its targets (ResTarget), "expected" many. */
static List *
parse_targets(const char *text, int expected)
{
	List	   *raw = raw_parser(text, RAW_PARSE_PLPGSQL_EXPR);
	SelectStmt *stmt;
	ListCell   *lc;

	stmt = castNode(SelectStmt, linitial_node(RawStmt, raw)->stmt);
	if (stmt->targetList == NIL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the expression is empty")));
	check_clauses(stmt);
	if (list_length(stmt->targetList) != expected)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg_plural("exactly %d expression is needed, not %d",
							   "exactly %d expressions are needed, not %d",
							   expected, expected, list_length(stmt->targetList)),
				 expected == 1 ? 0 :
				 errhint("Write one expression for each column of the key, in its order, separated by commas.")));
	foreach(lc, stmt->targetList)
	{
		ResTarget  *target = lfirst_node(ResTarget, lc);

		if (target->name != NULL)
			refuse_clause("a column alias");
		if (IsA(target->val, ColumnRef) &&
			IsA(llast(((ColumnRef *) target->val)->fields), A_Star))
			refuse_clause("\"*\"");
	}
	return stmt->targetList;
}

/*
 * dv_check_filter(filter text) parses a condition alone and leaves its names to
 * whoever runs it. Errors: those of the parser, and syntax_error for clauses.
 */
Datum
dv_check_filter(PG_FUNCTION_ARGS)
{
	(void) parse_targets(text_to_cstring(PG_GETARG_TEXT_PP(0)), 1);
	PG_RETURN_VOID();
}

/*
 * dv_check_query(query text) parses a text alone and accepts one query that only
 * reads, so that it can stand in brackets in a statement of ours. Errors: those
 * of the parser, and syntax_error for more than one statement or another kind.
 */
Datum
dv_check_query(PG_FUNCTION_ARGS)
{
	List	   *raw = raw_parser(text_to_cstring(PG_GETARG_TEXT_PP(0)), RAW_PARSE_DEFAULT);
	Node	   *stmt = list_length(raw) == 1 ? linitial_node(RawStmt, raw)->stmt : NULL;

	if (stmt == NULL || !IsA(stmt, SelectStmt) || ((SelectStmt *) stmt)->intoClause != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_SYNTAX_ERROR),
				 errmsg("the text is not one query"),
				 errhint("Write one SELECT, without INTO and without a semicolon behind it.")));
	PG_RETURN_VOID();
}

/* Parse state that sees the staging row as "s" and under the table's own name. */
static ParseState *
make_parse_state(Relation rel, const char *text)
{
	ParseState *pstate = make_parsestate(NULL);
	ParseNamespaceItem *item;

	pstate->p_sourcetext = text;
	item = addRangeTableEntryForRelation(pstate, rel, AccessShareLock,
										 makeAlias(ROW_ALIAS, NIL), true, true);
	addNSItemToQuery(pstate, item, false, true, true);
	if (strcmp(RelationGetRelationName(rel), ROW_ALIAS) != 0)
	{
		ParseNamespaceItem *same = palloc(sizeof(ParseNamespaceItem));

		*same = *item;
		same->p_names = copyObject(item->p_names);
		same->p_names->aliasname = pstrdup(RelationGetRelationName(rel));
		addNSItemToQuery(pstate, same, false, true, false);
	}
	return pstate;
}

static bool
is_temporary(Oid function, void *context)
{
	(void) context;
	return isAnyTempNamespace(get_func_namespace(function));
}

/*
 * Functions of a session's temporary schema are not there for a worker, and
 * another session's functions may bear the same names by then.
 */
static bool
uses_temporary_function(Node *node, void *context)
{
	if (node == NULL)
		return false;
	if (check_functions_in_node(node, is_temporary, context))
		return true;
	if (IsA(node, Query))
		return query_tree_walker((Query *) node, uses_temporary_function, context, 0);
	return expression_tree_walker(node, uses_temporary_function, context);
}

/* Analyse one target; the checks that only analysis can make. */
static Node *
analyse(ParseState *pstate, ResTarget *target)
{
	Node	   *expr = transformExpr(pstate, target->val, EXPR_KIND_SELECT_TARGET);
	const char *what = pstate->p_hasAggs ? "aggregate functions" :
		pstate->p_hasWindowFuncs ? "window functions" :
		pstate->p_hasTargetSRFs ? "set-returning functions" : NULL;
	Query	   *holder;

	if (what != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("%s are not allowed in an expression over one row", what),
				 errhint("Put a query that uses them into parentheses, or prepare the value in the staging table.")));
	if (exprType(expr) == UNKNOWNOID)
		expr = coerce_type(pstate, expr, UNKNOWNOID, TEXTOID, -1, COERCION_IMPLICIT,
						   COERCE_IMPLICIT_CAST, -1);
	if (get_typtype(exprType(expr)) == TYPTYPE_PSEUDO)
		ereport(ERROR,
				(errcode(ERRCODE_DATATYPE_MISMATCH),
				 errmsg("an expression cannot be of type %s", format_type_be(exprType(expr)))));
	assign_expr_collations(pstate, expr);

	holder = makeNode(Query);
	holder->commandType = CMD_SELECT;
	holder->jointree = makeFromExpr(NIL, NULL);
	holder->targetList = list_make1(makeTargetEntry((Expr *) expr, 1, NULL, false));
	if (isQueryUsingTempRelation(holder) || uses_temporary_function(expr, NULL))
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("an expression cannot use a temporary table or function"),
				 errhint("Background workers do not see your session's temporary objects.")));
	return expr;
}

/* Compile the list; runs as the role it is compiled for. */
static void
compile(Relation rel, const char *text, int expected, Compiled *compiled)
{
	List	   *targets = parse_targets(text, expected);
	ParseState *pstate = make_parse_state(rel, text);
	List	   *context = deparse_context_for(ROW_ALIAS, RelationGetRelid(rel));
	List	   *exprs = NIL;
	ListCell   *lc;
	int			level;
	int			i = 0;

	foreach(lc, targets)
		exprs = lappend(exprs, analyse(pstate, lfirst_node(ResTarget, lc)));

	/* Under an empty path everything outside pg_catalog is written qualified. */
	level = NewGUCNestLevel();
	(void) set_config_option("search_path", "", PGC_USERSET, PGC_S_SESSION,
							 GUC_ACTION_SAVE, true, 0, false);
	foreach(lc, exprs)
	{
		Node	   *expr = lfirst(lc);

		compiled[i].sql = deparse_expression(expr, context, true, false);
		compiled[i].type = exprType(expr);
		compiled[i].is_volatile = contain_volatile_functions(expr);
		i++;
	}
	AtEOXact_GUC(true, level);
	free_parsestate(pstate);
}

/*
 * The name at that position of the text, in quotes, if it is a column's but for its
 * capitals: PostgreSQL folds what is not quoted. NULL: it is not.
 */
static const char *
quoted_column(Relation rel, const char *text, int position)
{
	static const char word[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_$.";
	const char *name = text + pg_mbcharcliplen(text, (int) strlen(text), Max(position - 1, 0));
	size_t		len = strspn(name, word);
	TupleDesc	desc = RelationGetDescr(rel);
	int			i;

	for (i = (int) len - 1; i >= 0; i--)
		if (name[i] == '.')
		{
			name += i + 1;
			len -= i + 1;
			break;
		}
	for (i = 0; i < desc->natts; i++)
	{
		const char *column = NameStr(TupleDescAttr(desc, i)->attname);

		if (!TupleDescAttr(desc, i)->attisdropped && strlen(column) == len && pg_strncasecmp(column, name, len) == 0)
			return quote_identifier(column);
	}
	return NULL;
}

/* An unknown name: say how it is written, or which names there are where none is likely. */
static void
compile_with_hint(Relation rel, const char *text, int expected, Compiled *compiled)
{
	MemoryContext context = CurrentMemoryContext;

	PG_TRY();
	{
		compile(rel, text, expected, compiled);
	}
	PG_CATCH();
	{
		ErrorData  *error;
		const char *quoted;

		MemoryContextSwitchTo(context);
		error = CopyErrorData();
		FlushErrorState();
		quoted = error->sqlerrcode == ERRCODE_UNDEFINED_COLUMN ? quoted_column(rel, text, error->internalpos) : NULL;
		if (quoted != NULL)
			error->hint = psprintf("Names with capital letters stand in double quotes: %s.", quoted);
		else if (error->sqlerrcode == ERRCODE_UNDEFINED_COLUMN && error->hint == NULL)
			error->hint = psprintf("An expression sees the columns of staging table \"%s\", plainly or as %s.column.",
								   RelationGetRelationName(rel), ROW_ALIAS);
		ReThrowError(error);
	}
	PG_END_TRY();
}

/* One row of arrays: SQL and type of each expression, and whether any is volatile. */
static Datum
as_record(FunctionCallInfo fcinfo, const Compiled *compiled, int n)
{
	Datum		sql[MAX_EXPRESSIONS];
	Datum		types[MAX_EXPRESSIONS];
	Datum		values[3];
	bool		nulls[3] = {false, false, false};
	bool		is_volatile = false;
	TupleDesc	desc;
	int			i;

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	for (i = 0; i < n; i++)
	{
		sql[i] = CStringGetTextDatum(compiled[i].sql);
		types[i] = ObjectIdGetDatum(compiled[i].type);
		is_volatile |= compiled[i].is_volatile;
	}
	values[0] = PointerGetDatum(construct_array(sql, n, TEXTOID, -1, false, TYPALIGN_INT));
	values[1] = PointerGetDatum(construct_array(types, n, REGTYPEOID, sizeof(Oid), true,
												TYPALIGN_INT));
	values[2] = BoolGetDatum(is_volatile);
	return HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls));
}

/*
 * dv_compile_expressions(role oid, staging regclass, expression text, expected int)
 * checks a comma-separated list of "expected" expressions and returns them
 * deparsed over the alias s, with their types.
 *
 * Analysed as "role", whose rights they will run with, in a security-restricted
 * operation: analysis can call input functions of the table's types.
 * Errors: those of PostgreSQL's parser, with positions in the expression;
 * syntax_error, feature_not_supported, datatype_mismatch as above.
 */
Datum
dv_compile_expressions(PG_FUNCTION_ARGS)
{
	char	   *source = text_to_cstring(PG_GETARG_TEXT_PP(2));
	int			expected = PG_GETARG_INT32(3);
	const char *path = dv_call_search_path();
	Compiled	compiled[MAX_EXPRESSIONS] = {0};
	ErrorContextCallback callback;
	DvSwitch	was;
	Relation	rel;
	Frame		frame;
	int			level;

	if (expected < 1 || expected > MAX_EXPRESSIONS)
		elog(ERROR, "cannot compile %d expressions", expected);
	rel = try_table_open(PG_GETARG_OID(1), AccessShareLock);
	if (rel == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_UNDEFINED_TABLE),
				 errmsg("staging table with OID %u does not exist", PG_GETARG_OID(1)),
				 errhint("Take it out with dvmig.drop_table('%u').", PG_GETARG_OID(1))));
	frame.text = source;
	frame.table = quote_qualified_identifier(get_namespace_name(RelationGetNamespace(rel)),
											 RelationGetRelationName(rel));
	callback.callback = explain_error;
	callback.arg = &frame;
	callback.previous = error_context_stack;
	error_context_stack = &callback;

	level = NewGUCNestLevel();
	if (path != NULL)
		(void) set_config_option("search_path", path, PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
	was = dv_call_become(PG_GETARG_OID(0), true);
	compile_with_hint(rel, source, expected, compiled);
	dv_call_restore(was);
	AtEOXact_GUC(false, level);

	error_context_stack = callback.previous;
	table_close(rel, NoLock);
	return as_record(fcinfo, compiled, expected);
}
