/*
 * batch_transactions.h
 *		Runs the steps of a procedure, each in a transaction of its own.
 */
#ifndef OM_BATCH_TRANSACTIONS_H
#define OM_BATCH_TRANSACTIONS_H

#include "verbs/verbs.h"

#define OM_N_KEPT_SETTINGS 4

typedef struct OmTransactions
{
	const char *settings[OM_N_KEPT_SETTINGS]; /* their values at the start */
} OmTransactions;

extern void om_transactions_check(FunctionCallInfo fcinfo);
extern void om_transactions_init(OmTransactions *transactions);
extern void om_transactions_run_once(const OmTransactions *transactions, OmTryStep step,
									 void *state);
extern void om_transactions_run(const OmTransactions *transactions, OmTryStep step, void *state);
extern void om_transactions_sleep(double seconds);

#endif /* OM_BATCH_TRANSACTIONS_H */
