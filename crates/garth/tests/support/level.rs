//! Tests that are written once and made at each isolation level.

use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::yard::{Done, Yard};

/// An isolation level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    Default,
    Sysbox,
    Microvm,
}

impl Level {
    pub const ALL: [Self; 3] = [Self::Default, Self::Sysbox, Self::Microvm];

    /// What `--runtime` takes.
    pub fn runtime(self) -> &'static str {
        match self {
            Self::Default => "default/native",
            Self::Sysbox => "sysbox/native",
            Self::Microvm => "microvm/qemu",
        }
    }

    /// Whether this host has it. Where QEMU is installed, it must work.
    pub fn is_here(self) -> bool {
        static DOCTOR: OnceLock<String> = OnceLock::new();
        if self == Self::Default {
            return true;
        }
        let doctor = DOCTOR.get_or_init(|| Yard::new().garth(&["doctor"]).text());
        let works = doctor.contains(&format!("runtime {}: works", self.runtime()));
        assert!(works || self != Self::Microvm || !doctor.contains("vmm: QEMU"), "{doctor}");
        works
    }
}

/// Makes tests of functions that take a `&Sandbox`: `default::NAME`, `sysbox::NAME` and `microvm::NAME` of those that
/// are for `every` level, the first two of those that are about a `shared_kernel`.
macro_rules! levels {
    (every: $($every:ident),+ $(,)?; $(shared_kernel: $($shared:ident),+ $(,)?;)?) => {
        mod default {
            $(levels!(@ Default $every);)+
            $($(levels!(@ Default $shared);)+)?
        }
        mod sysbox {
            $(levels!(@ Sysbox $every);)+
            $($(levels!(@ Sysbox $shared);)+)?
        }
        mod microvm {
            $(levels!(@ Microvm $every);)+
        }
    };
    (@ $level:ident $test:ident) => {
        #[test]
        fn $test() {
            let name = concat!(module_path!(), "::", stringify!($test));
            crate::level::with_sandbox(crate::level::Level::$level, name, super::$test);
        }
    };
}

/// The project of a [`Sandbox`].
pub const BOX: &str = "box";
/// Its limits.
pub const MEMORY: u64 = 256 << 20;
pub const DISK: u64 = 384 << 20;

/// What the daemon of a [`Sandbox`] has in its environment.
pub const SECRET: &str = "hunter2-of-the-host";

/// A running sandbox with one processor and no network, which tests of one level use one after another.
pub struct Sandbox {
    pub level: Level,
    pub yard: Yard,
}

impl Sandbox {
    fn new(level: Level) -> Self {
        let yard = Yard::new();
        let (memory, disk) = (MEMORY.to_string(), DISK.to_string());
        let limits = ["--memory", &memory, "--disk", &disk, "--pids", "200", "--cpus", "1", "--network", "none"];
        let create = [&["create", BOX, "--runtime", level.runtime()][..], &limits].concat();
        // The first command starts the daemon, which inherits its environment.
        let done = crate::yard::finish(yard.command(&create).env("GARTH_TEST_SECRET", SECRET), b"");
        assert_eq!(done.code, 0, "{done:?}");
        yard.ok(&["start", BOX]);
        Self { level, yard }
    }

    /// A number that names a process on the whole host: tests of several levels run at once.
    pub fn own_number(&self, of: u32) -> String {
        (of + self.level as u32).to_string()
    }

    pub fn exec(&self, program: &[&str]) -> Done {
        self.yard.garth(&[&["exec", BOX, "--"], program].concat())
    }

    /// What a shell line prints; it must succeed.
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        self.yard.sh(BOX, line)
    }

    pub fn succeeds(&self, line: &str) -> bool {
        self.yard.sh_succeeds(BOX, line)
    }

    /// What a Python program prints; it must succeed.
    #[track_caller]
    pub fn python(&self, program: &str) -> String {
        self.yard.ok(&["exec", BOX, "--", "python3", "-c", program])
    }

    /// Shell lines that all must fail, after which the sandbox still runs.
    #[track_caller]
    pub fn denies(&self, lines: &[&str]) {
        for line in lines {
            let done = self.exec(&["sh", "-c", line]);
            assert!(done.code != 0 && done.code < 125, "{line}: {done:?}");
        }
        assert_eq!(self.sh("echo alive"), "alive");
    }

    /// Its init on the host; of a machine, the program that runs it.
    pub fn pid(&self) -> i32 {
        let pid = self.yard.json(&["inspect", BOX])["pid"].as_i64().expect("a running sandbox");
        i32::try_from(pid).expect("a pid")
    }
}

/// Does it with the sandbox that the tests of this level share. Says so where this host has no such level.
pub fn with_sandbox(level: Level, test: &str, check: fn(&Sandbox)) {
    static SANDBOXES: [Shared<Sandbox>; 3] = [const { Shared::new() }; 3];
    if level.is_here() {
        SANDBOXES[level as usize].with(|| Sandbox::new(level), check);
    } else {
        crate::yard::skip(test, &format!("the runtime {}", level.runtime()));
    }
}

/// What tests use one after another: there as long as one of them runs or waits for it, because a machine takes seconds to
/// start, and nothing of a program's is dropped at its end.
pub struct Shared<T>(Mutex<Weak<Mutex<T>>>);

impl<T> Shared<T> {
    pub const fn new() -> Self {
        Self(Mutex::new(Weak::new()))
    }

    /// After a test that failed, another is made.
    pub fn with(&self, make: impl Fn() -> T, check: impl FnOnce(&T)) {
        let shared = self.get(&make);
        let broken = shared.is_poisoned();
        let mut thing = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if broken {
            *thing = make();
            shared.clear_poison();
        }
        check(&thing);
    }

    fn get(&self, make: impl Fn() -> T) -> Arc<Mutex<T>> {
        let mut shared = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let thing = Arc::new(Mutex::new(make()));
            *shared = Arc::downgrade(&thing);
            thing
        })
    }
}
