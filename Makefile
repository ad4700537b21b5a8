# oban_manage: a plain PGXS extension.
#
#   make && make install        build, install into the server of $(PG_CONFIG)
#   make installcheck           regress, isolation and TAP tests against a running server
#   dev/test                    all of it and the checks of the code, on a throwaway server

EXTENSION = oban_manage
MODULE_big = oban_manage
OBJS = \
	src/batches.o \
	src/callable.o \
	src/calls.o \
	src/cancel_retry_delete.o \
	src/change_values.o \
	src/changes.o \
	src/conditions.o \
	src/filter.o \
	src/guard.o \
	src/guard_rows.o \
	src/job_argument.o \
	src/job_changes.o \
	src/job_columns.o \
	src/job_ids.o \
	src/job_result.o \
	src/jobs_table.o \
	src/json_keys.o \
	src/lower_case.o \
	src/oban_manage.o \
	src/outcomes.o \
	src/plan_cache.o \
	src/queries.o \
	src/read_job.o \
	src/signals.o \
	src/trigger_contexts.o \
	src/trigger_rows.o \
	src/triggers.o \
	src/update.o \
	src/update_steps.o \
	src/update_with.o \
	src/update_with_calls.o
DATA = oban_manage--1.0.sql
PGFILEDESC = "oban_manage - manage Oban jobs from SQL"

REGRESS = $(patsubst sql/%.sql,%,$(sort $(wildcard sql/*.sql)))
ISOLATION = $(patsubst specs/%.spec,%,$(sort $(wildcard specs/*.spec)))
TAP_TESTS = 1

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# PGXS has no header dependencies unless the server was built with them.
$(OBJS): $(wildcard src/*.h)
