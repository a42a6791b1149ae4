# Every test, with what it needs installed first.
test:
    ./test

# Builds the program that users run.
build:
    cargo build --release -p garth

# Leaves a real Kubernetes cluster running on this machine, with Garth in it; prints what to export. Needs root.
cluster-up:
    cargo build --quiet -p garth
    cargo run --quiet -p garth-cluster-lab -- up target/debug/garth

# Ends all of them, or the one whose folder is given, and cleans up.
cluster-down *folder:
    cargo run --quiet -p garth-cluster-lab -- down {{folder}}

# Installs Garth on a cluster as docs/kubernetes.md has it, from a static program; some minutes to build. Needs root.
cluster-install-check:
    RUSTFLAGS='-C target-feature=+crt-static' cargo build -p garth --target x86_64-unknown-linux-gnu --target-dir target/static
    GARTH_TEST_STATIC='{{justfile_directory()}}/target/static/x86_64-unknown-linux-gnu/debug/garth' cargo test -p garth --test cluster an_installed

# Measures Garth beside its peers: writes docs/benchmarks.{md,json,svg}. Extra words go to the benchmark.
bench *args:
    benches/run {{args}}

# Measures Garth on Kubernetes beside agent-sandbox: writes docs/benchmarks-cluster.md. The peer's build takes its time.
bench-cluster *args:
    tests/cluster/build
    tests/cluster/build extras
    cargo build --release -p garth -p garth-bench-cluster
    target/release/garth-bench-cluster --garth target/release/garth {{args}}

# Writes the generated files again: docs/openapi.json, docs/cli.md, deploy/helm, docs/sysbox.md, docs/conformance.md.
generate:
    GARTH_REGENERATE=1 cargo test -p garth-server --lib contract
    GARTH_REGENERATE=1 cargo test -p garth --test generated
    GARTH_REGENERATE=1 cargo test -p garth --test sysbox
    GARTH_REGENERATE=1 cargo test -p garth --test conformance
