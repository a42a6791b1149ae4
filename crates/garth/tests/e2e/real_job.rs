use std::process::Command;

use crate::yard::{Yard, skip};

/// A day's work of a user's agent, in a project made from a Debian root filesystem.
#[test]
fn clones_builds_installs_and_tests_in_a_debian_project() {
    let Ok(version) = Command::new("mmdebstrap").arg("--version").output() else {
        skip("clones_builds_installs_and_tests", "mmdebstrap is not installed");
        return;
    };
    assert!(version.status.success());
    let yard = Yard::new();
    let rootfs = yard.data_dir().join("debian.tar.gz");
    let made = Command::new("mmdebstrap")
        .args([
            "--variant=minbase",
            "--include=git,gcc,libc6-dev,make,python3,python3-pip,python3-pytest,python3-setuptools,python3-wheel",
            "trixie",
        ])
        .arg(&rootfs)
        .output()
        .expect("mmdebstrap runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    yard.ok(&["image", "import", "debian", &rootfs.to_string_lossy()]);
    yard.ok(&["create", "job", "--image", "debian"]);
    yard.sh(
        "job",
        "set -e; git config --global user.email a@b; git config --global user.name a; git init -q /root/origin; cd /root/origin
         printf '#include <stdio.h>\\nint main(void){puts(\"built\");return 0;}\\n' > hello.c
         printf 'def test_it():\\n    assert 6 * 7 == 42\\n' > test_it.py
         mkdir -p pkg && printf 'def answer():\\n    return 42\\n' > pkg/__init__.py
         printf '[build-system]\\nrequires=[\"setuptools\"]\\nbuild-backend=\"setuptools.build_meta\"\\n[project]\\nname=\"pkg\"\\nversion=\"1\"\\n[tool.setuptools]\\npackages=[\"pkg\"]\\n' > pyproject.toml
         git add . && git commit -qm first && git clone -q /root/origin /root/work",
    );
    assert_eq!(yard.sh("job", "cd /root/work && gcc -O2 -o hello hello.c && ./hello"), "built");
    yard.sh(
        "job",
        "cd /root/work && pip wheel -q --no-build-isolation --no-deps -w /root/wheels . && pip install -q --break-system-packages --no-index /root/wheels/*.whl",
    );
    assert_eq!(yard.sh("job", "python3 -c 'import pkg; print(pkg.answer())'"), "42");
    assert!(yard.sh("job", "cd /root/work && python3 -m pytest -q test_it.py").contains("1 passed"));
    let server = yard.ok(&["exec", "-d", "job", "--", "python3", "-u", "-m", "http.server", "8000"]);
    yard.kill_daemon();
    crate::yard::eventually("the server answers", || {
        yard.sh_succeeds(
            "job",
            "python3 -c 'import urllib.request as u; u.urlopen(\"http://127.0.0.1:8000/\")' 2>/dev/null",
        )
    });
    // It says so on its standard error.
    let logs = yard.garth(&["logs", "job", &server]);
    assert!(logs.code == 0 && logs.stderr.contains("GET /"), "{logs:?}");
    yard.ok(&["stop", "job"]);
    assert_eq!(yard.sh("job", "/root/work/hello && cat /root/work/test_it.py | head -1"), "built\ndef test_it():");
}
