//! Container engines, servers, and the sandbox's own life.
use crate::stage::{Check, Checked, MEMORY, ONE, Stage, TWO, WORK, Why, ensure, equal, fail, missing, on_host};
use crate::yard::{Yard, eventually};

mod engines;
mod life;

pub const CHECKS: &[Check] = &[
    Check { number: 55, what: "systemd reaches running, keeps a journal, restarts, stops in 10 s", by: systemd },
    Check {
        number: 56,
        what: "dockerd: build, run, compose, user and host network, privileged, a published port, its restart",
        by: engines::docker,
    },
    Check { number: 57, what: "runc and crun by hand, with a bundle (versions of Debian 12)", by: engines::runtimes },
    Check { number: 58, what: "podman, as root and rootless (+)", by: engines::podman },
    Check { number: 59, what: "buildah, buildkit; kind, k3s, k0s", by: engines::builders },
    Check { number: 64, what: "nginx, postgres and redis, in the sandbox and in a container in it", by: servers },
    Check {
        number: 60,
        what: "images of engines stay over stop and start, and go with the project",
        by: engines::images_stay,
    },
    Check { number: 61, what: "no two sandboxes share a /var/lib/docker", by: apart },
    Check { number: 62, what: "limits of containers count; the sandbox's own cannot be raised", by: inner_limits },
    Check { number: 63, what: "pausing keeps owners", by: pause },
    Check { number: 65, what: "a read-only root with /run and /tmp writable", by: life::read_only_root },
    Check { number: 66, what: "shared directories of the host keep their owners", by: life::shared },
    Check { number: 67, what: "exec has the same view, cgroup and filter; wrong settings are refused", by: life::exec },
    Check {
        number: 68,
        what: "the daemon killed and started again: sandboxes keep /proc, mounts and all (+)",
        by: life::daemon_killed,
    },
    Check {
        number: 69,
        what: "after 500 starts and stops: descriptors, mounts, ids and cgroups as before",
        by: life::cycles,
    },
    Check { number: 71, what: "a Garth in the sandbox", by: nested },
    Check {
        number: 72,
        what: "the keeper killed: virtual files and new mounts of proc come back",
        by: life::keeper_killed,
    },
];

fn systemd(stage: &Stage) -> Checked {
    let make = [
        "create",
        "vm",
        "--runtime",
        "sysbox",
        "--image",
        stage.image()?,
        "--memory",
        "2GiB",
        "--init",
        "/lib/systemd/systemd",
    ];
    stage.yard.ok(&make);
    let result = systemd_in(stage, "vm");
    stage.yard.ok(&["rm", "-f", "vm"]);
    result
}

fn systemd_in(stage: &Stage, vm: &str) -> Checked {
    booted(stage, vm)?;
    equal("failed units", &stage.sh(vm, "systemctl --failed --no-legend --plain")?, "")?;
    equal("state", &stage.sh(vm, "systemctl is-system-running")?, "running")?;
    let unit = "[Service]\\nExecStart=/bin/sh -c \"echo said once; exec sleep infinity\"\\nExecStop=/bin/sh -c \"echo ended > /root/ended\"\\n";
    let line = format!(
        "mkdir -p /etc/systemd/system; printf '{unit}' > /etc/systemd/system/mine.service; systemctl start mine; \
         until journalctl -u mine --no-pager | grep -q 'said once'; do :; done; systemctl is-active mine"
    );
    equal("a service with a journal", &stage.sh(vm, &line)?, "active")?;
    equal("a transient unit", &stage.sh(vm, "systemd-run -q --wait -P echo transient")?, "transient")?;
    let first = stage.init(vm)?;
    stage.exec(vm, &["systemctl", "reboot"]);
    eventually("it runs again", || stage.init(vm).is_ok_and(|init| init != first));
    equal("what its stop wrote", &stage.sh(vm, "cat /root/ended; rm /root/ended")?, "ended")?;
    booted(stage, vm)?;
    stage.sh(vm, "systemctl start mine")?;
    let begun = std::time::Instant::now();
    stage.yard.ok(&["stop", "--grace", "60", vm]);
    ensure(begun.elapsed().as_secs() < 50, "it had to be killed")?;
    equal("what its stop wrote", &stage.sh(vm, "cat /root/ended")?, "ended")
}

