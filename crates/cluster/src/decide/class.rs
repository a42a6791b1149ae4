//! Which of the cluster's isolation classes carries a project's runtime out.

use std::collections::BTreeSet;
use std::sync::Arc;

use garth_spec::{Runtime, RuntimeChoice};
use kube::ResourceExt as _;

use crate::resources::{IsolationClass, Project};

/// A runtime that this cluster cannot give; nothing weaker is taken in its place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The schema should have refused it.
    #[error("{0}")]
    Unknown(String),
    /// Below what the project may have at the least.
    #[error(
        "the runtime {runtime} is weaker than {at_least}, the least that this project may have: set spec.runtime to it or to a stronger one"
    )]
    TooWeak {
        /// What is asked for.
        runtime: Runtime,
        /// What is promised.
        at_least: Runtime,
    },
    /// No class for it.
    #[error("no IsolationClass carries the runtime {0} out: make one, with the RuntimeClass of the nodes that have it")]
    NoClass(RuntimeChoice),
    /// Classes whose RuntimeClass is missing.
    #[error(
        "the RuntimeClass {missing}, which carries the runtime {runtime} out, is not on this cluster: install it, or its operator"
    )]
    NoRuntimeClass {
        /// What is asked for.
        runtime: RuntimeChoice,
        /// What is missing.
        missing: String,
    },
}

/// The class of a project's runtime: the one of the highest priority whose RuntimeClass is there. None is the plain default
/// of the cluster, and only for the runtime `default`.
///
/// # Errors
/// When the cluster has none.
pub fn choose<'a>(
    project: &Project,
    classes: &'a [Arc<IsolationClass>],
    runtime_classes: &BTreeSet<String>,
) -> Result<Option<&'a IsolationClass>, Unavailable> {
    let unknown = |error: &dyn std::error::Error| Unavailable::Unknown(error.to_string());
    let choice: RuntimeChoice = project.spec.runtime.parse().map_err(|error| unknown(&error))?;
    let runtime = choice.runtime();
    if let Some(at_least) = &project.spec.at_least {
        let at_least: Runtime = at_least.parse().map_err(|error| unknown(&error))?;
        if runtime < at_least {
            return Err(Unavailable::TooWeak { runtime, at_least });
        }
    }
    let mut fitting: Vec<_> = classes.iter().filter(|class| carries(class, choice)).collect();
    fitting.sort_by_key(|class| (std::cmp::Reverse(class.spec.priority), class.name_any()));
    let is_there = |class: &&&Arc<IsolationClass>| {
        class.spec.runtime_class_name.as_ref().is_none_or(|name| runtime_classes.contains(name))
    };
    match (fitting.iter().find(is_there), fitting.first()) {
        (Some(class), _) => Ok(Some(class)),
        (None, Some(class)) => Err(Unavailable::NoRuntimeClass {
            runtime: choice,
            missing: class.spec.runtime_class_name.clone().unwrap_or_default(),
        }),
        (None, None) if runtime == Runtime::Default => Ok(None),
        (None, None) => Err(Unavailable::NoClass(choice)),
    }
}

/// Whether a sandbox of this runtime is what a project asks for.
pub(super) fn satisfies(has: &str, project: &Project) -> bool {
    let (Ok(has), Ok(asked)) = (has.parse::<RuntimeChoice>(), project.spec.runtime.parse::<RuntimeChoice>()) else {
        return false;
    };
    let at_least = project.spec.at_least.as_ref().and_then(|least| least.parse::<Runtime>().ok());
    offers(has, asked) && at_least.is_none_or(|least| has.runtime() >= least)
}

fn carries(class: &IsolationClass, choice: RuntimeChoice) -> bool {
    match class.spec.runtime.parse::<RuntimeChoice>() {
        Ok(offered) => offers(offered, choice),
        Err(_) => false,
    }
}

fn offers(offered: RuntimeChoice, asked: RuntimeChoice) -> bool {
    match asked {
        RuntimeChoice::Any(runtime) => offered.runtime() == runtime,
        RuntimeChoice::Only(_) => offered == asked,
    }
}
