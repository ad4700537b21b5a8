/*
 * scalar_arguments.c
 *		Plain arguments of the calls over many jobs: switches, limits, intervals, and the
 *		callable with its context.
 *
 * Calls callable.c and json_keys.c; the functions use it.
 */
#include "arguments/arguments.h"

#include "utils/datetime.h"

static void
refuse_null(FunctionCallInfo fcinfo, int argno, const char *name)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("%s must not be null", name)));
}

bool
om_boolean_argument(FunctionCallInfo fcinfo, int argno, const char *name)
{
	refuse_null(fcinfo, argno, name);
	return PG_GETARG_BOOL(argno);
}

/*
 * Add the argument max_jobs of a function to a filter; NULL is no limit.
 */
void
om_limit_argument(FunctionCallInfo fcinfo, int argno, OmFilter *filter)
{
	int32 max_jobs;

	if (PG_ARGISNULL(argno))
		return;
	max_jobs = PG_GETARG_INT32(argno);
	if (max_jobs < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE), errmsg("max_jobs must not be negative"),
				 errhint("Pass NULL for no limit.")));
	om_filter_add(filter, OM_LIMIT, max_jobs);
}

/*
 * The argument max_jobs of a procedure, which walks until it has changed so many jobs;
 * NULL is no limit.
 */
int64
om_max_jobs_argument(FunctionCallInfo fcinfo, int argno)
{
	if (PG_ARGISNULL(argno))
		return PG_INT64_MAX;
	if (PG_GETARG_INT64(argno) < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("max_jobs must be at least 1"), errhint("Pass NULL for no limit.")));
	return PG_GETARG_INT64(argno);
}

int32
om_batch_size_argument(FunctionCallInfo fcinfo, int argno)
{
	refuse_null(fcinfo, argno, "batch_size");
	if (PG_GETARG_INT32(argno) < 1)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("batch_size must be at least 1")));
	return PG_GETARG_INT32(argno);
}

/*
 * An interval in microseconds, with months of 30 days.
 */
double
om_interval_argument(FunctionCallInfo fcinfo, int argno, const char *name)
{
	const Interval *interval;
	double microseconds;

	refuse_null(fcinfo, argno, name);
	interval = PG_GETARG_INTERVAL_P(argno);
	microseconds = (double) interval->time +
				   ((double) interval->month * DAYS_PER_MONTH + interval->day) * USECS_PER_DAY;
	if (microseconds < 0)
		ereport(ERROR, (errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						errmsg("%s must not be negative", name)));
	return microseconds;
}

/*
 * A callable for a jobs table that is locked.
 *
 * Errors: NULL (22004), and those of om_callable_prepare.
 */
OmCallable *
om_callable_argument(FunctionCallInfo fcinfo, int argno, Oid jobs)
{
	if (PG_ARGISNULL(argno))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED), errmsg("callable must not be null"),
				 errhint("Pass the name of a function that takes the job and returns the "
						 "changes as jsonb.")));
	return om_callable_prepare(fcinfo, PG_GETARG_OID(argno), jobs);
}

/*
 * The context of a callable.  It is detoasted here, once, not in each call of the
 * callable, nor after a commit, when the stored value may be gone.
 */
NullableDatum
om_context_argument(FunctionCallInfo fcinfo, int argno)
{
	const Jsonb *json = om_jsonb_argument(fcinfo, argno);

	return (NullableDatum){.value = PointerGetDatum(json), .isnull = (json == NULL)};
}
