//! Docker, podman, buildah, runc, crun. Nothing is fetched: images are made from a static busybox.
use std::io::{Read, Write};

use super::{Checked, DEADLINE, Stage, WORK, Why, ensure, equal, eventually, fail};

/// An image `bb` with a web server as its command.
const IMAGE: &str = "mkdir -p /root/img/bin; cd /root/img; cp /bin/busybox .; cp /bin/busybox bin/sh; \
    printf 'FROM scratch\\nCOPY bin /bin\\nCOPY busybox /bin/busybox\\nRUN [\"/bin/busybox\",\"mkdir\",\"-p\",\"/www\",\"/tmp\",\"/usr/bin\"]\\n\
RUN [\"/bin/busybox\",\"--install\",\"-s\",\"/usr/bin\"]\\nRUN echo hello > /www/index.html\\nENV PATH=/usr/bin:/bin\\n\
CMD [\"httpd\",\"-f\",\"-p\",\"80\",\"-h\",\"/www\"]\\n' > Dockerfile";

/// The sandbox with a Docker daemon that answers, and the image `bb` in it.
pub fn dockerd(stage: &Stage) -> Result<&'static str, Why> {
    let work = stage.work()?;
    if stage.exec(work, &["docker", "image", "inspect", "bb"]).code != 0 {
        start(stage, work)?;
        stage.sh(work, IMAGE)?;
        stage.sh(work, "cd /root/img; DOCKER_BUILDKIT=0 docker build -q -t bb .")?;
    }
    Ok(work)
}

/// The process of a daemon that answers.
fn start(stage: &Stage, work: &str) -> Result<String, Why> {
    let done = stage.exec(work, &["docker", "info"]);
    if done.code == 0 {
        return Ok(String::new());
    }
    // Docker before version 23 takes its btrfs driver on a btrfs disk, whose subvolumes would evade the disk's limit.
    stage.sh(work, "mkdir -p /etc/docker; echo '{\"storage-driver\": \"overlay2\"}' > /etc/docker/daemon.json")?;
    // It would start containerd itself, and give up on a slow machine's after 15 s.
    let up = "test -S /run/containerd/containerd.sock && ctr version >/dev/null 2>&1";
    if !stage.yard.sh_succeeds(work, up) {
        stage.yard.ok(&["exec", "-d", work, "--", "sh", "-c", "exec containerd > /root/containerd.log 2>&1"]);
        eventually("containerd answers", || stage.yard.sh_succeeds(work, up));
    }
    let process = stage.yard.ok(&["exec", "-d", work, "--", "sh", "-c", "exec dockerd > /root/dockerd.log 2>&1"]);
    let answers = "until docker info >/dev/null 2>&1; do test -e /proc/self || exit 1; done";
    let done = stage.yard.garth(&["exec", "--timeout", DEADLINE, work, "--", "sh", "-c", answers]);
    if done.code != 0 {
        let log = stage.sh(work, "tail -2 /root/dockerd.log")?;
        return fail(format!("dockerd does not answer: {log}"));
    }
    Ok(process)
}

/// Until a page says hello; the shell's function `page`.
const PAGE: &str = "page() { until [ \"$(busybox wget -q -O - $1 2>/dev/null)\" = hello ]; do :; done; }";

fn page(stage: &Stage, work: &str, user: &str, line: &str) -> Checked {
    let line = format!("{PAGE}; {line}");
    let done =
        stage.yard.garth(&["exec", "--timeout", DEADLINE, "-w", "/", "-u", user, work, "--", "sh", "-ec", &line]);
    ensure(done.code == 0, format!("{line}: exit {} {}", done.code, done.stderr.trim()))
}

pub fn docker(stage: &Stage) -> Checked {
    let work = dockerd(stage)?;
    let inside = stage.sh(work, "docker run --rm bb sh -c 'id -u; sed -n \"s/MemTotal: *//p\" /proc/meminfo'")?;
    equal("docker run", &inside, "0\n2097152 kB")?;
    stage.sh(
        work,
        "docker rm -f web >/dev/null 2>&1 || true; docker run -d --name web --restart always -p 8080:80 bb",
    )?;
    page(stage, work, "0", "page http://127.0.0.1:8080/; page http://$(hostname -I | cut -d' ' -f1):8080/")?;
    let address = stage.about(work)["addresses"]["ipv4"].as_str().unwrap_or_default().to_owned();
    eventually("the published port answers the host", || fetch(&address, 8080).ends_with("hello\n"));
    let privileged = "docker run --rm --privileged bb sh -c 'mount -t tmpfs t /tmp && mount -t proc p /tmp && head -1 /tmp/meminfo; \
                      (echo 1 > /proc/sys/vm/swappiness) 2>/dev/null || echo refused'";
    equal("privileged", &stage.sh(work, privileged)?, "MemTotal:        2097152 kB\nrefused")?;
    // Where the sandbox has no controllers, neither have its containers.
    let limit = "if grep -q memory /sys/fs/cgroup/cgroup.controllers; then docker run --rm -m 64m bb cat /sys/fs/cgroup/memory.max; else echo 67108864; fi";
    equal("a container's limit", &stage.sh(work, limit)?, "67108864")?;
    let host = "test \"$(docker run --rm --network host bb ip addr show eth0)\" = \"$(busybox ip addr show eth0)\"";
    stage.sh(work, host)?;
    stage.sh(
        work,
        "docker network create own >/dev/null; docker run -d --name peer --network own bb >/dev/null; \
                    docker run --rm --network own bb sh -c 'until wget -q -O - http://peer/; do :; done' | grep hello; \
                    docker rm -f peer >/dev/null; docker network rm own >/dev/null",
    )?;
    stage.sh(work, "mkdir -p /root/compose; cd /root/compose; printf 'version: \"3\"\\nservices:\\n  a:\\n    image: bb\\n  b:\\n    image: bb\\n    \
                    command: sh -c \"until wget -q -O - http://a/; do :; done\"\\n' > docker-compose.yml; \
                    docker-compose up -d 2>/dev/null; b=$(docker ps -aqf label=com.docker.compose.service=b); docker wait $b; docker logs $b | grep hello; docker-compose down 2>/dev/null")?;
    stage.sh(work, "kill $(cat /run/docker.pid); while [ -e /run/docker.pid ]; do :; done")?;
    start(stage, work)?;
    page(stage, work, "0", "page http://127.0.0.1:8080/; docker rm -f web")
}

