use kube::core::Status;

use super::*;

#[track_caller]
fn check(code: u16, message: &str, class: Class) {
    let status = Status { code, message: message.to_owned(), ..Status::default() };
    let source = kube::Error::Api(Box::new(status));
    assert_eq!(Class::of(&Refused::Api { doing: "", said: String::new(), source }), class, "{code} {message}");
}

#[test]
fn what_is_forbidden_is_told_apart() {
    let rights =
        r#"pods is forbidden: User "system:serviceaccount:garth:garth-operator" cannot create resource "pods""#;
    check(403, rights, Class::Rights);
    check(403, r#"pods "web" is forbidden: exceeded quota: few, requested: pods=1, used: pods=3"#, Class::Quota);
    check(403, r#"pods "web" is forbidden: violates PodSecurity "restricted:latest": hostUsers"#, Class::Policy);
    check(403, r#"admission webhook "no.example" denied the request: User limits"#, Class::Policy);
}

#[test]
fn each_code_has_a_class() {
    for (code, class) in [
        (400, Class::Invalid),
        (401, Class::Rights),
        (404, Class::Missing),
        (409, Class::Conflict),
        (422, Class::Invalid),
        (429, Class::Overloaded),
        (500, Class::Server),
        (503, Class::Server),
    ] {
        check(code, "", class);
    }
}

#[test]
fn what_has_no_code_has_a_class() {
    let source = kube::Error::Service("no answer in time".into());
    assert_eq!(Class::of(&Refused::Api { doing: "", said: String::new(), source }), Class::Unreachable);
    assert_eq!(Class::of(&Refused::Taken { kind: "Pod".to_owned(), name: "web".to_owned() }), Class::Taken);
}
