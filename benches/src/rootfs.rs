use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};

/// A small root filesystem, the same for every subject: a shell, `true`, `sleep`, and the libraries they need.
pub fn make(work: &Path) -> Result<PathBuf> {
    let root = work.join("rootfs");
    for dir in ["usr/bin", "proc", "sys", "dev", "tmp", "etc", "root", "run", "var"] {
        std::fs::create_dir_all(root.join(dir))?;
    }
    std::os::unix::fs::symlink("usr/bin", root.join("bin"))?;
    std::fs::write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\n")?;
    std::fs::write(root.join("etc/group"), "root:x:0:\n")?;
    for program in ["/usr/bin/true", "/usr/bin/sleep", "/bin/sh"] {
        copy(Path::new(program), &root, &format!("usr/bin/{}", name_of(program)))?;
        for library in libraries(program)? {
            copy(Path::new(&library), &root, library.trim_start_matches('/'))?;
        }
    }
    Ok(root)
}

fn name_of(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn copy(from: &Path, root: &Path, to: &str) -> Result<()> {
    let to = root.join(to);
    std::fs::create_dir_all(to.parent().context("no parent")?)?;
    std::fs::copy(from, &to).with_context(|| format!("copying {}", from.display()))?;
    Ok(())
}

fn libraries(program: &str) -> Result<Vec<String>> {
    let out = Command::new("ldd").arg(program).output().context("running ldd")?;
    ensure!(out.status.success(), "ldd {program} failed");
    let text = String::from_utf8(out.stdout)?;
    Ok(text.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect())
}