/// Until all its units have started or failed.
fn booted(stage: &Stage, vm: &str) -> Checked {
    let line = "until [ -S /run/dbus/system_bus_socket ]; do :; done; systemctl is-system-running --wait || true";
    stage.sh(vm, line).map(|_| ())
}

fn servers(stage: &Stage) -> Checked {
    let work = engines::dockerd(stage)?;
    stage.sh(work, SERVERS)?;
    for name in ["redis", "nginx", "postgres"] {
        stage.sh(work, &format!("{FUNCTIONS}\nA=127.0.0.1; run_{name}; until_{name}; end_{name}"))?;
        let container = format!(
            "{FUNCTIONS}\ndocker run -d --name l2{name} -v /:/r bb chroot /r sh -c '. /root/servers.sh; run_{name}; exec sleep 600' >/dev/null; \
             A=$(docker inspect -f '{{{{.NetworkSettings.IPAddress}}}}' l2{name}); until_{name}; docker rm -f l2{name} >/dev/null"
        );
        let done = stage.yard.garth(&["exec", "--timeout", DEADLINE, work, "--", "sh", "-ec", &container]);
        ensure(done.code == 0, format!("{name} in a container: exit {} {}", done.code, done.stderr.trim()))?;
    }
    Ok(())
}

/// No answer of a server takes longer, on a translated processor either.
const DEADLINE: &str = "180s";

const FUNCTIONS: &str = ". /root/servers.sh";

