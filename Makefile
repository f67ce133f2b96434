# Weir. `make run` starts a whole node, `make check` runs all tests; both install what is missing (as root).
#
# V=release (default), V=asan, V=tsan or V=fuzz choose how it is built; each has its own folder below build/.

.DEFAULT_GOAL := all
V ?= release
.DEFAULT_GOAL := all
B := build/$(V)
CC := $(if $(filter fuzz,$(V)),clang,gcc)
SHELL := /bin/bash

CSTD := -std=gnu2x -D_GNU_SOURCE
WARN := -Wall -Wextra -Werror -Wshadow -Wconversion -Wswitch-enum -Wstrict-prototypes -Wvla \
	-Wmissing-prototypes -Wno-unused-parameter
OPT_release := -O2 -g -fno-omit-frame-pointer -D_FORTIFY_SOURCE=2 -fstack-protector-strong
OPT_asan := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=undefined
OPT_tsan := -O1 -g -fno-omit-frame-pointer -fsanitize=thread
# clang's; what to warn of is for gcc to say
OPT_fuzz := -w -O1 -g -fno-omit-frame-pointer -fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
CFLAGS := $(CSTD) $(WARN) $(OPT_$(V)) -fPIE -pthread -I. -MMD -MP
LDFLAGS := $(OPT_$(V)) -pie -pthread -Wl,-z,relro,-z,now

# One static archive a folder; arrows point down only (tests/include_directions checks it).
ARCHIVES := spool/base spool/mail spool/store dataplane/smtp dataplane/net dataplane/lookup dataplane/policy \
	dataplane scanner control bench
# The vendor libraries of each folder.
LIBS_spool := -luring -lxxhash -lidn2 -lcrypt -lcrypto
LIBS_dataplane := -lssl -lcares -lhiredis -lm
LIBS_scanner := -lclamav -lseccomp
LIBS_control := -lssl -lyaml -ljansson -lmicrohttpd -lcurl -lhiredis
JEMALLOC_release := -ljemalloc

# The DPDK transport is built when libdpdk-dev is there and lwIP's source package can be had (deploy/build-lwip); DPDK=no leaves it out. Otherwise the
# build goes on without it, and weirctl status says why.
DPDK ?= auto
LWIP := no
LWIP_WHY := libdpdk-dev is not installed
ifeq ($(DPDK),no)
LWIP_WHY := DPDK=no was asked for
else ifeq ($(shell pkg-config --exists libdpdk 2>/dev/null && echo yes),yes)
ifneq ($(filter-out clean deps deps-run,$(or $(MAKECMDGOALS),all)),)
include build/lwip/lwip.mk
endif
endif
ifeq ($(LWIP),yes)
LWIP_A := build/lwip/liblwip.a
LIBS_dpdk := -lrte_ethdev -lrte_mbuf -lrte_mempool -lrte_eal
LIBS_dataplane += $(LIBS_dpdk)
DPDK_CFLAGS := $(patsubst -I%,-isystem%,$(shell pkg-config --cflags libdpdk))
NO_DPDK :=
else
NO_DPDK := $(LWIP_WHY)
endif
# It changes when the answer does, so that what depends on it is built again.
ifneq ($(filter-out clean deps deps-run,$(or $(MAKECMDGOALS),all)),)
$(shell mkdir -p $(B) && echo '$(NO_DPDK)' | cmp -s - $(B)/no-dpdk || echo '$(NO_DPDK)' >$(B)/no-dpdk)
endif
build/lwip/lwip.mk: deploy/build-lwip $(wildcard dataplane/net/lwip/*.h dataplane/net/lwip/arch/*.h)
	@CC=$(CC) deploy/build-lwip build/lwip dataplane/net/lwip
build/lwip/liblwip.a: build/lwip/lwip.mk
	@touch $@

archive = $(B)/lib$(subst /,-,$(1)).a
main_c := %/main.c %/weirctl.c %/weir_run.c
not_built := $(if $(LWIP_A),dataplane/net/net_no_dpdk.c,$(wildcard dataplane/net/net_dpdk*.c))
sources = $(filter-out $(main_c) $(not_built),$(wildcard $(1)/*.c))
objects = $(patsubst %.c,$(B)/%.o,$(call sources,$(1)))

PROGRAMS := weir-dataplane weir-scanner weir-control weirctl weir weir-bench
SPOOL_A := $(call archive,spool/store) $(call archive,spool/mail) $(call archive,spool/base)
NET_A := $(call archive,dataplane/net) $(LWIP_A)
DATAPLANE_A := $(call archive,dataplane) $(call archive,dataplane/policy) $(call archive,dataplane/lookup) \
	$(NET_A) $(call archive,dataplane/smtp)

MAN := $(patsubst %.scd,$(B)/%,$(wildcard */*.scd))

