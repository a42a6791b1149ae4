//! Programs run as asked, and starts that cannot work say why.

use garth_protocol::agent::FailReason;

use crate::support::{Agent, is_root, run, shell, start};

#[tokio::test]
async fn output_code_and_streams_come_back() {
    if !is_root("output_code_and_streams_come_back") {
        return;
    }
    let agent = Agent::start().await;
    let outcome = run(&agent, shell("echo out; echo err >&2; exit 7")).await;
    assert_eq!((outcome.text().as_str(), outcome.stderr.as_slice()), ("out\n", &b"err\n"[..]));
    assert_eq!(outcome.code(), 7);
    assert_eq!(outcome.ended.expect("ended").offset, 8);
}

#[tokio::test]
async fn a_signal_that_ends_it_is_reported() {
    if !is_root("a_signal_that_ends_it_is_reported") {
        return;
    }
    let agent = Agent::start().await;
    let ended = run(&agent, shell("kill -TERM $$")).await.ended.expect("ended");
    assert_eq!((ended.signal, ended.exit_code), (15, 0));
}

#[tokio::test]
async fn arguments_are_never_parsed_again() {
    if !is_root("arguments_are_never_parsed_again") {
        return;
    }
    let agent = Agent::start().await;
    let outcome = run(&agent, start(&["printf", "%s", "a b;$(x)\n'\""])).await;
    assert_eq!(outcome.text(), "a b;$(x)\n'\"");
}

#[tokio::test]
async fn megabytes_of_output_are_exact() {
    if !is_root("megabytes_of_output_are_exact") {
        return;
    }
    let agent = Agent::start().await;
    let outcome = run(&agent, shell("seq 1 2000000")).await;
    let expected: String = (1..=2_000_000).map(|number| format!("{number}\n")).collect();
    assert!(outcome.stdout == expected.as_bytes(), "{} bytes", outcome.stdout.len());
}

#[tokio::test]
async fn environment_directory_and_user_are_as_asked() {
    if !is_root("environment_directory_and_user_are_as_asked") {
        return;
    }
    let agent =
        Agent::start_in(tempfile::tempdir().expect("directory"), r#"{"env": [["A", "config"], ["B", "b"]]}"#).await;
    let mut request = shell("echo $A $B $HOME; pwd; id -u; id -g; echo again > /dev/stdout");
    request.env = [("A".to_owned(), "request".to_owned())].into_iter().collect();
    request.cwd = "/usr".to_owned();
    request.user = "65534:12".to_owned();
    let outcome = run(&agent, request).await;
    let home = std::fs::read_to_string("/etc/passwd")
        .expect("passwd")
        .lines()
        .find(|line| line.split(':').nth(2) == Some("65534"))
        .and_then(|line| line.split(':').nth(5).map(str::to_owned))
        .unwrap_or("/".to_owned());
    assert_eq!(outcome.text(), format!("request b {home}\n/usr\n65534\n12\nagain\n"), "{outcome:?}");
}

#[tokio::test]
async fn starts_that_cannot_work_say_why() {
    if !is_root("starts_that_cannot_work_say_why") {
        return;
    }
    let agent = Agent::start().await;
    let script = agent.directory().join("script");
    std::fs::write(&script, "no magic at all").expect("script");
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("mode");
    let script = script.to_str().expect("UTF-8");
    let long = "x".repeat(3 << 20);
    let mut bad_cwd = start(&["true"]);
    bad_cwd.cwd = "/no/such/directory".to_owned();
    let mut bad_user = start(&["true"]);
    bad_user.user = "no-such-user".to_owned();
    let cases = [
        (start(&["/no/such/program"]), FailReason::FAIL_REASON_NOT_FOUND, 127, "/no/such/program: not found"),
        (start(&["no-such-program"]), FailReason::FAIL_REASON_NOT_FOUND, 127, "no-such-program: not found"),
        (start(&["/etc/passwd"]), FailReason::FAIL_REASON_PERMISSION, 126, "/etc/passwd: permission denied"),
        (start(&["/etc"]), FailReason::FAIL_REASON_IS_DIRECTORY, 126, "/etc: is a directory"),
        (start(&[script]), FailReason::FAIL_REASON_NOT_EXECUTABLE, 126, "exec format error"),
        (
            start(&["true", &long]),
            FailReason::FAIL_REASON_TOO_LONG,
            126,
            "true: arguments and environment are too long",
        ),
        (start(&[]), FailReason::FAIL_REASON_INVALID, 125, "no program was given"),
        (bad_cwd, FailReason::FAIL_REASON_BAD_CWD, 125, "cwd '/no/such/directory' does not exist"),
        (bad_user, FailReason::FAIL_REASON_UNKNOWN_USER, 125, "no user \"no-such-user\""),
    ];
    for (request, reason, code, message) in cases {
        let failed = run(&agent, request).await.failed.expect("failed");
        assert_eq!((failed.reason.as_known(), failed.exit_code), (Some(reason), code), "{}", failed.message);
        assert!(failed.message.contains(message), "{}", failed.message);
    }
    let left = crate::support::soon(agent.processes().list(Default::default())).await.expect("list");
    assert!(left.view().processes.is_empty());
}
