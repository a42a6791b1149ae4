use garth_spec::{ProjectSpec, Runtime};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

/// What is asked of a new project. As JSON a spec: one that names `at_least` and no `runtime` leaves the runtime open.
#[derive(Debug, Clone, PartialEq)]
pub enum NewSpec {
    /// All of it is said.
    Whole(ProjectSpec),
    /// The weakest runtime that works here, can do what the spec asks, and is this or stronger.
    AtLeast(Runtime, ProjectSpec),
}

impl NewSpec {
    /// What is asked, whatever the runtime.
    pub fn spec(&self) -> &ProjectSpec {
        match self {
            Self::Whole(spec) | Self::AtLeast(_, spec) => spec,
        }
    }
}

impl Default for NewSpec {
    fn default() -> Self {
        ProjectSpec::default().into()
    }
}

impl From<ProjectSpec> for NewSpec {
    fn from(spec: ProjectSpec) -> Self {
        Self::Whole(spec)
    }
}

const RUNTIME: &str = "runtime";

impl Serialize for NewSpec {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Whole(spec) => spec.serialize(to),
            Self::AtLeast(least, spec) => {
                let spec = ProjectSpec { at_least: Some(*least), ..spec.clone() };
                let mut fields = serde_json::to_value(spec).map_err(serde::ser::Error::custom)?;
                fields.as_object_mut().map(|fields| fields.remove(RUNTIME));
                fields.serialize(to)
            }
        }
    }
}

impl<'de> Deserialize<'de> for NewSpec {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let fields = Map::deserialize(from)?;
        let named = fields.contains_key(RUNTIME);
        let spec: ProjectSpec = serde_json::from_value(Value::Object(fields)).map_err(D::Error::custom)?;
        Ok(match spec.at_least {
            Some(least) if !named => Self::AtLeast(least, spec),
            _ => Self::Whole(spec),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> NewSpec {
        serde_json::from_str(json).expect("a spec")
    }

    #[test]
    fn a_runtime_that_is_not_named_beside_at_least_is_open() {
        assert_eq!(read("{}"), NewSpec::default());
        assert!(matches!(read(r#"{"at_least": "sysbox"}"#), NewSpec::AtLeast(Runtime::Sysbox, _)));
        // Refused by the engine, as it is weaker.
        let named = read(r#"{"at_least": "sysbox", "runtime": "default"}"#);
        assert!(matches!(named, NewSpec::Whole(ref spec) if spec.runtime == Runtime::Default.into()));
        for spec in [named, read(r#"{"at_least": "microvm", "user": "web"}"#)] {
            assert_eq!(read(&serde_json::to_string(&spec).expect("json")), spec);
        }
    }

    #[test]
    fn unknown_fields_are_errors() {
        let error = serde_json::from_str::<NewSpec>(r#"{"netwrok": "none"}"#).expect_err("unknown");
        assert!(error.to_string().contains("netwrok"), "{error}");
    }
}
