//! Garth as docs/kubernetes.md installs it: operator and gateway are Pods, from one image, with the rights of their accounts.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use garth_cluster::install::METRICS_PORT;
use garth_cluster_lab::{BUSYBOX, Image, Lab};

use crate::authority::Authority;
use crate::stage::is_possible;
use crate::yard::{Done, finish, program};

/// Where the image would be pulled from, were it not on the node.
const IMAGE: &str = "registry.example/garth:1";

#[test]
fn an_installed_garth_serves_and_outlives_its_leader() {
    let test = "an_installed_garth_serves_and_outlives_its_leader";
    if !is_possible(test) {
        return;
    }
    // Of its own: the operator of the other tests would be a second one.
    let lab = Lab::with_node().expect("a cluster");
    import(&lab);
    lab.run(&["create", "namespace", "agents"]).expect("the projects' namespace");
    install(&lab, &[]);

    let create = ["garth", "--data-dir", "/tmp/garth", "key", "create", "--role", "admin"];
    let exec = ["--namespace=garth", "exec", "deploy/garth-gateway", "--"];
    let key = lab.run(&[&exec[..], &create].concat()).expect("a key").trim().to_owned();
    let gateway = Forwarded::new(&lab);
    let garth = |args: &[&str]| asked(&gateway.host, &key, args);
    let ok = |args: &[&str]| {
        let done = garth(args);
        assert_eq!(done.code, 0, "{args:?}: {done:?}\n{}", seen(&lab));
        done.text()
    };
    ok(&["create", "web", "--memory", "64MiB", "--disk", "1GiB"]);
    ok(&["exec", "web", "--", "sh", "-c", "echo heron > note"]);
    assert_eq!(ok(&["exec", "web", "--", "cat", "note"]), "heron");
    assert_eq!(ok(&["ls", "-a", "-q"]), "web");
    assert_ne!(asked(&gateway.host, "", &["ls"]).code, 0);

    // Each gateway serves, and knows the key.
    let gateways = addresses(&lab, "garth-gateway");
    assert_eq!(gateways.len(), 2);
    for address in &gateways {
        assert_eq!(
            asked(&format!("http://{address}:7070"), &key, &["exec", "web", "--", "cat", "note"]).text(),
            "heron"
        );
    }

    // Each operator is measured, and the one that leads knows the projects.
    let operators = addresses(&lab, "garth-operator");
    assert_eq!(operators.len(), 2);
    let scrapes = || operators.iter().map(|address| scraped(address)).collect::<Vec<String>>();
    let counted = lab.wait_for("the project in the metrics", || {
        let leaders: Vec<String> =
            scrapes().into_iter().filter(|said| said.contains("\ngarth_operator_leader 1\n")).collect();
        let running = "\ngarth_operator_projects{state=\"Running\",runtime=\"default\"} 1\n";
        Ok(matches!(&leaders[..], [leader] if leader.contains(running)))
    });
    assert!(counted.is_ok(), "{:?}", scrapes());

    let holder = || {
        let holder = "-o=jsonpath={.spec.holderIdentity}";
        lab.run(&["--namespace=garth", "get", "lease", "garth-operator", holder]).expect("the lease")
    };
    let first = holder();
    lab.run(&["--namespace=garth", "delete", "pod", &first, "--now", "--wait=false"]).expect("its end");
    lab.wait_for("another leader", || Ok(holder() != first)).expect("another leader");
    ok(&["restart", "web"]);
    assert_eq!(ok(&["exec", "web", "--", "cat", "note"]), "heron");

    // It sees the Pod and the node, and nobody carries its policy out.
    let verified = garth(&["verify", "web"]);
    let table = verified.text();
    let failed: Vec<&str> =
        table.lines().filter_map(|line| line.strip_prefix("fail")?.split_whitespace().next()).collect();
    assert_eq!(failed, ["network-policy", "node", "api-server", "disk-limit"], "{table}");

    // The same, encrypted: files and keys stay.
    let dir = tempfile::tempdir().expect("a directory");
    let authority = Authority::new(dir.path(), "ours");
    authority.certify(dir.path(), "127.0.0.1");
    let (certificate, own) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let files = [("--cert", certificate), ("--key", own)].map(|(flag, file)| format!("{flag}={}", file.display()));
    lab.run(&["--namespace=garth", "create", "secret", "tls", "web", &files[0], &files[1]]).expect("a Secret");
    install(&lab, &["--tls-secret", "web"]);
    let gateway = Forwarded::new(&lab);
    let host = gateway.host.replace("http://", "https://");
    let mut exec = Command::new(program());
    exec.args(["exec", "web", "--", "cat", "note"]).env("GARTH_HOST", host).env("GARTH_API_KEY", &key);
    let said = finish(exec.env("SSL_CERT_FILE", &authority.file), b"");
    assert_eq!(said.text(), "heron", "{said:?}\n{}", seen(&lab));

    let doctor = doctor(&lab);
    let wrong: Vec<&str> = doctor.lines().filter(|line| line.trim_start().starts_with("no  ")).collect();
    assert!(wrong.is_empty(), "{doctor}");
    assert!(doctor.contains("operator: works") && doctor.contains("gateway: works"), "{doctor}");
}