.PHONY: all programs run check check-crash crash-programs sim-program unit fuzz deps deps-run clean
.SECONDARY:
all: deps
	@$(MAKE) --no-print-directory programs

programs: $(PROGRAMS:%=$(B)/%) $(B)/signatures/weir-test.ndb $(MAN)
	@$(if $(NO_DPDK),echo "built without the DPDK transport: $(NO_DPDK)",true)

# What Debian 12 must have; asked of apt only when something is missing, and only as root.
DEPS_BUILD := gcc make pkg-config liburing-dev libssl-dev libhiredis-dev libc-ares-dev libclamav-dev libjemalloc-dev libyaml-dev \
	libjansson-dev libmicrohttpd-dev libcurl4-openssl-dev libseccomp-dev libidn2-dev libxxhash-dev libcrypt-dev scdoc redis-server procps
# Exim, OpenSMTPD and nodemailer are unpacked by the tests (tests/support/counterparts), as MTAs cannot be installed together; the libraries that they need can.
LIBS_COUNTERPARTS := libdb5.3 libgnutls-dane0 libidn12 libnsl2 libevent-2.1-7
DEPS_CHECK := libcmocka-dev python3-pytest python3-pytest-xdist swaks libnet-ssleay-perl msmtp postfix dovecot-core dovecot-lmtpd nsd mandoc unbound ldnsutils \
	nginx openssl sslscan haproxy curl nodejs python3-dkim $(LIBS_COUNTERPARTS)
# For the DPDK transport, which everything else goes on without.
DEPS_DPDK := libdpdk-dev dpkg-dev iproute2 ethtool
TRANSPORT ?= io_uring
# For the example organisation.
DEPS_EXAMPLE := unbound nginx openssl swaks libnet-ssleay-perl
EXAMPLE ?= no
deps-run:
	@deploy/apt-missing $(DEPS_BUILD)
	@$(if $(filter yes,$(EXAMPLE)),deploy/apt-missing $(DEPS_EXAMPLE))
	@$(if $(filter dpdk,$(TRANSPORT)),deploy/apt-missing $(DEPS_DPDK) swaks)
deps:
	@deploy/apt-missing $(DEPS_BUILD) $(DEPS_CHECK)
	@deploy/apt-missing $(DEPS_DPDK) || echo "the DPDK transport is left out"

# TRANSPORT=dpdk: in a network namespace of its own, with a second one for clients (deploy/run-dpdk). EXAMPLE=yes: with an organisation around it (deploy/example/run).
run: deps-run
	@$(MAKE) --no-print-directory -s -j2 programs
ifeq ($(TRANSPORT),dpdk)
	@exec deploy/run-dpdk $(B) run $(CONFIG)
else ifeq ($(EXAMPLE),yes)
	@BUILD=$(B) exec deploy/example/run
else
	@exec $(B)/weir run --run run $(if $(CONFIG),--config $(CONFIG))
endif

$(B)/signatures/%: scanner/testdb/%
	@mkdir -p $(@D)
	cp $< $@

$(B)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -c $< -o $@

DPDK_O := $(patsubst %.c,$(B)/%.o,$(wildcard dataplane/net/net_dpdk*.c tests/unit/dataplane/net/net_dpdk*.c))
$(DPDK_O): CFLAGS += -isystem build/lwip/include -isystem dataplane/net/lwip
$(B)/dataplane/net/net_dpdk_port.o: CFLAGS += $(DPDK_CFLAGS)
# these say whether DPDK is there
SAYS_DPDK := $(B)/dataplane/net/net_no_dpdk.o $(B)/control/weirctl.o $(B)/control/statusctl.o $(B)/control/model_together.o
$(SAYS_DPDK): CFLAGS += -DWEIR_NO_DPDK='"$(NO_DPDK)"'
$(SAYS_DPDK) $(DPDK_O) $(call archive,dataplane/net): $(wildcard build/lwip/lwip.mk $(B)/no-dpdk)

