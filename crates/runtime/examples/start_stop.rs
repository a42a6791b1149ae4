//! Measures starts, commands and stops: `start_stop ROOTFS [COUNT] [USR_UPPER_WORK_DIR]`, as root, after
//! `cargo build --release -p garth-runtime --examples`.
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use garth_runtime::{AgentBinary, Overlay, Root, SandboxPlan, Sandboxes, SandboxesConfig};
use garth_spec::SandboxId;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1);
    let rootfs = PathBuf::from(arguments.next().ok_or("usage: start_stop ROOTFS [COUNT] [LAYERS]")?);
    let count = arguments.next().map_or(Ok(200), |text| text.to_string_lossy().parse())?;
    let layers = arguments.next().map(PathBuf::from);
    let init = std::env::current_exe()?.with_file_name("tiny_init");
    let dir = PathBuf::from(format!("/tmp/garth-bench-{}", std::process::id()));
    let state = dir.join("state");
    std::fs::create_dir_all(&state)?;
    let config = SandboxesConfig {
        oci: garth_runtime::OciRuntime::sysbox(),
        run_dir: dir.join("run"),
        tag: format!("bench{}", std::process::id()),
        agent: AgentBinary::from_bytes(&std::fs::read(init)?)?,
    };
    let sandboxes = Sandboxes::open(config)?;
    let netns = garth_kernel::netns::with_loopback(|| Ok(()))?;
    let mut times = [(); 4].map(|()| Vec::new());
    for number in 0..count {
        let mut plan = SandboxPlan::new("bench", Root::Directory(rootfs.clone()), &state);
        plan.usr = layers.as_deref().map(overlay);
        let begin = Instant::now();
        let sandbox = sandboxes.start(SandboxId::from_bits(number), &plan, Some(netns.try_clone()?))?;
        let started = begin.elapsed();
        let reply = run_true(&sandbox.agent_socket());
        let ran = begin.elapsed();
        sandbox.destroy()?;
        let ended = begin.elapsed();
        reply?;
        for (times, time) in times.iter_mut().zip([started, ran - started, ended - ran, ended]) {
            times.push(time);
        }
    }
    for (name, times) in ["start", "true", "stop", "all"].into_iter().zip(&mut times) {
        report(name, times);
    }
    drop(sandboxes);
    std::fs::remove_dir_all(&dir)?;
    Ok(())
}

fn overlay(layers: &Path) -> Overlay {
    Overlay { lower: "/usr".into(), upper: layers.join("upper"), work: layers.join("work") }
}

fn run_true(socket: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let mut connection = UnixStream::connect(socket)?;
    connection.write_all(b"[\"/usr/bin/true\"]\n")?;
    let mut reply = String::new();
    connection.read_to_string(&mut reply)?;
    match reply.contains("\"code\":0") {
        true => Ok(()),
        false => Err(reply.into()),
    }
}

fn report(name: &str, times: &mut [Duration]) {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    println!("{name:6} p50 {:7.3} ms  p95 {:7.3} ms  p99 {:7.3} ms", at(50), at(95), at(99));
}
