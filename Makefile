# oban_manage: a plain PGXS extension.
#
#   make && make install        build, install into the server of $(PG_CONFIG)
#   make installcheck           regress, isolation and TAP tests against a running server
#   make dist                   the archive for PGXN, of what is committed
#   dev/test                    all of it and the checks of the code, on a throwaway server

EXTENSION = oban_manage
MODULE_big = oban_manage
# The five floors, from the lowest; docs/architecture.md
OBJS = \
	src/jobs/columns.o \
	src/jobs/errors.o \
	src/jobs/job_ids.o \
	src/jobs/job_result.o \
	src/jobs/jobs_table.o \
	src/jobs/settings.o \
	src/jobs/signals.o \
	src/statements/assignments.o \
	src/statements/conditions.o \
	src/statements/job_columns.o \
	src/statements/plan_cache.o \
	src/statements/plan_order.o \
	src/statements/queries.o \
	src/statements/rights.o \
	src/statements/rows.o \
	src/statements/run_query.o \
	src/statements/verb_table.o \
	src/arguments/callable.o \
	src/arguments/change_values.o \
	src/arguments/changes.o \
	src/arguments/filter.o \
	src/arguments/filter_values.o \
	src/arguments/job_argument.o \
	src/arguments/json_keys.o \
	src/arguments/lower_case.o \
	src/arguments/scalar_arguments.o \
	src/verbs/parts.o \
	src/verbs/pending_changes.o \
	src/verbs/read_ahead.o \
	src/verbs/run.o \
	src/verbs/selection.o \
	src/verbs/transitions.o \
	src/verbs/try.o \
	src/verbs/update.o \
	src/verbs/update_steps.o \
	src/verbs/update_with.o \
	src/functions/batch_progress.o \
	src/functions/batch_transactions.o \
	src/functions/batches.o \
	src/functions/by_filter.o \
	src/functions/change_jobs.o \
	src/functions/guard.o \
	src/functions/guard_moves.o \
	src/functions/guard_rows.o \
	src/functions/manage_jobs.o \
	src/functions/outcomes.o \
	src/functions/read_job.o \
	src/functions/trigger_contexts.o \
	src/functions/trigger_rows.o \
	src/functions/triggers.o \
	src/functions/update_jobs.o \
	src/functions/update_jobs_with.o
DATA = oban_manage--1.0.sql
PGFILEDESC = "oban_manage - manage Oban jobs from SQL"

# PGXS knows $(srcdir), which in a build out of tree is another directory, and reads these lists later.
REGRESS = $(patsubst %.sql,%,$(notdir $(sort $(wildcard $(srcdir)/sql/*.sql))))
ISOLATION = $(patsubst %.spec,%,$(notdir $(sort $(wildcard $(srcdir)/specs/*.spec))))
TAP_TESTS = 1

PG_CPPFLAGS = -I$(srcdir)/src

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

# Out of tree make finds the sources only, and no objects of a build in the tree, as it would by VPATH.
srcdir := $(srcdir)
override VPATH :=
vpath %.c $(srcdir)
vpath %.control $(srcdir)

# PGXS has no header dependencies unless the server was built with them. It makes no folders for objects.
bitcode = $(OBJS:.o=.bc)
folders = $(sort $(dir $(OBJS)))
$(OBJS) $(bitcode): $(wildcard $(srcdir)/src/*/*.h) | $(folders)
$(folders):
	$(MKDIR_P) $@

# Out of tree the folders go too. In the tree they are not empty.
clean: clean-folders
clean-folders:
	rm -f $(OBJS) $(bitcode)
	rmdir $(folders) src 2>/dev/null || true

# Not DOCS of PGXS, which puts every extension's README.md into one directory. So links from page to page
# work too.
docs = $(docdir)/extension/$(EXTENSION)
install: install-docs
install-docs:
	$(MKDIR_P) '$(DESTDIR)$(docs)/docs'
	$(INSTALL_DATA) $(addprefix $(srcdir)/,README.md CHANGELOG.md SECURITY.md LICENSE) '$(DESTDIR)$(docs)/'
	$(INSTALL_DATA) $(wildcard $(srcdir)/docs/*.md) '$(DESTDIR)$(docs)/docs/'
uninstall: uninstall-docs
uninstall-docs:
	rm -rf '$(DESTDIR)$(docs)'

release = $(EXTENSION)-$(shell sed -n '/^  "version"/s/[^0-9.]//gp' $(srcdir)/META.json)
dist:
	git -C $(srcdir) archive --format=zip --prefix=$(release)/ --output='$(CURDIR)/$(release).zip' HEAD || \
		{ echo 'make dist takes git, and a clone of the repository.' >&2; exit 1; }

.PHONY: clean-folders install-docs uninstall-docs dist
