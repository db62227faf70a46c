# Every target first builds what it needs: on a fresh clone `make train-student` makes the environment,
# the data and the teacher. `make help` lists the targets.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
# One command makes all files of ORL.
.NOTPARALLEL:

# The recipe of the target being made (for train-student the student's) and of the teacher below a student: that of
# X_student… is X_teacher, both a shipped name or a path; a recipe named otherwise trains without a teacher.
RECIPE ?=
STUDENT_RECIPE := $(or $(RECIPE),orl_student)
TEACHER_RECIPE ?= $(if $(findstring _student,$(STUDENT_RECIPE)),$(addsuffix \
	_teacher$(filter .yaml,$(suffix $(STUDENT_RECIPE))),$(firstword $(subst _student, ,$(STUDENT_RECIPE)))))
# A folder of shards (train.rec, train.idx, property) and pairs (*.bin); only the default is filled with ORL faces.
DATA ?= data/orl
OUT ?= out/orl
SEED ?= 0
# For the tables: folders of the paper's training sets with their .bin files, of MegaFace with its lists of images
# and insightface's of noisy ones, and of the runs.
CASIA ?=
MS1MV2 ?=
MS1MV3 ?=
PROBES ?=
PROBE_LIST ?=
NOISY_PROBES ?=
DISTRACTORS ?=
DISTRACTOR_LIST ?=
NOISY_DISTRACTORS ?=
RUNS ?= out/tables
# For bench: a folder with insightface/ (its sources) and torch/ (a virtual environment), and where results go.
PEERS ?=
BENCH_OUT ?= out/bench
# For mutants, failing-runs and chaos: how many. For soak: minutes.
MUTANTS ?= 200
FAILING_RUNS ?= 500
FAULTS ?= 200
SOAK ?= 60
# For study: further pairs to judge on, such as london.bin. For study-quick: rows of the study, * stands for any letters,
# and seeds.
STRANGERS ?=
ROWS ?= linear flips-40 flips-40-k1 flips-40-k3 linear-gen
SEEDS ?= 0
# GPU numbers (0,1,...) or how many CPU contexts share a batch; the KVStore between them. Empty: one CPU.
GPUS ?=
CPUS ?=
KVSTORE ?=
# Of train-teacher and train-student: processes that train together, those that add up, and a file of hosts for them.
WORKERS ?=
SERVERS ?=
HOSTS ?=
# For check-gpu: cpu runs it on CPU contexts (CPUS, by default 2), with small sizes.
CONTEXT ?= gpu
CHECKED := $(if $(filter cpu,$(CONTEXT)),,$(filter check-gpu,$(MAKECMDGOALS)))
# 1 installs mxnet for CUDA 11, 0 for CPU; by default CUDA where GPUS or check-gpu asks for it or where it is already.
GPU ?= $(if $(GPUS)$(CHECKED)$(wildcard .venv/ready-gpu),1,0)

BUILD := $(if $(filter 1,$(GPU)),gpu,cpu)
OTHER_MXNET := $(if $(filter 1,$(GPU)),mxnet,mxnet-cu112)
READY := .venv/ready-$(BUILD)
ORL := $(addprefix data/orl/,train.rec train.idx property orl.bin orl.people.npy)
HELD_OUT := $(subst data/orl,data/held-out,$(ORL))
SHARD := $(if $(filter data/orl,$(DATA)),$(ORL))
# ORL's labels are right, so the filter is shown at work on a copy with wrong ones.
FILTERED := $(if $(filter data/orl,$(DATA)),data/orl-noisy,$(DATA))
TEACHER := $(TEACHER_RECIPE:%=$(OUT)/teacher/model,0)
SETS := $(strip $(foreach name,CASIA MS1MV2 MS1MV3,$(addprefix $(name)=,$($(name)))))
LAUNCH := $(if $(WORKERS)$(HOSTS),.venv/bin/latse launch $(addprefix --workers ,$(WORKERS)) \
	$(addprefix --servers ,$(SERVERS)) $(addprefix --hosts ,$(HOSTS)) --)
DEVICES := $(addprefix --gpus ,$(GPUS)) $(addprefix --cpus ,$(CPUS))

PYTHONS := python3.8 python3.9 python3.10 python3.11 python3
SUITABLE := import ensurepip, sys; sys.exit(not (3, 8) <= sys.version_info[:2] <= (3, 11))