/// A page as the host gets it.
fn fetch(address: &str, port: u16) -> String {
    let mut text = String::new();
    let Ok(mut stream) = std::net::TcpStream::connect((address, port)) else { return text };
    if stream.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok() {
        let _ = stream.read_to_string(&mut text);
    }
    text
}

pub fn runtimes(stage: &Stage) -> Checked {
    let work = stage.work()?;
    stage.sh(
        work,
        "mkdir -p /root/bundle/rootfs/bin /root/bundle/rootfs/proc; cp /bin/busybox /root/bundle/rootfs/bin/",
    )?;
    for runtime in ["runc", "crun"] {
        let line = format!(
            "cd /root/bundle; rm -f config.json; {runtime} spec; \
             sed -i -e 's/\"terminal\": true/\"terminal\": false/' \
             -e 's|^\\(\\s*\\)\"sh\"|\\1\"/bin/busybox\", \"head\", \"-1\", \"/proc/meminfo\"|' config.json; {runtime} run by-{runtime}"
        );
        equal(runtime, &stage.sh(work, &line)?, "MemTotal:        2097152 kB")?;
    }
    Ok(())
}

pub fn podman(stage: &Stage) -> Checked {
    let work = stage.work()?;
    stage.sh(work, IMAGE)?;
    let root = "cd /root/img; podman build -q -t bb . >/dev/null 2>&1; podman run --rm bb sed -n 's/MemTotal: *//p' /proc/meminfo 2>/dev/null; \
                podman run -d --name served -p 8081:80 bb >/dev/null 2>&1";
    equal("as root", &stage.sh(work, root)?, "2097152 kB")?;
    page(stage, work, "0", "page http://127.0.0.1:8081/; podman rm -f -t 0 served")?;
    let user = "id worker >/dev/null 2>&1 || useradd -m worker; echo worker:10000:20000 > /etc/subuid; echo worker:10000:20000 > /etc/subgid; \
                mkdir -p /run/worker; chown worker /run/worker; cp -rT /root/img /home/worker/img; chown -R worker /home/worker";
    stage.sh(work, user)?;
    let rootless = "export XDG_RUNTIME_DIR=/run/worker HOME=/home/worker; cd ~/img; podman build -q -t bb . >/dev/null; \
                    podman run --rm bb sh -c 'id -u; sed -n \"s/ *10000  *20000//p\" /proc/self/uid_map; sed -n \"s/MemTotal: *//p\" /proc/meminfo'; \
                    podman run -d --name served -p 8082:80 bb >/dev/null";
    equal("rootless", &stage.sh_as("worker", work, rootless)?, "0\n         1\n2097152 kB")?;
    page(
        stage,
        work,
        "worker",
        "export XDG_RUNTIME_DIR=/run/worker HOME=/home/worker; page http://127.0.0.1:8082/; podman rm -f -t 0 served",
    )
}

pub fn builders(stage: &Stage) -> Checked {
    let work = dockerd(stage)?;
    stage.sh(work, "cd /root/img; buildah bud -q -t by-buildah . >/dev/null; buildah images -q by-buildah | grep .")?;
    if stage.sh(work, "cd /root/img; DOCKER_BUILDKIT=1 docker build -q -t by-buildkit .").is_err() {
        return fail(
            "buildah builds; buildkit of Docker 20.10 remounts binds without nodev, which is locked; \
             kind, k3s and k0s are not tried: a test fetches nothing",
        );
    }
    fail("buildah and buildkit build; kind, k3s and k0s are not tried: a test fetches nothing")
}

pub fn images_stay(stage: &Stage) -> Checked {
    let work = dockerd(stage)?;
    let before = stage.sh(work, "docker images -q bb; podman images -q bb 2>/dev/null")?;
    stage.yard.ok(&["stop", WORK]);
    start(stage, work)?;
    equal("images", &stage.sh(work, "docker images -q bb; podman images -q bb 2>/dev/null")?, &before)?;
    equal("docker run", &stage.sh(work, "docker run --rm bb echo again")?, "again")?;
    stage.with_own("forgotten", |name| {
        stage.sh(name, "mkdir -p /var/lib/docker; touch /var/lib/docker/x").map(|_| ())
    })?;
    stage.with_own("forgotten", |name| stage.sh(name, "test ! -e /var/lib/docker/x").map(|_| ()))
}