define archive_rule
$$(call archive,$(1)): $$(call objects,$(1))
	@mkdir -p $$(@D)
	@rm -f $$@
	ar rcs $$@ $$(filter %.o,$$^)
endef
$(foreach f,$(ARCHIVES),$(eval $(call archive_rule,$(f))))

link = $(CC) $(LDFLAGS) -o $@ $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) -Wl,--end-group

$(B)/weir-dataplane: $(B)/dataplane/main.o $(DATAPLANE_A) $(SPOOL_A)
	$(link) $(LIBS_dataplane) $(LIBS_spool) $(JEMALLOC_$(V))
$(B)/weir-scanner: $(B)/scanner/main.o $(call archive,scanner) $(SPOOL_A)
	$(link) $(LIBS_scanner) $(LIBS_spool)
$(B)/weir-control: $(B)/control/main.o $(call archive,control) $(SPOOL_A)
	$(link) $(LIBS_control) $(LIBS_spool)
$(B)/weirctl: $(B)/control/weirctl.o $(call archive,control) $(SPOOL_A)
	$(link) $(LIBS_control) $(LIBS_spool)
$(B)/weir: $(B)/control/weir_run.o $(call archive,control) $(SPOOL_A)
	$(link) $(LIBS_control) $(LIBS_spool)
$(B)/weir-bench: $(B)/bench/main.o $(call archive,bench) $(NET_A) \
		$(call archive,dataplane/smtp) $(SPOOL_A)
	$(link) $(LIBS_dataplane) $(LIBS_spool) $(JEMALLOC_$(V))

# Man pages: foo.8.scd beside the program gives foo.8.
$(MAN): $(B)/%: %.scd
	@mkdir -p $(@D)
	scdoc < $< > $@