# $(call train,RECIPE,NAME): a finished run ends at once, an interrupted one goes on, none starts anew.
train = $(LAUNCH) .venv/bin/latse train $(1) --data $(DATA) --out $(OUT)/$(2) --seed $(SEED) --resume \
	$(DEVICES) $(addprefix --kvstore ,$(or $(KVSTORE),$(if $(LAUNCH),dist_sync)))

# $(call tables,OPTIONS): what is missing is trained where its data are given.
tables = .venv/bin/latse tables $(1) --runs $(RUNS) $(if $(SETS),--data $(SETS)) \
	$(addprefix --probes ,$(PROBES)) $(addprefix --probe-list ,$(PROBE_LIST)) \
	$(addprefix --noisy-probes ,$(NOISY_PROBES)) $(addprefix --distractors ,$(DISTRACTORS)) \
	$(addprefix --distractor-list ,$(DISTRACTOR_LIST)) $(addprefix --noisy-distractors ,$(NOISY_DISTRACTORS)) \
	--seed $(SEED) $(DEVICES) $(addprefix --kvstore ,$(KVSTORE))

# $(call study,RESULTS,OUT): what has a result is not trained again.
study = .venv/bin/latse study paper --data data/study --others data/study-others --pairs data/study/*.bin data/orl/orl.bin $(STRANGERS) \
	--identification data/study/identification --inspect --results $(1) --out $(2) --jobs 2

.PHONY: help setup data synth train-teacher train-student eval figures report settings widths losses study study-quick study-settings study-open study-page plan test test-deep test-gpu-stack fuzz failing-runs chaos soak mutants lint clean
.PHONY: bench check-gpu tables table-1 table-2 table-3 table-4 table-5 table-6

help: ## list the targets
	@echo 'make TARGET [RECIPE=NAME DATA=FOLDER OUT=FOLDER SEED=N GPUS=0,1,... CPUS=N KVSTORE=NAME WORKERS=N HOSTS=FILE GPU=1]'
	@sed -nE 's/^([a-z0-9 -]+):.*## /  \1: /p' Makefile

setup: $(READY) ## install latse into .venv (GPU=1: with CUDA 11)
	@echo 'latse is ready in .venv. Next: `make train-student` (AT&T faces), or for your own photographs'
	@echo '    export PATH="$$PWD/.venv/bin:$$PATH"'
	@echo 'and the commands of docs/own_photographs.md'

data: $(SHARD) ## make shards of the AT&T (ORL) faces in data/orl

synth: $(READY) ## draw synthetic people to train on, to verify and to identify into data/synth
	.venv/bin/latse data synth --out data/synth --people 200 --images 20 --verification-people 40

train-teacher: $(READY) $(SHARD) ## train the teacher into OUT/teacher
	$(call train,$(or $(RECIPE),$(TEACHER_RECIPE)),teacher)

# Only a student with a decoder has faces to draw.
train-student: $(READY) $(SHARD) ## train the student into OUT/student, after its teacher, and judge both
	@: $(or $(SHARD),$(wildcard $(DATA)/.),$(error DATA=$(DATA): there is no such folder))
	@: $(or $(SHARD),$(wildcard $(DATA)/*.bin),$(error DATA=$(DATA) holds no .bin file to judge the student on: \
		`latse data pairs` makes one))
	$(if $(TEACHER_RECIPE),$(call train,$(TEACHER_RECIPE),teacher))
	$(call train,$(STUDENT_RECIPE),student) $(addprefix --teacher ,$(TEACHER))
	.venv/bin/latse eval --model student=$(OUT)/student/model,0 $(addprefix teacher=,$(TEACHER)) \
		untrained=$(OUT)/student/untrained,0 pixels pca fisherfaces --train-data $(DATA) --pairs $(DATA)/*.bin \
		--json $(OUT)/student/verification.json $(DEVICES) \
		$$(grep -qs '"generated"' $(OUT)/student/model-symbol.json && echo --figure $(OUT)/student/faces.png)

eval: train-student ## judge the student on unseen people

figures: train-student $(filter data/orl-noisy/%,$(FILTERED)/train.rec) ## draw Figures 1, 3, 4 and 5 into OUT/figures
	pairs=($(DATA)/*.bin); .venv/bin/latse figures --run $(OUT) --data $(FILTERED) --pairs "$${pairs[0]}" \
		--out $(OUT)/figures $(DEVICES)

report: figures ## write all results of the run, the people of the pairs identified too, into OUT/report.html
	people=($(DATA)/*.people.npy); if [ -e "$${people[0]}" ]; then .venv/bin/latse identify \
		--probes "$${people[0]/%people.npy/bin}" --model student=$(OUT)/student/model,0 \
		$(addprefix teacher=,$(TEACHER)) untrained=$(OUT)/student/untrained,0 pixels pca fisherfaces \
		--train-data $(DATA) --json $(OUT)/student/identification.json $(DEVICES); fi
	.venv/bin/latse report $(OUT) --out $(OUT)/report.html

settings: $(READY) $(HELD_OUT) ## compare settings of the ORL recipe with people 25 to 30 held out into out/settings
	.venv/bin/latse study orl_settings --out out/settings \
		--data data/held-out --pairs data/held-out/orl.bin

widths: $(READY) $(HELD_OUT) ## compare widths of the ORL student's decoder with people 25 to 30 held out into out/widths
	.venv/bin/latse study orl_widths --out out/widths --data data/held-out --pairs data/held-out/orl.bin

losses: $(READY) $(ORL) ## compare all losses on ORL into out/losses (a scaled-down Table 1)
	.venv/bin/latse study orl_losses --out out/losses --data data/orl --pairs data/orl/orl.bin

study: data/study/train.truth.npz data/study-others/property $(ORL) ## train and judge what is missing of the study of the paper's claims (many hours), then its page
	$(call study,docs/study/results,out/study)
	$(MAKE) --no-print-directory study-page

study-quick: data/study/train.truth.npz data/study-others/property $(ORL) ## repeat ROWS='NAME …' of it with SEEDS='0 …' into out/study-quick
	$(call study,out/study-quick/results,out/study-quick) --rows $(foreach row,$(ROWS),'$(row)') --seeds $(SEEDS)

study-settings: data/study/property data/study-validation/property ## compare settings of that study on people of no other set
	.venv/bin/latse study paper_settings --data data/study --pairs data/study-validation/*.bin \
		--results docs/study/settings --out out/study-settings --jobs 2

study-open: data/study/train.truth.npz data/study-validation/plain.truth.npz ## compare what the paper leaves open, on the same people
	.venv/bin/latse study paper_open --data data/study --pairs data/study-validation/*.bin --inspect \
		--set train.iterations=750 --results docs/study/open --out out/study-open --jobs 2

study-page: $(READY) ## write docs/study.md, study_settings.md and study_open.md anew from docs/study, without training
	.venv/bin/latse study-page paper --results docs/study/results --page docs/study.md \
		--pictures docs/study/pictures
	.venv/bin/latse study-page paper_settings --results docs/study/settings --page docs/study_settings.md
	.venv/bin/latse study-page paper_open --results docs/study/open --page docs/study_open.md

tables: $(READY) ## train what is missing and has data (CASIA=FOLDER … PROBES=FOLDER …), print Tables 1 to 6
	$(call tables,)

table-1 table-2 table-3 table-4 table-5 table-6: table-%: $(READY) ## one of them
	$(call tables,--only $*)

plan: $(READY) $(SHARD) ## plan the memory of a recipe (the student's) into OUT/plan
	.venv/bin/latse plan $(STUDENT_RECIPE) --data $(DATA) $(DEVICES) \
		--out $(OUT)/plan/memory-plan.json --json $(OUT)/plan/plan.json

bench: $(READY) ## measure speed and memory (PEERS=FOLDER) for hours into BENCH_OUT, with a page of all; results there are kept
	status=0; .venv/bin/latse bench all $(BENCH_OUT) $(addprefix --peers ,$(PEERS)) || status=$$?; \
	.venv/bin/latse bench page $(BENCH_OUT) --out $(BENCH_OUT)/performance.md --chart $(BENCH_OUT)/performance.png; \
	exit $$status

check-gpu: $(READY) ## check everything on your GPUs (CONTEXT=cpu: on CPUs) in ten minutes, into a page to send back
	.venv/bin/latse check-gpu $(if $(filter cpu,$(CONTEXT)),--cpus $(or $(CPUS),2) --small,$(addprefix --gpus ,$(GPUS)))

test: $(READY) ## run the tests
	OMP_NUM_THREADS=1 .venv/bin/pytest tests -m 'not deep' --numprocesses 2 --dist worksteal

test-deep: $(READY) ## run the tests of the deepest networks (some minutes)
	OMP_NUM_THREADS=1 .venv/bin/pytest tests -m deep --numprocesses 2

test-gpu-stack: $(READY) ## prove the CUDA 11 stack without a GPU (downloads 2 GB into a temporary folder)
	.venv/bin/pytest tests/gpu_stack --capture=no

fuzz: $(READY) ## read a million damaged files, findings into out/fuzz (some ten minutes)
	OMP_NUM_THREADS=1 .venv/bin/python tests/fuzz/run.py --inputs 1000000 --processes 2 --json out/fuzz/fuzz.json

failing-runs: $(READY) ## start FAILING_RUNS=500 runs that fail in five ways, findings into out/failing-runs (some half an hour)
	OMP_NUM_THREADS=1 .venv/bin/python tests/failing_runs/run.py --runs $(FAILING_RUNS) --processes 4

chaos: $(READY) ## do FAULTS=200 faults to short runs and let them go on, results into out/chaos (some hours; it may be stopped)
	OMP_NUM_THREADS=1 .venv/bin/python tests/chaos/run.py --faults $(FAULTS) --seed $(SEED) --json out/chaos/chaos.json

soak: $(READY) ## train for SOAK=60 minutes and judge whether memory and handles stay flat, readings into out/chaos
	OMP_NUM_THREADS=1 .venv/bin/python tests/chaos/soak.py --minutes $(SOAK) --json out/chaos/soak.json

mutants: $(READY) ## tell the code MUTANTS=200 small lies, the tests' answers into out/mutants (some hours)
	.venv/bin/pip install --quiet --use-pep517 --editable '.[mutants]'
	.venv/bin/python tests/mutants/run.py --count $(MUTANTS) --seed $(SEED) --json out/mutants/mutants.json

lint: .venv/bin/basedpyright ## check the style, and that every import and attribute is there
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/basedpyright --project .pyright.json

clean: ## remove the environment and caches, but neither data nor models
	rm -rf .venv build dist src/*.egg-info .pytest_cache tests/.pytest_cache .ruff_cache .hypothesis
	find src symbols eval recipes tests -name __pycache__ -prune -exec rm -r {} +

.venv/bin/basedpyright: setup.py | $(READY)
	.venv/bin/pip install --quiet --use-pep517 --editable '.[lint]'
	@touch $@

$(ORL): | $(READY)
	.venv/bin/latse data fetch-orl --out data/orl

$(HELD_OUT): | $(READY)
	.venv/bin/latse data fetch-orl --train-people 1-24 --test-people 25-30 --out data/held-out

data/study/property: | $(READY)
	.venv/bin/latse data synth --out data/study --people 300 --images 15 --verification-people 200 --distractors 1000

data/study/train.truth.npz: | data/study/property
	.venv/bin/latse data synth-truth data/study

# Of another seed, so of other people. Only its pairs are used.
data/study-validation/property: | $(READY)
	.venv/bin/latse data synth --out data/study-validation --seed 1 --people 2 --images 2 --verification-people 60 \
		--distractors 0

data/study-others/property: | $(READY)
	.venv/bin/latse data synth --out data/study-others --seed 2 --people 300 --images 15 --verification-people 0 \
		--distractors 0

data/study-validation/plain.truth.npz: | data/study-validation/property
	.venv/bin/latse data synth-truth data/study-validation

data/orl-noisy/train.rec: | $(ORL)
	.venv/bin/latse data noise data/orl data/orl-noisy --mislabel 0.1 --distractor 0.1

# Both builds own the package `mxnet`, so one leaves before the other comes. A stamp appears only at the end.
$(READY): setup.py | .venv/bin/pip
	@rm -f .venv/ready-*
	@.venv/bin/pip install --quiet --upgrade 'pip>=21.3' # an older one cannot install latse editable
	@.venv/bin/pip uninstall -qq --yes $(OTHER_MXNET)
	@echo 'Installing latse[$(BUILD),onnx,test] into .venv:'
	@.venv/bin/pip install --use-pep517 --editable '.[$(BUILD),onnx,test]' \
		| awk '/^Collecting/ { sub(/[<>=].*/, "", $$2); print "  " $$2; fflush() }'
	@touch $@

# A pyenv shim can stand on PATH and fail, so an interpreter is taken only if it runs.
.venv/bin/pip:
	@for python in $(PYTHONS); do \
		if $$python -c '$(SUITABLE)' 2>/dev/null; then exec $$python -m venv --clear .venv; fi; \
	done; \
	echo 'latse needs Python 3.8, 3.9, 3.10 or 3.11 (with venv and pip): no such interpreter runs from PATH.' >&2; \
	exit 1
