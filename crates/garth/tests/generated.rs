//! Files in the repository that come from the code are what the code says.
//! `GARTH_REGENERATE=1 cargo test -p garth --test generated` writes them again.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};

/// What a command prints.
#[track_caller]
fn said(words: &[&str]) -> String {
    let program = Command::new(env!("CARGO_BIN_EXE_garth")).args(words).env_clear().output().expect("garth runs");
    assert!(program.status.success(), "{program:?}");
    String::from_utf8(program.stdout).expect("text")
}

fn in_repository(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file)
}

/// Compares a file of the repository with what it is to be.
#[track_caller]
fn is_up_to_date(file: &str, text: &str) {
    let path = in_repository(file);
    if std::env::var_os("GARTH_REGENERATE").is_some() {
        std::fs::write(&path, text).expect(file);
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == text, "{file} is not what the code says: run `just generate`");
}

#[test]
fn the_command_line_reference_is_up_to_date() {
    is_up_to_date("docs/cli.md", &said(&["reference"]));
}

const CHART: &str = "deploy/helm/garth";

#[test]
fn the_chart_is_the_manifests_with_values_in_them() {
    let values = ["--image", "{{ .Values.image }}", "--projects", "{{ .Values.projects }}"];
    let more = ["--namespace", "{{ .Release.Namespace }}", "--default-image", "{{ .Values.defaultImage }}"];
    let manifests = [&["cluster", "manifests"][..], &values, &more].concat();
    let all = said(&manifests);
    // The definitions are applied before all else, and the namespace is the installer's.
    let apart =
        |object: &&str| object.contains("kind: CustomResourceDefinition") || object.contains("kind: Namespace\n");
    let listed = |all: &str| -> Vec<String> {
        let objects = all.split("---\n").filter(|object| !object.is_empty() && !apart(object));
        objects.map(|object| object.replace("replicas: 2\n", "replicas: {{ .Values.replicas }}\n")).collect()
    };
    let encrypted = said(&[&manifests[..], &["--tls-secret", "{{ .Values.tlsSecret }}"]].concat());
    let (plain, encrypted) = (listed(&all), listed(&encrypted));
    assert_eq!(plain.len(), encrypted.len());
    let choice = |(plain, encrypted)| match plain == encrypted {
        true => format!("---\n{plain}"),
        false => format!("---\n{IF_ENCRYPTED}{encrypted}{ELSE}{plain}{END}"),
    };
    let template: String = plain.iter().zip(&encrypted).map(choice).collect();
    is_up_to_date(&format!("{CHART}/templates/garth.yaml"), &template);
    is_up_to_date(&format!("{CHART}/crds/garth.yaml"), &said(&["cluster", "crds"]));
    let more = said(&[&manifests[..], &["--prometheus-rules"]].concat());
    let more = more.strip_prefix(&all).expect("the same, and more");
    let monitoring = format!("{WHERE_ASKED}{}{END}", helm_leaves(more));
    is_up_to_date(&format!("{CHART}/templates/monitoring.yaml"), &monitoring);
}

const IF_ENCRYPTED: &str = "{{ if .Values.tlsSecret }}\n";
const ELSE: &str = "{{ else }}\n";
const WHERE_ASKED: &str = "{{ if .Values.prometheusRules }}\n";
const END: &str = "{{ end }}\n";

/// What Prometheus fills in is not for Helm.
const FOR_PROMETHEUS: [(&str, &str); 2] =
    [("{{ $labels.", "{{ \"{{\" }} $labels."), ("{{ $value ", "{{ \"{{\" }} $value ")];

fn helm_leaves(text: &str) -> String {
    FOR_PROMETHEUS.iter().fold(text.to_owned(), |text, (plain, escaped)| text.replace(plain, escaped))
}

/// What Helm makes of a template, as far as these go.
fn rendered(template: &str, values: &Value) -> String {
    let mut text = template.replace("{{ .Release.Namespace }}", "garth");
    for (name, value) in values.as_object().expect("a map") {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        text = text.replace(&format!("{{{{ .Values.{name} }}}}"), &value);
    }
    text.replace("{{ \"{{\" }}", "{{")
}

#[test]
fn the_chart_by_its_own_values_is_what_the_manifests_are() {
    let chart = |file: &str| std::fs::read_to_string(in_repository(CHART).join(file)).expect(file);
    let values: Value = serde_saphyr::from_str(&chart("values.yaml")).expect("values");
    let (garth, monitoring) = (chart("templates/garth.yaml"), chart("templates/monitoring.yaml"));
    for name in values.as_object().expect("a map").keys() {
        let is_used = [&garth, &monitoring].iter().any(|template| template.contains(&format!(".Values.{name} }}}}")));
        assert!(is_used, "nothing uses the value {name}");
    }
    assert_eq!(values["prometheusRules"], false, "clusters without Prometheus have no such definitions");
    let conditional =
        monitoring.strip_prefix(WHERE_ASKED).and_then(|rest| rest.strip_suffix(END)).expect("a condition");
    assert_eq!(values["tlsSecret"], "", "there is no certificate unless somebody has made one");
    let (before, rest) = garth.split_once(IF_ENCRYPTED).expect("a condition");
    let (encrypted, rest) = rest.split_once(ELSE).expect("another");
    let (plain, after) = rest.split_once(END).expect("its end");
    let installed = |more: &[&str]| said(&[&["cluster", "manifests", "--prometheus-rules"], more].concat());
    let with = json!({ "tlsSecret": "web" });
    let cases = [(plain, &values, installed(&[])), (encrypted, &with, installed(&["--tls-secret", "web"]))];
    for (gateway, more, installed) in cases {
        let mut values = values.clone();
        values["tlsSecret"] = more["tlsSecret"].clone();
        let rendered = rendered(&format!("{before}{gateway}{after}{conditional}"), &values);
        is_charted(&chart("crds/garth.yaml"), &rendered, &installed);
    }
}

/// Every object that is installed is in the chart, but for the namespace.
fn is_charted(crds: &str, rendered: &str, installed: &str) {
    let (installed, mut charted) = (objects(installed), objects(crds));
    charted.extend(objects(rendered));
    for object in installed {
        let is_the_installers = object["kind"] == "Namespace";
        assert!(charted.contains(&object) || is_the_installers, "the chart has no {}", object["metadata"]);
    }
}
fn objects(text: &str) -> Vec<Value> {
    let documents = text.split("---\n").filter(|document| !document.trim().is_empty());
    documents.map(|document| serde_saphyr::from_str(document).expect("an object")).collect()
}
