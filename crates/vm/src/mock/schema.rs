//! A schema of requests, as little as ours need: `METHOD /path` with the body's fields. A type is `"string"`,
//! `"integer"`, `"boolean"`, a list of words to choose from, `{ "from": …, "to": … }` for an integer, `{ "each": type }`
//! for a list, `{ "nullable": type }`, or `{ "required": …, "optional": … }` for an object. No body is `null`. `{}` in a path is any word.

use serde_json::{Map, Value};

pub(crate) struct Schema(Map<String, Value>);

impl Schema {
    pub(crate) fn parse(text: &str) -> Self {
        Self(serde_json::from_str(text).expect("a schema"))
    }

    pub(crate) fn check(&self, order: &str, body: &Value) -> Result<(), String> {
        let fits = |pattern: &str| {
            let (pattern, words) = (pattern.split('/'), order.split('/'));
            pattern.clone().count() == words.clone().count()
                && pattern.zip(words).all(|(part, word)| part == "{}" || part == word)
        };
        let (_, kind) = self.0.iter().find(|(pattern, _)| fits(pattern)).ok_or("there is no such order")?;
        check(kind, body)
    }
}

fn check(kind: &Value, value: &Value) -> Result<(), String> {
    let wrong = || Err(format!("{value} is not {kind}"));
    let good = match kind {
        Value::Null => value.is_null(),
        Value::String(name) => match name.as_str() {
            "string" => value.is_string(),
            "integer" => value.is_u64(),
            "boolean" => value.is_boolean(),
            other => panic!("the schema says {other}"),
        },
        Value::Array(words) => words.contains(value),
        Value::Object(kind) if kind.contains_key("from") => value
            .as_u64()
            .is_some_and(|value| Some(value) >= kind["from"].as_u64() && Some(value) <= kind["to"].as_u64()),
        Value::Object(kind) if kind.contains_key("nullable") => {
            return if value.is_null() { Ok(()) } else { check(&kind["nullable"], value) };
        }
        Value::Object(kind) if kind.contains_key("each") => {
            let Some(values) = value.as_array() else { return wrong() };
            return values.iter().try_for_each(|value| check(&kind["each"], value));
        }
        Value::Object(kind) => {
            let Some(fields) = value.as_object() else { return wrong() };
            return object(kind, fields);
        }
        other => panic!("the schema says {other}"),
    };
    if good { Ok(()) } else { wrong() }
}

fn object(kind: &Map<String, Value>, fields: &Map<String, Value>) -> Result<(), String> {
    let of = |name: &str| kind.get(name).and_then(Value::as_object).cloned().unwrap_or_default();
    let (required, optional) = (of("required"), of("optional"));
    if let Some(missing) = required.keys().find(|name| !fields.contains_key(*name)) {
        return Err(format!("{missing} is missing"));
    }
    fields.iter().try_for_each(|(name, value)| {
        let kind = required.get(name).or_else(|| optional.get(name)).ok_or(format!("there is no field {name}"))?;
        check(kind, value).map_err(|why| format!("{name}: {why}"))
    })
}