# Unit tests mirror the tree: tests/unit/<folder>/<name>_test.c is one cmocka program.
UNIT_C := $(filter-out $(if $(LWIP_A),,$(wildcard tests/unit/dataplane/net/net_dpdk_*_test.c)),$(shell find tests/unit -name '*_test.c'))
UNIT := $(UNIT_C:%.c=$(B)/%)
FUZZ_C := $(filter-out $(if $(LWIP_A),,%/net_dpdk_frame_fuzz.c),$(wildcard tests/fuzz/*_fuzz.c))
FUZZ := $(FUZZ_C:%.c=$(B)/%)
ALL_A := $(foreach f,$(ARCHIVES),$(call archive,$(f))) $(LWIP_A)
# What several unit tests share is an archive like any other folder.
TESTS_A := $(call archive,tests/support)
$(eval $(call archive_rule,tests/support))
$(B)/tests/unit/%_test: $(B)/tests/unit/%_test.o $(TESTS_A) $(ALL_A)
	$(link) -lcmocka $(LIBS_scanner) $(LIBS_control) $(LIBS_dataplane) $(LIBS_spool)

# A bad wire between stack and port, for those that begin one (tests/support/net_bad_wire.h).
$(B)/tests/unit/dataplane/net/%_test: LDFLAGS += -Wl,--wrap=port_receive,--wrap=port_free,--wrap=port_send

# What threads or processes share; ThreadSanitizer sees these, and they need nothing above spool/base.
THREADS := $(B)/tests/unit/spool/base/threads_test
$(THREADS): $(B)/tests/unit/spool/base/threads_test.o $(call archive,spool/base)
	$(link) -lcmocka $(LIBS_spool)

unit: $(UNIT)
	@tests/support/run-unit $(UNIT)

# The crash tests' own worker: a release build but for the disk, at whose operations it can be told to die.
CRASH := $(B)/crash
$(CRASH)/weir-dataplane: $(B)/dataplane/main.o $(B)/tests/crash/disk_kill.o $(B)/tests/crash/disk_over.o $(DATAPLANE_A) $(SPOOL_A)
	@mkdir -p $(@D)
	$(link) -Wl,--wrap=disk_files_new $(LIBS_dataplane) $(LIBS_spool) $(JEMALLOC_$(V))
$(CRASH)/%: $(B)/%
	@mkdir -p $(@D)
	ln -f $< $@
crash-programs: $(CRASH)/weir-dataplane $(patsubst %,$(CRASH)/%,weir weir-control weir-scanner weirctl signatures/weir-test.ndb)

# The protocol suite over the simulated network: the worker with a world around it that takes its calls (tests/sim/world.c).
SIM_O := $(patsubst %.c,$(B)/%.o,$(wildcard tests/sim/*.c)) $(B)/scanner/engine_trivial.o $(B)/scanner/input.o
$(B)/sim/weir-sim: $(SIM_O) $(DATAPLANE_A) $(SPOOL_A)
	@mkdir -p $(@D)
	$(link) -Wl,--wrap=uring_wait,--wrap=net_new,--wrap=disk_files_new,--wrap=config_load $(LIBS_dataplane) $(LIBS_spool) $(JEMALLOC_$(V))
sim-program: $(B)/sim/weir-sim

# The power loss test: a disk that remembers, and two programs on a store.
POWER := $(addprefix $(CRASH)/,recdisk spool_load spool_list)
$(CRASH)/recdisk: tests/crash/recdisk.c
	@mkdir -p $(@D)
	$(CC) $(CSTD) $(WARN) $(OPT_$(V)) -o $@ $< $$(pkg-config --cflags --libs fuse3 | sed s/-I/-isystem/g)
$(CRASH)/spool_%: $(B)/tests/crash/spool_%.o $(B)/tests/crash/ledger.o $(B)/tests/crash/disk_over.o $(SPOOL_A)
	@mkdir -p $(@D)
	$(link) $(LIBS_spool)

# Everything: builds each way, unit tests and corpora under sanitizers, whole-system tests on the release build.
check: deps
	@$(MAKE) --no-print-directory -s -j2 programs crash-programs sim-program
	@$(MAKE) --no-print-directory -s -j2 V=asan tests-built
	@$(MAKE) --no-print-directory -s -j2 V=tsan threads-built
	@tests/support/run-all build/asan build/release build/tsan
tests-built: $(UNIT) $(FUZZ)
threads-built: $(THREADS)

# The long tests: a thousand kills at random, hundreds at every kind of disk operation, power losses on a real file system; the whole of the DPDK tests; crowds and
# messages as large as the promises say. Leaves build/crash-report.
DEPS_CRASH := libfuse3-dev fuse3 e2fsprogs tshark
check-crash: deps
	@deploy/apt-missing $(DEPS_CRASH)
	@$(MAKE) --no-print-directory -s -j2 programs crash-programs $(POWER)
	@rm -f build/crash-report
	WEIR_KILLS=$${WEIR_KILLS:-1000} WEIR_POINT_ROUNDS=$${WEIR_POINT_ROUNDS:-10} WEIR_POWER_STATES=$${WEIR_POWER_STATES:-400} \
		WEIR_CRASH_REPORT=$(CURDIR)/build/crash-report /usr/bin/python3 -m pytest -s -c tests/pytest.ini --rootdir tests tests/crash \
		$(wildcard tests/protocol/test_*dpdk*.py)
	WEIR_LONG=1 /usr/bin/python3 -m pytest -s -c tests/pytest.ini --rootdir tests tests/protocol/test_resources.py
	@cat build/crash-report

# Fuzz targets: tests/fuzz/<name>_fuzz.c; linked with a main that replays tests/fuzz/corpus/<name>/, and with V=fuzz with libFuzzer's.
FUZZ_MAIN := $(if $(filter fuzz,$(V)),,$(B)/tests/fuzz/replay_main.o)
$(B)/tests/fuzz/%_fuzz: $(B)/tests/fuzz/%_fuzz.o $(FUZZ_MAIN) $(ALL_A)
	$(link) $(if $(FUZZ_MAIN),,-fsanitize=fuzzer) $(LIBS_scanner) $(LIBS_control) $(LIBS_dataplane) $(LIBS_spool)

# Looks for new failures: `make fuzz T=600 ONLY="server client"` runs each target (all without ONLY) for T seconds, from its corpus. What was found is in build/fuzz/found.
T ?= 60
ONLY ?= $(FUZZ_C:tests/fuzz/%_fuzz.c=%)
fuzz: deps
	@deploy/apt-missing clang
	@$(MAKE) --no-print-directory -s -j2 V=fuzz $(ONLY:%=build/fuzz/tests/fuzz/%_fuzz)
	@tests/support/run-fuzz $(T) $(ONLY)

clean:
	rm -rf build

-include $(shell find build -path build/counterparts -prune -o -name '*.d' -type f -print 2>/dev/null)
