use std::path::Path;

use crate::openapi;

/// `GARTH_REGENERATE=1 cargo test -p garth-server contract` writes the file again.
#[test]
fn the_committed_contract_is_the_one_that_is_served() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
    let document = openapi().to_pretty_json().expect("JSON") + "\n";
    if std::env::var_os("GARTH_REGENERATE").is_some() {
        std::fs::write(&file, &document).expect("docs/openapi.json");
    }
    let committed = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(committed == document, "docs/openapi.json is not what the code says: run `just generate`");
}

#[test]
fn every_path_says_how_it_fails_and_no_reference_dangles() {
    let document = serde_json::to_value(openapi()).expect("JSON");
    let schemas = document["components"]["schemas"].as_object().expect("schemas");
    for reference in references(&document) {
        let name = reference.strip_prefix("#/components/schemas/").expect("a schema");
        assert!(schemas.contains_key(name), "{name} is nowhere");
    }
    assert!(schemas.contains_key("ErrorBody") && schemas.contains_key("ProjectSpec"));
    assert!(document["paths"]["/v1/projects/{name}/agent/{path}"].is_object());
}

fn references(value: &serde_json::Value) -> Vec<String> {
    match value {
        serde_json::Value::Object(fields) => {
            let own = fields.get("$ref").and_then(|own| own.as_str()).map(str::to_owned);
            own.into_iter().chain(fields.values().flat_map(references)).collect()
        }
        serde_json::Value::Array(items) => items.iter().flat_map(references).collect(),
        _ => Vec::new(),
    }
}
