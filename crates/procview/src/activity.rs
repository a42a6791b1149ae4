//! What the sandbox did with its processors since it started: the counters of /proc/stat, /proc/uptime and
//! /proc/loadavg, which may never run backwards although limits change.

use std::io::Write;
use std::time::Duration;

use crate::processors::{TICK, Usage};

/// Microseconds on one processor, or on all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Share {
    user: u64,
    system: u64,
    idle: u64,
}

impl Share {
    fn add(&mut self, user: u64, system: u64, idle: u64) {
        self.user = self.user.saturating_add(user);
        self.system = self.system.saturating_add(system);
        self.idle = self.idle.saturating_add(idle);
    }

    fn render(&self, name: &str, out: &mut Vec<u8>) {
        let (user, system, idle) = (self.user / TICK, self.system / TICK, self.idle / TICK);
        let _ = writeln!(out, "{name} {user} 0 {system} {idle} 0 0 0 0 0 0");
    }
}

/// Minutes over which the three load averages forget.
const MINUTES: [f64; 3] = [1.0, 5.0, 15.0];

/// Brought up to date whenever somebody reads: nothing wakes up in between.
#[derive(Debug, Default)]
pub(crate) struct Activity {
    /// Since the start of the sandbox.
    uptime: Duration,
    used: Usage,
    total: Share,
    each: Vec<Share>,
    processors: usize,
    loads: [f64; 3],
}

impl Activity {
    /// Tells what was used until now, and how many processors there are now. Time used is spread evenly over them: a
    /// cgroup does not say where its processes ran, and they may run on processors that the sandbox does not see.
    pub(crate) fn advance(&mut self, uptime: Duration, used: Usage, processors: usize) {
        self.processors = processors.max(1);
        if self.each.len() < self.processors {
            self.each.resize(self.processors, Share::default());
        }
        let Some(passed) = uptime.checked_sub(self.uptime).filter(|passed| !passed.is_zero()) else { return };
        let user = used.user.saturating_sub(self.used.user);
        let system = used.system.saturating_sub(self.used.system);
        let n = self.processors as u64;
        // What was used before the start, or while there were more processors, can be more than all of the time.
        let all = micros(uptime).saturating_sub(micros(self.uptime)).saturating_mul(n);
        let idle = all.saturating_sub(user.saturating_add(system));
        self.total.add(user, system, idle);
        for share in &mut self.each[..self.processors] {
            share.add(user / n, system / n, idle / n);
        }
        self.each[0].add(user % n, system % n, idle % n);
        self.damp(passed, (user.saturating_add(system)) as f64 / 1e6);
        self.uptime = uptime;
        self.used = Usage { user: used.user.max(self.used.user), system: used.system.max(self.used.system) };
    }

    /// The exact solution of the kernel's recurrence for a load that was the same all the time that passed.
    fn damp(&mut self, passed: Duration, used: f64) {
        let passed = passed.as_secs_f64();
        let in_use = (used / passed).min(self.processors as f64);
        for (load, minutes) in self.loads.iter_mut().zip(MINUTES) {
            let keep = (-passed / (60.0 * minutes)).exp();
            *load = *load * keep + in_use * (1.0 - keep);
        }
    }

    /// Processors in use, damped over 1, 5 and 15 minutes. Unlike the host's, it does not count who waits.
    pub(crate) fn loads(&self) -> [f64; 3] {
        self.loads
    }

    pub(crate) fn render_stat(&self, started: u64, out: &mut Vec<u8>) {
        self.total.render("cpu ", out);
        let mut name = String::new();
        for (number, share) in self.each.iter().take(self.processors).enumerate() {
            use std::fmt::Write;
            name.clear();
            let _ = write!(name, "cpu{number}");
            share.render(&name, out);
        }
        let _ = write!(out, "intr 0\nctxt 0\nbtime {started}\nprocesses 0\nprocs_running 1\nprocs_blocked 0\n");
        out.extend_from_slice(b"softirq 0 0 0 0 0 0 0 0 0 0 0\n");
    }

    pub(crate) fn render_uptime(&self, out: &mut Vec<u8>) {
        let [uptime, idle] = [micros(self.uptime), self.total.idle].map(|micros| micros / TICK);
        let _ = writeln!(out, "{}.{:02} {}.{:02}", uptime / 100, uptime % 100, idle / 100, idle % 100);
    }

    /// One process runs (whoever reads this); the newest process's number is not known from outside.
    pub(crate) fn render_loadavg(&self, processes: u64, out: &mut Vec<u8>) {
        let [one, five, fifteen] = self.loads;
        let _ = writeln!(out, "{one:.2} {five:.2} {fifteen:.2} 1/{} 0", processes.max(1));
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