/// How each server is started, asked and ended.
const SERVERS: &str = r#"cat > /root/servers.sh <<'END'
PATH=$PATH:/usr/sbin:/sbin:$(echo /usr/lib/postgresql/*/bin)
run_redis() { redis-server --save '' --protected-mode no --daemonize yes --dir /tmp >/dev/null; }
until_redis() { until [ "$(redis-cli -h $A ping 2>&1)" = PONG ]; do :; done; redis-cli -h $A set k v >/dev/null; [ $(redis-cli -h $A get k) = v ]; }
end_redis() { redis-cli shutdown || true; }
run_nginx() { mkdir -p /tmp/ng /var/log/nginx /var/lib/nginx; echo served > /tmp/ng/index.html
  printf 'user root; pid /tmp/ng.pid; events {}\nhttp { server { listen 8090; root /tmp/ng; } }\n' > /tmp/ng.conf; nginx -c /tmp/ng.conf; }
until_nginx() { until [ "$(busybox wget -q -O - http://$A:8090/ 2>/dev/null)" = served ]; do :; done; }
end_nginx() { nginx -c /tmp/ng.conf -s stop; }
run_postgres() { rm -rf /tmp/pg; install -d -o postgres /tmp/pg; runuser -u postgres -- initdb -A trust -D /tmp/pg >/dev/null
  echo 'host all all 0.0.0.0/0 trust' >> /tmp/pg/pg_hba.conf
  runuser -u postgres -- pg_ctl -w -D /tmp/pg -l /tmp/pg/log -o "-c listen_addresses=* -c unix_socket_directories=/tmp" start >/dev/null; }
until_postgres() { until psql -h $A -U postgres -Atc 'select 1' >/dev/null 2>&1; do :; done
  psql -h $A -U postgres -qc 'create table t as select generate_series(1,9) n'; [ $(psql -h $A -U postgres -Atc 'select sum(n) from t') = 45 ]; }
end_postgres() { runuser -u postgres -- pg_ctl -D /tmp/pg -m fast stop >/dev/null; }
END"#;

fn apart(stage: &Stage) -> Checked {
    stage.sh(ONE, "mkdir -p /var/lib/docker; echo mine > /var/lib/docker/of-one")?;
    stage.sh(TWO, "mkdir -p /var/lib/docker; test ! -e /var/lib/docker/of-one").map(|_| ())
}

fn inner_limits(stage: &Stage) -> Checked {
    let own = "cd /sys/fs/cgroup; for f in memory.max cpu.max pids.max memory.limit_in_bytes; do \
               if [ -e $f ]; then ! (echo max > $f) 2>/dev/null; fi; done; ! mkdir ../x 2>/dev/null; \
               mkdir -p /root/cg; for c in memory pids cpu; do if mount -t cgroup -o $c c /root/cg 2>/dev/null; then \
               ! (echo -1 > /root/cg/memory.limit_in_bytes) 2>/dev/null; ! (echo max > /root/cg/pids.max) 2>/dev/null; \
               ! (echo -1 > /root/cg/cpu.cfs_quota_us) 2>/dev/null; ! mkdir /root/cg/x 2>/dev/null; umount /root/cg; fi; done";
    stage.sh(ONE, own)?;
    stage.sh(ONE, "mkdir /sys/fs/cgroup/below; echo 0 > /sys/fs/cgroup/below/cgroup.procs; grep -q '^0::/below' /proc/self/cgroup")?;
    if !stage.sh(ONE, "cat /sys/fs/cgroup/cgroup.controllers")?.contains("memory") {
        return missing(
            "controllers in the cgroup v2 tree: the host has them in v1; its own limits cannot be raised. With cgroup v2 it passes, as `--test cgroup_v2` tries",
        );
    }
    let inner = "cd /sys/fs/cgroup; cat memory.max; mkdir -p inner; echo 32M > inner/memory.max; echo 0 > inner/memory.swap.max || true; \
                 (echo 0 > /sys/fs/cgroup/inner/cgroup.procs; exec python3 -c 'b\"x\" * (200 << 20)') || echo ended $?; \
                 sed -n 's/oom_kill //p' inner/memory.events; until rmdir inner 2>/dev/null; do :; done";
    equal("of a cgroup inside", &stage.sh(ONE, inner)?, &format!("{MEMORY}\nended 137\n1"))
}

fn pause(stage: &Stage) -> Checked {
    let work = engines::dockerd(stage)?;
    let line = "docker run -d --name asleep -v /root/kept:/kept bb sleep 600 >/dev/null; touch /root/kept/f; chown 1000:1000 /root/kept/f; \
                docker pause asleep >/dev/null; docker unpause asleep >/dev/null; \
                docker exec asleep stat -c %u:%g /kept/f; docker rm -f asleep >/dev/null";
    equal("after docker pause", &stage.sh(work, line)?, "1000:1000")?;
    life::paused(stage)
}

fn nested(stage: &Stage) -> Checked {
    if !stage.sh(ONE, "cat /sys/fs/cgroup/cgroup.controllers")?.contains("memory") {
        return missing(
            "controllers in the cgroup v2 tree: Garth needs them for limits. With cgroup v2 it passes, as `--test cgroup_v2` tries",
        );
    }
    let program = crate::yard::program();
    stage.with_own("outer", |name| {
        stage.yard.ok(&["cp", &program.to_string_lossy(), &format!("{name}:/usr/local/bin/garth")]);
        let line = "export GARTH_DATA_DIR=/var/lib/garth; garth create in --network none --memory 128MiB >/dev/null; \
                    garth exec in -- sh -c 'head -c 9 /dev/zero | wc -c; cat /sys/fs/cgroup/memory.max; touch /usr/x; \
                    mknod /root/null c 1 3 2>/dev/null || mount -t tmpfs t /mnt 2>/dev/null || echo refused'; \
                    garth rm -f in >/dev/null; kill $(cat /var/lib/garth/garth.pid)";
        equal("in it", &stage.sh(name, line)?, "9\n134217728\nrefused")
    })
}

/// Names of the files of a directory of the host; none when it is not there.
fn names(directory: &str) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}
