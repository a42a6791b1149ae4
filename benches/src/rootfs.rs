use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// Times reads, from within.
pub const PROBE: &str = "/usr/bin/garth-bench-probe";

/// A small root filesystem, the same for every subject: a shell, `true`, `sleep`, the probe, and the libraries they
/// need.
pub fn make(work: &Path) -> Result<PathBuf> {
    let root = work.join("rootfs");
    for dir in ["usr/bin", "proc", "sys", "dev", "tmp", "etc", "root", "run", "var"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    std::os::unix::fs::symlink("usr/bin", root.join("bin"))?;
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    std::fs::write(root.join("etc/group"), "root:x:0:\n")?;
    let name = Path::new(PROBE).file_name().context("the probe has a name")?;
    let probe = std::env::current_exe()?.with_file_name(name);
    for program in [Path::new("/usr/bin/true"), Path::new("/usr/bin/sleep"), Path::new("/bin/sh"), &probe] {
        let name = program.file_name().context("a program has a name")?;
        copy(program, &root, &Path::new("usr/bin").join(name))?;
        for library in libraries(program)? {
            copy(Path::new(&library), &root, Path::new(library.trim_start_matches('/')))?;
        }
    }
    Ok(root)
}

fn copy(from: &Path, root: &Path, to: &Path) -> Result<()> {
    let to = root.join(to);
    std::fs::create_dir_all(to.parent().context("no parent")?)?;
    std::fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

fn libraries(program: &Path) -> Result<Vec<String>> {
    let out = Command::new("ldd").arg(program).output().context("running ldd")?;
    ensure!(out.status.success(), "ldd {} failed", program.display());
    let text = String::from_utf8(out.stdout)?;
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}
