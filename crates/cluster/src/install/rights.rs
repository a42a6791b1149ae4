//! The rights that the manifests give, one by one, to be asked for.

use k8s_openapi::api::rbac::v1::PolicyRule;

use super::{gateway_places, gateway_rules, operator_rules};
use crate::doctor::Where;

/// One thing that is done to one kind of object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Right {
    /// The API group.
    pub group: String,
    /// The resource, with its subresource behind a slash.
    pub resource: String,
    /// What is done.
    pub verb: String,
    /// The namespace; all when absent.
    pub namespace: Option<String>,
}

/// What a part of Garth, `operator` or `gateway`, has to be allowed.
pub fn rights(part: &str, at: &Where) -> Vec<Right> {
    let everywhere = if part == "operator" { operator_rules() } else { gateway_rules() };
    let mut rights: Vec<Right> = everywhere.iter().flat_map(of_rule).collect();
    if part == "gateway" {
        for (_, namespace, rules) in gateway_places(&at.namespace, &at.projects) {
            let there = |right| Right { namespace: Some(namespace.to_owned()), ..right };
            rights.extend(rules.iter().flat_map(of_rule).map(there));
        }
    }
    rights
}

fn of_rule(rule: &PolicyRule) -> Vec<Right> {
    let mut rights = Vec::new();
    for group in rule.api_groups.iter().flatten() {
        for resource in rule.resources.iter().flatten() {
            rights.extend(rule.verbs.iter().map(|verb| Right {
                group: group.clone(),
                resource: resource.clone(),
                verb: verb.clone(),
                namespace: None,
            }));
        }
    }
    rights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_verb_of_each_rule_is_a_right() {
        let at = Where { namespace: "garth".into(), projects: "agents".into() };
        let words = |part| -> Vec<String> {
            rights(part, &at).iter().map(|right| format!("{} {}", right.verb, right.resource)).collect()
        };
        assert!(words("operator").contains(&"patch projects/status".to_owned()));
        assert!(!words("operator").contains(&"get secrets".to_owned()));
        let secrets: Vec<Right> = rights("gateway", &at).into_iter().filter(|one| one.resource == "secrets").collect();
        assert_eq!(secrets.len(), 4);
        assert_eq!(secrets[0].namespace.as_deref(), Some("agents"));
    }
}
