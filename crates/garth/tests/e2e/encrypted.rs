//! A daemon for callers on the network who want to know whom they talk to.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::authority::Authority;
use crate::yard::{Done, Yard, finish, program};

/// `garth serve` in the foreground.
struct Daemon {
    child: Child,
    port: String,
}

impl Daemon {
    fn start(yard: &Yard, dir: &Path) -> Self {
        let mut command = yard.command(&["serve", "--listen", "127.0.0.1:0", "--tls-cert"]);
        command.arg(dir.join("tls.crt")).arg("--tls-key").arg(dir.join("tls.key"));
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("garth");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut lines = String::new();
        while !lines.contains("\"ready\"") {
            assert!(log.read_line(&mut lines).expect("its log") > 0, "it ended: {lines}");
        }
        let from = lines.find("127.0.0.1:").expect("an address") + "127.0.0.1:".len();
        let port = lines[from..].chars().take_while(char::is_ascii_digit).collect();
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        Self { child, port }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}

fn caller(url: &str, key: &str, believes: &Path, args: &[&str]) -> Done {
    let mut command = Command::new(program());
    command.args(args).env("GARTH_HOST", url).env("GARTH_API_KEY", key).env("SSL_CERT_FILE", believes);
    command.env_remove("GARTH_DATA_DIR");
    finish(&mut command, b"")
}

#[test]
fn a_caller_knows_whom_it_shows_its_key() {
    let yard = Yard::new();
    let dir = tempfile::tempdir().expect("a directory");
    let (ours, other) = (Authority::new(dir.path(), "ours"), Authority::new(dir.path(), "other"));
    ours.certify(dir.path(), "127.0.0.1");
    let daemon = Daemon::start(&yard, dir.path());
    let key = yard.ok(&["key", "create", "--role", "admin"]).lines().last().expect("a key").to_owned();
    let url = format!("https://127.0.0.1:{}", daemon.port);
    let ask = |believes: &Authority, args: &[&str]| caller(&url, &key, &believes.file, args);
    let run = ask(
        &ours,
        &["run", "--name", "web", "--", "sh", "-c", "cat /proc/sys/kernel/hostname; head -c 300000 /dev/zero | wc -c"],
    );
    assert_eq!((run.code, run.text().as_str()), (0, "web\n300000"), "{run:?}");

    // Neither an unknown authority, nor another's name, nor somebody without encryption is shown the key.
    let refused = ask(&other, &["ls"]);
    assert!(refused.code == 7 && refused.stderr.contains("UnknownIssuer"), "{refused:?}");
    assert!(refused.stderr.contains("SSL_CERT_FILE"), "{refused:?}");
    let misnamed = caller(&url.replace("127.0.0.1", "127.0.0.2"), &key, &ours.file, &["ls"]);
    assert!(misnamed.code == 7, "{misnamed:?}");
    let plain = caller(&url.replace("https", "http"), &key, &ours.file, &["ls"]);
    assert_ne!(plain.code, 0, "{plain:?}");

    // Files that are half replaced change nothing; whole ones count for the next caller.
    std::fs::write(dir.path().join("tls.key"), "nothing").expect("written");
    assert_eq!(ask(&ours, &["ls", "-a", "-q"]).text(), "web");
    other.certify(dir.path(), "127.0.0.1");
    assert_eq!(ask(&other, &["ls", "-a", "-q"]).text(), "web");
    assert_ne!(ask(&ours, &["ls"]).code, 0);
    drop(daemon);
    yard.ok(&["rm", "-f", "web"]);
}

#[test]
fn a_daemon_with_a_certificate_of_no_use_says_so_and_does_not_serve() {
    let yard = Yard::new();
    let dir = tempfile::tempdir().expect("a directory");
    Authority::new(dir.path(), "ours").certify(dir.path(), "127.0.0.1");
    let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let serve = |certificate: &Path, key: &Path| {
        let (certificate, key) = (certificate.to_string_lossy(), key.to_string_lossy());
        yard.garth(&["serve", "--listen", "127.0.0.1:0", "--tls-cert", &certificate, "--tls-key", &key])
    };
    let swapped = serve(&key, &certificate);
    assert!(swapped.code != 0 && swapped.stderr.contains("holds no certificate"), "{swapped:?}");
    let absent = serve(&certificate, &dir.path().join("absent"));
    assert!(absent.code != 0 && absent.stderr.contains("absent holds no private key"), "{absent:?}");
    let alone = yard.garth(&["serve", "--listen", "127.0.0.1:0", "--tls-cert", &certificate.to_string_lossy()]);
    assert!(alone.code == 2 && alone.stderr.contains("--tls-key"), "{alone:?}");
    let pointless = yard.garth(&["serve", "--tls-cert", "a", "--tls-key", "b"]);
    assert!(pointless.code == 2 && pointless.stderr.contains("--listen"), "{pointless:?}");
}