/// As docs/kubernetes.md has it; done when each part is there.
fn install(lab: &Lab, more: &[&str]) {
    let manifests = ["cluster", "manifests", "--image", IMAGE, "--projects", "agents", "--default-image", BUSYBOX];
    let manifests = finish(Command::new(program()).args(manifests).args(more), b"").text();
    lab.apply(&manifests).expect("the manifests");
    for deployment in ["deploy/garth-operator", "deploy/garth-gateway"] {
        let ready = lab.run(&["--namespace=garth", "rollout", "status", deployment, "--timeout=180s"]);
        assert!(ready.is_ok(), "{ready:?}\n{}", seen(lab));
    }
}

fn asked(host: &str, key: &str, args: &[&str]) -> Done {
    finish(Command::new(program()).args(args).env("GARTH_HOST", host).env("GARTH_API_KEY", key), b"")
}

/// Of the Pods of a part.
fn addresses(lab: &Lab, part: &str) -> Vec<String> {
    let (label, addresses) = (format!("app.kubernetes.io/component={part}"), "-o=jsonpath={.items[*].status.podIP}");
    let addresses = lab.run(&["--namespace=garth", "get", "pods", "-l", &label, addresses]).expect("addresses");
    addresses.split_whitespace().map(str::to_owned).collect()
}

/// What an operator answers Prometheus.
fn scraped(address: &str) -> String {
    let mut stream = TcpStream::connect((address, METRICS_PORT)).expect("the operator's port");
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: operator\r\n\r\n").expect("a request");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("# EOF\n"), "{answer}");
    answer
}

fn doctor(lab: &Lab) -> String {
    let args = ["doctor", "--cluster", "--projects", "agents"];
    let done = finish(Command::new(program()).args(args).env("KUBECONFIG", lab.kubeconfig()), b"");
    assert_eq!(done.code, 0, "{done:?}");
    done.text()
}

fn seen(lab: &Lab) -> String {
    let pods = lab.run(&["get", "pods", "--all-namespaces", "-o", "wide"]).unwrap_or_default();
    let logs = ["--namespace=garth", "logs", "--prefix", "-l", "app.kubernetes.io/name=garth", "--tail=20"];
    format!("{pods}\n{}", lab.run(&logs).unwrap_or_else(|error| format!("{error:#}")))
}

/// The Service, at an address of this machine.
struct Forwarded {
    host: String,
    kubectl: Child,
    // It ends when nobody reads what it says.
    _said: BufReader<ChildStdout>,
}

impl Forwarded {
    fn new(lab: &Lab) -> Self {
        let mut command = lab.kubectl();
        command.args(["--namespace=garth", "port-forward", "svc/garth", ":7070"]);
        let mut kubectl = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("kubectl");
        let mut line = String::new();
        let mut said = BufReader::new(kubectl.stdout.take().expect("piped"));
        said.read_line(&mut line).expect("its address");
        // Forwarding from 127.0.0.1:43210 -> 7070
        let address = line.split_whitespace().nth(2).unwrap_or_else(|| panic!("{line}\n{}", seen(lab)));
        Self { host: format!("http://{address}"), kubectl, _said: said }
    }
}

impl Drop for Forwarded {
    fn drop(&mut self) {
        let _ = self.kubectl.kill();
        let _ = self.kubectl.wait();
    }
}

/// Gives the node the image: made by the static program that `GARTH_TEST_STATIC` names, as `just cluster-install-check` has it;
/// else of the program under test and the libraries that it needs.
fn import(lab: &Lab) {
    if let Some(program) = std::env::var_os("GARTH_TEST_STATIC") {
        let archive = lab.state().join("garth.tar");
        let mut command = Command::new(program);
        command.args(["cluster", "image", "--name", IMAGE, "--output"]).arg(&archive);
        let made = finish(&mut command, b"");
        assert_eq!(made.code, 0, "{made:?}");
        return lab.import_archive(&archive).expect("the image");
    }
    let root = lab.state().join("root");
    let copy = |from: &Path, to: &str| {
        let to = root.join(to.trim_start_matches('/'));
        std::fs::create_dir_all(to.parent().expect("a directory")).expect("a directory");
        std::fs::copy(from, to).expect("a copy");
    };
    copy(Path::new(&program()), "bin/garth");
    let agent = root.join("garth-agent");
    std::fs::write(&agent, garth_agent_binary::AGENT).expect("the agent");
    std::fs::set_permissions(&agent, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    std::fs::create_dir(root.join("tmp")).expect("/tmp");
    std::fs::set_permissions(root.join("tmp"), std::fs::Permissions::from_mode(0o1777)).expect("its mode");
    let libraries = libraries();
    assert!(!libraries.is_empty(), "ldd names none");
    libraries.iter().for_each(|library| copy(library, &library.to_string_lossy()));
    lab.import(&Image::of_directory(IMAGE, &root)).expect("the image");
    std::fs::remove_dir_all(&root).expect("gone");
}

/// What the loader loads with the program, itself too.
fn libraries() -> Vec<PathBuf> {
    let said = finish(Command::new("ldd").arg(program()), b"").text();
    said.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}
